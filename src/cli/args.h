/* args.h - command lines: verb, then files, then --flags and dotted overrides, in any order.
 *
 * A command describes its flags as rows; the rows parse, print the help and give the nearest flag
 * for a misspelt one. Words that contain '=' or begin with '~' are overrides of the configuration,
 * others are files. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include "peft/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cli_kind { CLI_BOOL, CLI_STR, CLI_INT, CLI_FLOAT, CLI_STRS } cli_kind;

typedef struct cli_strs { /* a flag that may be repeated */
    const char **items;
    int n;
} cli_strs;

typedef struct cli_flag {
    const char *name; /* "max-new-tokens"; also accepted with '_' */
    char letter;      /* 'c' for -c; 0: none */
    cli_kind kind;
    void *at;          /* bool, const char *, int64_t, double or cli_strs */
    const char *value; /* what stands for the value in the help: "DIR" */
    const char *what;
} cli_flag;

typedef struct cli_command {
    const char *name;
    const char *usage; /* after "peft-toolkit " */
    const char *what;  /* one line */
    const char *examples;
    int max_files;
    bool overrides; /* key=value words are allowed */
    int (*run)(int argc, char **argv);
} cli_command;

typedef struct cli_words {
    const char *files[8];
    int n_files;
    const char **overrides; /* points into argv's copy */
    int n_overrides;
    bool help;
} cli_words;

/* Fills flags and words; on --help prints the help and sets words->help. */
peft_status cli_parse(const cli_command *cmd, const cli_flag *flags, int n_flags, int argc,
                      char **argv, cli_words *words, peft_error *err);

/* A configuration comes from a file, or from overrides alone. */
peft_status cli_needs_config(const cli_command *cmd, const char *config, const cli_words *words,
                             peft_error *err);

/* The command line as one could type it again: "peft-toolkit train --config 'my config.yaml'".
 * Lives until the process ends. NULL: out of memory. Before cli_parse, argv as `run` gets it. */
const char *cli_command_line(const cli_command *cmd, int argc, char **argv);

/* Prints "error: ..." to stderr and returns the status' exit code. */
int cli_fail(const peft_error *err);
/* Flushes stdout; a full disk or closed pipe there is an error too. */
int cli_done(void);

#define CLI_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Shared by everything that opens a base. */
#define CLI_LEFT_OVER_FLAG(to)                                                                     \
    {                                                                                              \
        "ignore-left-over-weights", 0, CLI_BOOL, &(to), NULL,                                      \
            "go on where weight files have tensors that no part of the model reads"                \
    }

#endif
