/* cmd_plan.c - plan: memory per class of buffer, speed and hardware before anything runs. */
#include "cli/args.h"

#include "base/file.h"
#include "peft/run.h"

#include <stdio.h>
#include <string.h>

static int run_plan(int argc, char **argv);

const cli_command cmd_plan = {
    .name = "plan",
    .usage = "plan [--config] CONFIG.yaml|MODEL [key.path=value ...] [--json] [--no-speed] "
             "[--recommend]",
    .what = "memory per class of buffer before anything runs; config.json alone is enough",
    .examples = "  peft-toolkit plan config.yaml\n"
                "  peft-toolkit plan config.yaml training.gradient_checkpointing=true\n"
                "  peft-toolkit plan models/Llama-3.1-70B training.max_length=1024\n"
                "  peft-toolkit plan config.yaml --recommend\n",
    .max_files = 1,
    .overrides = true,
    .run = run_plan,
};

/* A folder, its config.json, or a hub name stands for model.name_or_path. */
static bool names_model(const char *word) {
    if (pf_is_dir(word) || strcmp(pf_path_base(word), "config.json") == 0) return true;
    return !pf_path_exists(word) && !pf_ends_with(word, ".yaml") && !pf_ends_with(word, ".yml") &&
           !pf_ends_with(word, ".json");
}

static int run_plan(int argc, char **argv) {
    const char *config = NULL;
    const char *hardware = NULL;
    bool json = false, no_speed = false, recommend = false;
    const cli_flag flags[] = {
        {"config", 'c', CLI_STR, &config, "FILE", "the configuration"},
        {"json", 0, CLI_BOOL, &json, NULL, "one JSON object"},
        {"no-speed", 0, CLI_BOOL, &no_speed, NULL, "memory alone: do not time this machine"},
        {"recommend", 0, CLI_BOOL, &recommend, NULL,
         "which hardware holds it, how long, at what price"},
        {"hardware", 0, CLI_STR, &hardware, "FILE",
         "the table for --recommend; default: share/hardware.yaml"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_plan, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    if (config == NULL && words.n_files > 0) config = words.files[0];
    char model[4096];
    if (config != NULL && names_model(config)) {
        size_t n = strlen(config);
        if (strcmp(pf_path_base(config), "config.json") == 0 && !pf_is_dir(config))
            n -= strlen("config.json");
        snprintf(model, sizeof model, "model.name_or_path=%.*s", (int)n, n > 0 ? config : ".");
        words.overrides[words.n_overrides++] = model; /* argv's copy has room for one word more */
        config = NULL;
    }
    if (cli_needs_config(&cmd_plan, config, &words, &err) != PEFT_OK) return cli_fail(&err);
    const peft_plan_options opt = {.run = {.config_path = config,
                                           .overrides = words.overrides,
                                           .n_overrides = words.n_overrides},
                                   .json = json,
                                   .speed = !no_speed,
                                   .recommend = recommend,
                                   .hardware_path = hardware};
    char *text = NULL;
    if (peft_plan(&opt, &text, &err) != PEFT_OK) return cli_fail(&err);
    fputs(text, stdout);
    peft_free(text);
    return cli_done();
}
