/* generate_flags.h - the flags that generate and chat share. */
#ifndef CLI_GENERATE_FLAGS_H
#define CLI_GENERATE_FLAGS_H

#include "cli/args.h"
#include "peft/model.h"

typedef struct cli_generate {
    const char *model, *adapter;
    int64_t max_new_tokens, top_k, seed, threads, max_length;
    double temperature, top_p, min_p, repetition_penalty;
    bool do_sample, left_over;
    cli_strs stop;
} cli_generate;

#define CLI_GENERATE_FLAGS(g)                                                                        \
    {"model", 'm', CLI_STR, &(g).model, "DIR", "model folder or hub name in the local cache"},       \
        {"adapter",    'a',   CLI_STR,                                                               \
         &(g).adapter, "DIR", "adapter or checkpoint; without --model its base is taken"},           \
        {"ckpt", 0, CLI_STR, &(g).adapter, "DIR", "the same"},                                       \
        {"max-new-tokens",    'n', CLI_INT,                                                          \
         &(g).max_new_tokens, "N", "length of the continuation; default 256"},                       \
        {"temperature",    't', CLI_FLOAT,                                                           \
         &(g).temperature, "T", "sample at this temperature; 0 is greedy (default)"},                \
        {"do-sample", 0, CLI_BOOL, &(g).do_sample, NULL, "sample at temperature 1"},                 \
        {"top-k", 0, CLI_INT, &(g).top_k, "K", "of the K most likely tokens"},                       \
        {"top-p", 0, CLI_FLOAT, &(g).top_p, "P", "of the smallest set with probability P"},          \
        {"min-p",    0,   CLI_FLOAT,                                                                 \
         &(g).min_p, "P", "of tokens at least P times as likely as the first"},                      \
        {"repetition-penalty", 0, CLI_FLOAT, &(g).repetition_penalty, "X", "above 1: repeat less"},  \
        {"stop", 0, CLI_STRS, &(g).stop, "TEXT", "end before this text; may be repeated"},           \
        {"seed", 0, CLI_INT, &(g).seed, "N", "of the draws"},                                        \
        {"max-length", 0, CLI_INT, &(g).max_length, "N", "context in tokens; default: the model's"}, \
        CLI_LEFT_OVER_FLAG((g).left_over), {                                                         \
        "threads", 0, CLI_INT, &(g).threads, "N", "threads; default: all cores"                      \
    }

peft_status cli_generate_check(const cli_command *cmd, const cli_generate *g, peft_error *err);
peft_generate_options cli_generate_options(const cli_generate *g);
peft_status cli_generate_open(peft_model **m, const cli_generate *g, peft_error *err);

#endif
