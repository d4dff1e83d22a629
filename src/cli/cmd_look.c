/* cmd_look.c - data, inspect and config: looking before and after a run. */
#include "cli/args.h"

#include "base/status.h"
#include "peft/model.h"
#include "peft/run.h"

#include <stdio.h>
#include <string.h>

static int run_data(int argc, char **argv);
static int run_inspect(int argc, char **argv);
static int run_config(int argc, char **argv);

const cli_command cmd_data = {
    .name = "data",
    .usage = "data preview|stats|tokens [--config] CONFIG.yaml [key.path=value ...] [--first N] "
             "[--count N]",
    .what = "what the model will see: rendered text, tokens, mask; figures of the set",
    .examples = "  peft-toolkit data preview config.yaml\n"
                "  peft-toolkit data stats config.yaml --json\n"
                "  peft-toolkit data tokens config.yaml > rows.jsonl\n",
    .max_files = 2,
    .overrides = true,
    .run = run_data,
};

const cli_command cmd_inspect = {
    .name = "inspect",
    .usage = "inspect FILE|DIR [--json]",
    .what = "tensors, shapes, types and metadata of a file or folder",
    .examples = "  peft-toolkit inspect model.safetensors\n"
                "  peft-toolkit inspect outputs/checkpoint-500 --json\n",
    .max_files = 1,
    .run = run_inspect,
};

const cli_command cmd_config = {
    .name = "config",
    .usage = "config show CONFIG.yaml [key.path=value ...] | config explain [KEY] | config "
             "reference|methods|models",
    .what = "the resolved configuration; what a key means; what there is to train, and on what",
    .examples = "  peft-toolkit config show config.yaml training.max_steps=10\n"
                "  peft-toolkit config explain training.learning_rate\n",
    .max_files = 2,
    .overrides = true,
    .run = run_config,
};

/* `made` by address: it is written by the call that gives `status`. */
static int print_text(peft_status status, char **made, const peft_error *err) {
    if (status != PEFT_OK) return cli_fail(err);
    char *text = *made;
    size_t n = strlen(text);
    fputs(text, stdout);
    if (n > 0 && text[n - 1] != '\n') putchar('\n');
    peft_free(text);
    return cli_done();
}

static int run_data(int argc, char **argv) {
    const char *config = NULL;
    bool json = false, test = false;
    int64_t first = 0, count = 3;
    const cli_flag flags[] = {
        {"config", 'c', CLI_STR, &config, "FILE", "the configuration"},
        {"first", 0, CLI_INT, &first, "N", "preview: start at this row (from 0)"},
        {"count", 'n', CLI_INT, &count, "N", "preview: how many rows; default 3"},
        {"json", 0, CLI_BOOL, &json, NULL, "JSON, one object per row"},
        {"test", 0, CLI_BOOL, &test, NULL, "tokens: the test rows, not the training rows"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_data, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    const char *verb = words.n_files > 0 ? words.files[0] : "";
    if (config == NULL && words.n_files > 1) config = words.files[1];
    const peft_run_options opt = {
        .config_path = config, .overrides = words.overrides, .n_overrides = words.n_overrides};
    char *text = NULL;
    if (strcmp(verb, "preview") == 0) {
        return print_text(peft_data_preview(&opt, first, count, json, &text, &err), &text, &err);
    }
    if (strcmp(verb, "stats") == 0)
        return print_text(peft_data_stats(&opt, json, &text, &err), &text, &err);
    if (strcmp(verb, "tokens") == 0)
        return print_text(peft_data_tokens(&opt, test, &text, &err), &text, &err);
    pf_fail(&err, PEFT_E_USAGE, "data: say 'data preview', 'data stats' or 'data tokens', not '%s'",
            verb);
    return cli_fail(&err);
}

static int run_inspect(int argc, char **argv) {
    bool json = false;
    const cli_flag flags[] = {{"json", 0, CLI_BOOL, &json, NULL, "one JSON object"}};
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_inspect, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    if (words.n_files == 0) {
        pf_fail(&err, PEFT_E_USAGE, "inspect: name a file or folder");
        return cli_fail(&err);
    }
    char *text = NULL;
    return print_text(peft_inspect(words.files[0], json, &text, &err), &text, &err);
}

static int run_config(int argc, char **argv) {
    const char *config = NULL;
    const cli_flag flags[] = {{"config", 'c', CLI_STR, &config, "FILE", "the configuration"}};
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_config, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    const char *verb = words.n_files > 0 ? words.files[0] : "";
    const char *rest = words.n_files > 1 ? words.files[1] : NULL;
    char *text = NULL;
    if (strcmp(verb, "show") == 0) {
        const peft_run_options opt = {.config_path = config != NULL ? config : rest,
                                      .overrides = words.overrides,
                                      .n_overrides = words.n_overrides};
        return print_text(peft_config_resolve(&opt, &text, &err), &text, &err);
    }
    if (strcmp(verb, "explain") == 0)
        return print_text(peft_config_explain(rest, &text, &err), &text, &err);
    if (strcmp(verb, "reference") == 0)
        return print_text(peft_config_reference(&text, &err), &text, &err);
    if (strcmp(verb, "methods") == 0)
        return print_text(peft_methods_reference(&text, &err), &text, &err);
    if (strcmp(verb, "models") == 0)
        return print_text(peft_models_reference(&text, &err), &text, &err);
    pf_fail(&err, PEFT_E_USAGE,
            "config: say 'config show', 'config explain', 'config reference', 'config methods' or "
            "'config models', not '%s'",
            verb);
    return cli_fail(&err);
}
