/* cmd_train.c - train: the main job. */
#include "cli/args.h"

#include "base/status.h"
#include "peft/run.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first signal asks for a checkpoint and a clean end, the second ends at once. */
static void on_signal(int sig) {
    static volatile sig_atomic_t asked;
    if (asked) _exit(128 + sig);
    asked = 1;
    peft_request_stop(sig);
}

static int run(int argc, char **argv);

const cli_command cmd_train = {
    .name = "train",
    .usage = "train [--config] CONFIG.yaml [key.path=value ...] [~key.path ...] [flags]",
    .what = "fine-tune a model as a configuration says",
    .examples = "  peft-toolkit train --config config.yaml\n"
                "  peft-toolkit train config.yaml training.learning_rate=1e-4 peft.lora.r=16\n"
                "  peft-toolkit train config.yaml --resume\n"
                "  peft-toolkit train --explain peft.lora\n",
    .max_files = 1,
    .overrides = true,
    .run = run,
};

static int explain(const char *key) {
    peft_error err = {0};
    char *text;
    if (peft_config_explain(key, &text, &err) != PEFT_OK) return cli_fail(&err);
    fputs(text, stdout);
    peft_free(text);
    return cli_done();
}

static int dry_run(const peft_run_options *opt, bool json) {
    peft_error err = {0};
    char *text;
    const peft_plan_options plan = {.run = *opt, .json = json};
    if (peft_plan(&plan, &text, &err) != PEFT_OK) return cli_fail(&err);
    fputs(text, stdout);
    peft_free(text);
    return cli_done();
}

static int run(int argc, char **argv) {
    const char *config = NULL, *key = NULL, *resume_from = NULL;
    bool resume = false, overwrite = false, dry = false, json = false, profile = false;
    const cli_flag flags[] = {
        {"config", 'c', CLI_STR, &config, "FILE", "the configuration"},
        {"resume", 0, CLI_BOOL, &resume, NULL,
         "continue from the newest good checkpoint of training.output_dir"},
        {"resume-from", 0, CLI_STR, &resume_from, "DIR", "continue from this checkpoint"},
        {"overwrite", 0, CLI_BOOL, &overwrite, NULL, "replace the run that output_dir holds"},
        {"dry-run", 'n', CLI_BOOL, &dry, NULL, "load, tokenize and plan; train nothing"},
        {"profile", 0, CLI_BOOL, &profile, NULL, "time every op and print the table at the end"},
        {"explain", 0, CLI_STR, &key, "KEY", "what a key or a section means"},
        {"json", 0, CLI_BOOL, &json, NULL, "with --dry-run: the plan as JSON"},
    };
    peft_error err = {0};
    cli_words words;
    const char *command = cli_command_line(&cmd_train, argc, argv);
    /* "--resume DIR" has a value where a folder follows, "--resume" alone has none. */
    for (int i = 0; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--resume") != 0) continue;
        const char *next = argv[i + 1];
        size_t n = strlen(next);
        bool is_config = (n > 5 && strcmp(next + n - 5, ".yaml") == 0) ||
                         (n > 4 && strcmp(next + n - 4, ".yml") == 0);
        if (next[0] != '-' && next[0] != '~' && strchr(next, '=') == NULL && !is_config)
            argv[i] = "--resume-from";
    }
    if (cli_parse(&cmd_train, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    if (key != NULL) return explain(key);
    if (config == NULL && words.n_files == 1)
        config = words.files[0];
    else if (words.n_files == 1) {
        pf_fail(&err, PEFT_E_USAGE, "train: two configurations, %s and %s; give one", config,
                words.files[0]);
        return cli_fail(&err);
    }
    if (cli_needs_config(&cmd_train, config, &words, &err) != PEFT_OK) return cli_fail(&err);
    peft_run_options opt = {.config_path = config,
                            .overrides = words.overrides,
                            .n_overrides = words.n_overrides,
                            .resume = resume,
                            .resume_from = resume_from,
                            .overwrite = overwrite,
                            .profile = profile,
                            .command = command};
    if (dry) return dry_run(&opt, json);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (peft_train(&opt, &err) != PEFT_OK) return cli_fail(&err);
    return cli_done();
}
