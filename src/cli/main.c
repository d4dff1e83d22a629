/* main.c - finds the verb and runs it. Exit codes are those of peft/error.h, documented in
 * docs/cli.md. */
#include "cli/args.h"

#include "base/map_guard.h"
#include "base/status.h"
#include "base/str.h"
#include "peft/run.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CLI_COMMAND(name) extern const cli_command cmd_##name;
#include "cli/commands.def"
#undef CLI_COMMAND

static const cli_command *const commands[] = {
#define CLI_COMMAND(name) &cmd_##name,
#include "cli/commands.def"
#undef CLI_COMMAND
};

static void print_overview(void) {
    printf("peft-toolkit %s - fine-tune language models from one YAML file, without Python\n\n"
           "Examples:\n"
           "  peft-toolkit init > config.yaml\n"
           "  peft-toolkit train --config config.yaml training.max_steps=100\n"
           "  peft-toolkit merge --ckpt outputs/checkpoint-500 --output merged/\n"
           "  peft-toolkit generate --model merged/ --prompt \"Q: What is 12 * 11?\\nA:\"\n\n"
           "Commands:\n",
           peft_version());
    for (int i = 0; i < CLI_COUNT(commands); i++) {
        printf("  %-12s %s\n", commands[i]->name, commands[i]->what);
    }
    printf("\npeft-toolkit COMMAND --help says more about each; peft-toolkit --version\n");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); /* a reader that went away is an error of the write, with a message */
    pf_map_guard_install(); /* a model file that shrinks under us is an error with a message, too */
    peft_error err = {0};
    if (argc < 2 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_overview();
        return argc < 2 ? 2 : cli_done();
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("peft-toolkit %s\n", peft_version());
        return cli_done();
    }
    const char *names[CLI_COUNT(commands)];
    for (int i = 0; i < CLI_COUNT(commands); i++) {
        names[i] = commands[i]->name;
        if (strcmp(argv[1], names[i]) == 0) return commands[i]->run(argc - 2, argv + 2);
    }
    int near = pf_nearest(argv[1], names, CLI_COUNT(commands));
    pf_fail(&err, PEFT_E_USAGE,
            near >= 0 ? "unknown command '%s'; did you mean %s?" : "unknown command '%s'%s",
            argv[1], near >= 0 ? names[near] : "; see peft-toolkit --help");
    return cli_fail(&err);
}
