/* args.c - see args.h. */
#include "cli/args.h"

#include "base/arena.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/status.h"
#include "base/str.h"
#include "peft/run.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool quiet, verbose;

static const cli_flag common[] = {
    {"help", 'h', CLI_BOOL, NULL, NULL, "this text"},
    {"quiet", 'q', CLI_BOOL, &quiet, NULL, "errors only"},
    {"verbose", 'v', CLI_BOOL, &verbose, NULL, "more messages"},
};

static void print_flag(const cli_flag *f) {
    char left[64];
    snprintf(left, sizeof left, "%s%c%s--%s%s%s", f->letter ? "-" : " ",
             f->letter ? f->letter : ' ', f->letter ? ", " : "  ", f->name,
             f->value != NULL ? " " : "", f->value != NULL ? f->value : "");
    printf("  %-34s %s\n", left, f->what);
}

static void print_help(const cli_command *cmd, const cli_flag *flags, int n_flags) {
    printf("%s\n\nExamples:\n%s\nUsage: peft-toolkit %s\n\n", cmd->what, cmd->examples, cmd->usage);
    for (int i = 0; i < n_flags; i++) print_flag(&flags[i]);
    for (int i = 0; i < CLI_COUNT(common); i++) print_flag(&common[i]);
}

/* '-' and '_' are the same in the name of a flag. */
static bool same_name(const char *name, size_t n, const char *flag) {
    if (strlen(flag) != n) return false;
    for (size_t i = 0; i < n; i++) {
        char c = name[i] == '_' ? '-' : name[i];
        if (c != flag[i]) return false;
    }
    return true;
}

static const cli_flag *find_flag(const cli_flag *flags, int n_flags, const char *name, size_t n,
                                 char letter) {
    for (int pass = 0; pass < 2; pass++) {
        const cli_flag *list = pass == 0 ? flags : common;
        int count = pass == 0 ? n_flags : CLI_COUNT(common);
        for (int i = 0; i < count; i++) {
            if (letter != 0 ? list[i].letter == letter : same_name(name, n, list[i].name)) {
                return &list[i];
            }
        }
    }
    return NULL;
}

static peft_status unknown_flag(const cli_command *cmd, const cli_flag *flags, int n_flags,
                                const char *word, peft_error *err) {
    const char *names[64];
    int n = 0;
    for (int i = 0; i < n_flags && n < 60; i++) names[n++] = flags[i].name;
    for (int i = 0; i < CLI_COUNT(common); i++) names[n++] = common[i].name;
    char name[64];
    snprintf(name, sizeof name, "%s", word + strspn(word, "-"));
    name[strcspn(name, "=")] = '\0';
    int near = pf_nearest(name, names, n);
    if (near >= 0) {
        return PF_FAIL(err, PEFT_E_USAGE, "%s: unknown flag %s; did you mean --%s?", cmd->name,
                       word, names[near]);
    }
    return PF_FAIL(err, PEFT_E_USAGE, "%s: unknown flag %s; see peft-toolkit %s --help", cmd->name,
                   word, cmd->name);
}

static peft_status store(const cli_command *cmd, const cli_flag *f, const char *value,
                         peft_error *err) {
    switch (f->kind) {
    case CLI_BOOL:
        *(bool *)f->at = true;
        return PEFT_OK;
    case CLI_STR:
        *(const char **)f->at = value;
        return PEFT_OK;
    case CLI_INT:
        if (!pf_parse_int(value, f->at)) {
            return PF_FAIL(err, PEFT_E_USAGE, "%s: --%s needs a whole number, not '%s'", cmd->name,
                           f->name, value);
        }
        return PEFT_OK;
    case CLI_FLOAT:
        if (!pf_parse_float(value, f->at)) {
            return PF_FAIL(err, PEFT_E_USAGE, "%s: --%s needs a number, not '%s'", cmd->name,
                           f->name, value);
        }
        return PEFT_OK;
    case CLI_STRS: {
        cli_strs *list = f->at;
        list->items[list->n++] = value; /* room for argc items, made by cli_parse */
        return PEFT_OK;
    }
    }
    return PEFT_OK;
}

/* What grows with the command line lives until the process ends, as argv does. */
static pf_arena *process_arena(void) {
    static pf_arena arena;
    if (arena.name == NULL) pf_arena_init(&arena, "process");
    return &arena;
}

