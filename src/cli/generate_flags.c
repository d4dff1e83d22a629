/* generate_flags.c - see generate_flags.h. */
#include "cli/generate_flags.h"

#include "base/status.h"

#include <stddef.h>

peft_status cli_generate_check(const cli_command *cmd, const cli_generate *g, peft_error *err) {
    if (g->model == NULL && g->adapter == NULL) {
        return PF_FAIL(err, PEFT_E_USAGE,
                       "%s: --model (or --adapter, whose base is then taken) is missing",
                       cmd->name);
    }
    const struct {
        const char *name;
        bool bad;
        const char *range;
    } checks[] = {
        {"max-new-tokens", g->max_new_tokens < 0, "at least 1"},
        {"temperature", g->temperature < 0, "at least 0"},
        {"top-k", g->top_k < 0, "at least 0"},
        {"top-p", g->top_p < 0 || g->top_p > 1, "between 0 and 1"},
        {"min-p", g->min_p < 0 || g->min_p > 1, "between 0 and 1"},
        {"repetition-penalty", g->repetition_penalty < 0, "above 0"},
        {"seed", g->seed < 0, "at least 0"},
        {"max-length", g->max_length < 0, "at least 2"},
        {"threads", g->threads < 0 || g->threads > 4096, "between 1 and 4096"},
    };
    for (int i = 0; i < CLI_COUNT(checks); i++) {
        if (checks[i].bad)
            return PF_FAIL(err, PEFT_E_USAGE, "%s: --%s must be %s", cmd->name, checks[i].name,
                           checks[i].range);
    }
    return PEFT_OK;
}

peft_generate_options cli_generate_options(const cli_generate *g) {
    bool warm = g->temperature > 0;
    return (peft_generate_options){
        .max_new_tokens = g->max_new_tokens,
        .do_sample =
            g->do_sample || warm || g->top_k > 0 || (g->top_p > 0 && g->top_p < 1) || g->min_p > 0,
        .temperature = warm ? g->temperature : 1,
        .top_k = g->top_k,
        .top_p = g->top_p,
        .min_p = g->min_p,
        .repetition_penalty = g->repetition_penalty,
        .seed = (uint64_t)g->seed,
        .stop = g->stop.items,
        .n_stop = g->stop.n,
    };
}

peft_status cli_generate_open(peft_model **m, const cli_generate *g, peft_error *err) {
    const peft_model_options opt = {.path = g->model,
                                    .adapter = g->adapter,
                                    .threads = (int)g->threads,
                                    .max_length = g->max_length,
                                    .ignore_left_over_weights = g->left_over};
    return peft_model_open(m, &opt, err);
}
