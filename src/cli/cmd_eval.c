/* cmd_eval.c - eval: metrics of a base or an adapter on the test data of a configuration. */
#include "cli/args.h"

#include "base/status.h"
#include "base/str.h"
#include "peft/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const cli_command cmd_eval = {
    .name = "eval",
    .usage = "eval [--config] CONFIG.yaml [--adapter DIR | --base] [key.path=value ...]",
    .what = "evaluate a base or an adapter: loss, perplexity, exact match, F1, BLEU",
    .examples = "  peft-toolkit eval config.yaml --base\n"
                "  peft-toolkit eval config.yaml --adapter outputs\n"
                "  peft-toolkit eval config.yaml --ckpt outputs/checkpoint-500 --fail-under "
                "eval_exact_match=80\n",
    .max_files = 1,
    .overrides = true,
    .run = run,
};

static peft_status read_rule(const char *rule, int *name_len, double *least, peft_error *err) {
    const char *equals = strchr(rule, '=');
    if (equals == NULL || equals == rule || !pf_parse_float(equals + 1, least)) {
        return PF_FAIL(err, PEFT_E_USAGE, "eval: --fail-under needs metric=value, not '%s'", rule);
    }
    *name_len = (int)(equals - rule);
    return PEFT_OK;
}

/* The keys of a flat JSON object of numbers. */
static void list_keys(const char *json, char *out, size_t n) {
    size_t used = 0;
    out[0] = '\0';
    for (const char *p = strchr(json, '"'); p != NULL && used + 64 < n; p = strchr(p, '"')) {
        size_t len = strcspn(++p, "\"");
        used += (size_t)snprintf(out + used, n - used, "%s%.*s", used > 0 ? ", " : "",
                                 (int)(len < 48 ? len : 48), p);
        p += len + (p[len] == '"');
    }
}

/* "metric=value": the number that follows "metric": in the flat JSON object of results. */
static peft_status check_under(const char *rule, const char *json, peft_error *err) {
    double least;
    int n;
    PF_TRY(read_rule(rule, &n, &least, err));
    char key[128];
    snprintf(key, sizeof key, "\"%.*s\":", n, rule);
    const char *at = strstr(json, key);
    if (at == NULL) {
        char known[512];
        list_keys(json, known, sizeof known);
        return PF_FAIL(err, PEFT_E_USAGE, "eval: there is no metric named %.*s; there are %s", n,
                       rule, known);
    }
    double value = strtod(at + strlen(key), NULL);
    if (value >= least) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FAILED, "%.*s is %g, below %g", n, rule, value, least);
}

static int run(int argc, char **argv) {
    const char *config = NULL, *adapter = NULL, *predictions = NULL;
    bool base = false;
    cli_strs under = {0};
    const cli_flag flags[] = {
        {"config", 'c', CLI_STR, &config, "FILE", "the configuration: base, data, metrics"},
        {"adapter", 0, CLI_STR, &adapter, "DIR",
         "adapter or checkpoint; default: the run's final adapter"},
        {"ckpt", 0, CLI_STR, &adapter, "DIR", "the same"},
        {"base", 0, CLI_BOOL, &base, NULL, "the base without an adapter"},
        {"predictions", 0, CLI_STR, &predictions, "FILE",
         "write prompt, target and prediction of each row as JSONL"},
        {"fail-under", 0, CLI_STRS, &under, "M=X",
         "exit with 1 when metric M is below X; may be repeated"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_eval, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    if (config == NULL && words.n_files == 1) config = words.files[0];
    if (base && adapter != NULL) {
        pf_fail(&err, PEFT_E_USAGE, "eval: --base and --adapter exclude each other");
        return cli_fail(&err);
    }
    if (cli_needs_config(&cmd_eval, config, &words, &err) != PEFT_OK) return cli_fail(&err);
    for (int i = 0; i < under.n; i++) { /* before the work, not after it */
        double least;
        int n;
        if (read_rule(under.items[i], &n, &least, &err) != PEFT_OK) return cli_fail(&err);
    }
    peft_eval_options opt = {
        .run = {.config_path = config,
                .overrides = words.overrides,
                .n_overrides = words.n_overrides},
        .adapter = adapter,
        .base = base,
        .predictions_path = predictions,
    };
    char *json;
    if (peft_evaluate(&opt, &json, &err) != PEFT_OK) return cli_fail(&err);
    puts(json);
    int code = 0;
    for (int i = 0; i < under.n && code == 0; i++) {
        if (check_under(under.items[i], json, &err) != PEFT_OK) code = cli_fail(&err);
    }
    peft_free(json);
    int done = cli_done();
    return code != 0 ? code : done;
}