/* As a shell reads it: plain where nothing is special, else in single quotes. */
static void add_word(pf_buf *out, const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=./:,@%~";
    pf_buf_addc(out, ' ');
    if (word[0] != '\0' && word[0] != '~' && word[strspn(word, plain)] == '\0') {
        pf_buf_adds(out, word);
        return;
    }
    pf_buf_addc(out, '\'');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '\'')
            pf_buf_adds(out, "'\\''");
        else
            pf_buf_addc(out, *p);
    }
    pf_buf_addc(out, '\'');
}

const char *cli_command_line(const cli_command *cmd, int argc, char **argv) {
    pf_buf out = {0};
    pf_buf_addf(&out, "peft-toolkit %s", cmd->name);
    for (int i = 0; i < argc; i++) add_word(&out, argv[i]);
    const char *line = pf_buf_ok(&out) ? pf_arena_strdup(process_arena(), pf_buf_str(&out)) : NULL;
    pf_buf_free(&out);
    return line;
}

static peft_status make_room(const cli_flag *flags, int n_flags, int argc, cli_words *words,
                             peft_error *err) {
    words->overrides = PF_NEW_ARRAY(process_arena(), const char *, argc + 1);
    PF_CHECK_ALLOC(words->overrides, err);
    for (int i = 0; i < n_flags; i++) {
        if (flags[i].kind != CLI_STRS) continue;
        cli_strs *list = flags[i].at;
        list->items = PF_NEW_ARRAY(process_arena(), const char *, argc + 1);
        PF_CHECK_ALLOC(list->items, err);
    }
    return PEFT_OK;
}

peft_status cli_parse(const cli_command *cmd, const cli_flag *flags, int n_flags, int argc,
                      char **argv, cli_words *words, peft_error *err) {
    *words = (cli_words){0};
    PF_TRY(make_room(flags, n_flags, argc, words, err));
    bool only_files = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!only_files && strcmp(word, "--") == 0) {
            only_files = true;
        } else if (!only_files && word[0] == '-' && word[1] != '\0') {
            bool is_long = word[1] == '-';
            const char *equals = is_long ? strchr(word, '=') : NULL;
            size_t n = is_long ? (equals != NULL ? (size_t)(equals - word) : strlen(word)) - 2 : 0;
            const cli_flag *f =
                find_flag(flags, n_flags, word + 2, n, is_long || word[2] != '\0' ? 0 : word[1]);
            if (f == NULL) return unknown_flag(cmd, flags, n_flags, word, err);
            if (f->at == NULL) {
                print_help(cmd, flags, n_flags);
                words->help = true;
                return PEFT_OK;
            }
            const char *value = equals != NULL ? equals + 1 : NULL;
            if (f->kind == CLI_BOOL && value != NULL) {
                return PF_FAIL(err, PEFT_E_USAGE, "%s: --%s takes no value", cmd->name, f->name);
            }
            if (f->kind != CLI_BOOL && value == NULL) {
                if (++i == argc) {
                    return PF_FAIL(err, PEFT_E_USAGE, "%s: --%s needs a value (%s)", cmd->name,
                                   f->name, f->value);
                }
                value = argv[i];
            }
            PF_TRY(store(cmd, f, value, err));
        } else if (!only_files && cmd->overrides && (word[0] == '~' || strchr(word, '=') != NULL)) {
            words->overrides[words->n_overrides++] = word;
        } else if (words->n_files < cmd->max_files) {
            words->files[words->n_files++] = word;
        } else {
            return PF_FAIL(err, PEFT_E_USAGE,
                           "%s: do not know what to do with '%s'; see peft-toolkit %s --help",
                           cmd->name, word, cmd->name);
        }
    }
    peft_set_verbosity(quiet ? 0 : verbose ? 3 : 2);
    return PEFT_OK;
}

peft_status cli_needs_config(const cli_command *cmd, const char *config, const cli_words *words,
                             peft_error *err) {
    if (config != NULL || words->n_overrides > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_USAGE,
                   "%s: name a configuration, for example peft-toolkit %s config.yaml; "
                   "peft-toolkit init > config.yaml writes one",
                   cmd->name, cmd->name);
}

int cli_fail(const peft_error *err) {
    for (const char *line = err->message; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        pf_log(PF_LOG_ERROR, "%.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
    fflush(stdout);
    return peft_status_exit_code(err->status);
}

/* Has the reader of stdout gone? An earlier write may have met it, whose errno is lost. */
static bool reader_is_gone(void) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

int cli_done(void) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    peft_error err = {0};
    if (errno == EPIPE || (errno == 0 && reader_is_gone()))
        return peft_status_exit_code(PEFT_E_IO); /* "| head": nobody is left to tell */
    pf_fail_errno(&err, PEFT_E_IO, errno != 0 ? errno : EIO, "cannot write to stdout");
    return cli_fail(&err);
}
