/* cmd_chat.c - chat: a conversation in the terminal. Each turn continues the text so far; how a
 * turn is written is given by --user and --assistant, for the templates of chat models are a later
 * matter. */
#include "cli/generate_flags.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/status.h"
#include "peft/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int run(int argc, char **argv);

const cli_command cmd_chat = {
    .name = "chat",
    .usage = "chat --model DIR [--adapter DIR] [--user TEXT] [--assistant TEXT] [--no-history]",
    .what = "talk to a model in the terminal",
    .examples =
        "  peft-toolkit chat --model merged/\n"
        "  peft-toolkit chat --adapter outputs/ --user 'Q: ' --assistant '\\nA:' --no-history\n",
    .run = run,
};

/* \n, \t and \\ in a flag, so that turns can be written on a command line. */
static void add_unescaped(pf_buf *b, const char *s) {
    for (; *s != '\0'; s++) {
        if (s[0] == '\\' && (s[1] == 'n' || s[1] == 't' || s[1] == '\\')) {
            pf_buf_addc(b, s[1] == 'n' ? '\n' : s[1] == 't' ? '\t' : '\\');
            s++;
        } else {
            pf_buf_addc(b, *s);
        }
    }
}

static void print_piece(void *ctx, int prompt, const char *piece) {
    (void)ctx;
    (void)prompt;
    fputs(piece, stdout);
    fflush(stdout);
}

static int talk(peft_model *m, const peft_generate_options *opt, const char *user,
                const char *assistant, bool history) {
    pf_buf text = {0};
    char *line = NULL;
    size_t room = 0;
    int code = 0;
    bool terminal = isatty(STDIN_FILENO);
    if (terminal) PF_INFO("/reset forgets the conversation, /exit or end of file ends it");
    for (;;) {
        if (terminal) fputs("> ", stdout), fflush(stdout);
        ssize_t n = getline(&line, &room, stdin);
        if (n < 0) break;
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "/exit") == 0) break;
        if (strcmp(line, "/reset") == 0) {
            pf_buf_clear(&text);
            continue;
        }
        if (line[0] == '\0') continue;
        if (!history) pf_buf_clear(&text);
        add_unescaped(&text, user);
        pf_buf_adds(&text, line);
        add_unescaped(&text, assistant);
        peft_error err = {0};
        char *answer;
        if (!pf_buf_ok(&text)) pf_fail(&err, PEFT_E_NOMEM, "out of memory");
        const char *prompt = pf_buf_str(&text);
        if (!pf_buf_ok(&text) || peft_generate(m, &prompt, 1, opt, &answer, &err) != PEFT_OK) {
            code = cli_fail(&err);
            break;
        }
        putchar('\n');
        pf_buf_adds(&text, answer);
        pf_buf_addc(&text, '\n');
        peft_free(answer);
    }
    free(line); /* getline's own */
    pf_buf_free(&text);
    return code;
}

static int run(int argc, char **argv) {
    cli_generate g = {0};
    const char *user = "", *assistant = "\\n";
    bool no_history = false;
    const cli_flag flags[] = {
        CLI_GENERATE_FLAGS(g),
        {"user", 0, CLI_STR, &user, "TEXT", "what stands before your words; \\n is a line end"},
        {"assistant", 0, CLI_STR, &assistant, "TEXT",
         "what stands between your words and the answer; default \\n"},
        {"no-history", 0, CLI_BOOL, &no_history, NULL, "each turn starts anew"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_chat, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    peft_model *m;
    if (cli_generate_check(&cmd_chat, &g, &err) != PEFT_OK ||
        cli_generate_open(&m, &g, &err) != PEFT_OK) {
        return cli_fail(&err);
    }
    peft_generate_options opt = cli_generate_options(&g);
    opt.on_text = print_piece;
    int code = talk(m, &opt, user, assistant, !no_history);
    peft_model_close(m);
    int done = cli_done();
    return code != 0 ? code : done;
}
