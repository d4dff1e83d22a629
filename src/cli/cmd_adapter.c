/* cmd_adapter.c - adapter: look at adapters, compare, combine and convert them. */
#include "cli/args.h"

#include "base/status.h"
#include "peft/adapter.h"
#include "peft/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32 };

static int run(int argc, char **argv);

const cli_command cmd_adapter = {
    .name = "adapter",
    .usage =
        "adapter inspect DIR | diff A B | combine --adapter DIR ... --output DIR | convert DIR "
        "--to FORMAT --output DIR",
    .what = "adapters as things: look, compare, combine, convert",
    .examples =
        "  peft-toolkit adapter inspect outputs\n"
        "  peft-toolkit adapter diff outputs/checkpoint-100 outputs/checkpoint-200\n"
        "  peft-toolkit adapter combine -a law -a medicine --weight 0.7 --weight 0.3 --kind svd -o "
        "both\n"
        "  peft-toolkit adapter convert outputs --to mlx --output outputs-mlx\n"
        "  peft-toolkit adapter convert outputs-loha --to lora --rank 16 --output outputs-lora\n",
    .max_files = 3,
    .run = run,
};

typedef struct options {
    cli_strs adapters, weights;
    const char *kind, *output, *to, *model, *majority;
    double density;
    int64_t svd_rank, rank, seed, threads;
    bool overwrite, left_over, json;
} options;

static int print(peft_status status, char **made, const peft_error *err) {
    if (status != PEFT_OK) return cli_fail(err);
    fputs(*made, stdout);
    peft_free(*made);
    return cli_done();
}

static int fail_usage(const char *what) {
    peft_error err = {0};
    pf_fail(&err, PEFT_E_USAGE, "adapter: %s", what);
    return cli_fail(&err);
}

static int combine(const options *o) {
    peft_error err = {0};
    double weights[MOST];
    char *text = NULL;
    if (o->weights.n > MOST || (o->weights.n > 0 && o->weights.n != o->adapters.n))
        return fail_usage("combine takes one --weight for each --adapter, in the same order");
    for (int i = 0; i < o->weights.n; i++) {
        char *end;
        weights[i] = strtod(o->weights.items[i], &end);
        if (end == o->weights.items[i] || *end != '\0')
            return fail_usage("a --weight should be a number");
    }
    const bool frequency = o->majority != NULL && strcmp(o->majority, "frequency") == 0;
    if (o->majority != NULL && !frequency && strcmp(o->majority, "total") != 0)
        return fail_usage("--majority-sign-method is total or frequency");
    const peft_combine_options opt = {.adapters = o->adapters.items,
                                      .n_adapters = o->adapters.n,
                                      .weights = o->weights.n > 0 ? weights : NULL,
                                      .kind = o->kind,
                                      .density = o->density,
                                      .majority_frequency = frequency,
                                      .svd_rank = o->svd_rank,
                                      .seed = (uint64_t)o->seed,
                                      .output = o->output,
                                      .overwrite = o->overwrite};
    return print(peft_adapter_combine(&opt, &text, &err), &text, &err);
}

static int convert(const options *o, const char *adapter) {
    peft_error err = {0};
    char *text = NULL;
    const peft_convert_options opt = {.adapter = adapter,
                                      .to = o->to,
                                      .model = o->model,
                                      .rank = o->rank,
                                      .threads = (int)o->threads,
                                      .ignore_left_over_weights = o->left_over,
                                      .output = o->output,
                                      .overwrite = o->overwrite};
    return print(peft_adapter_convert(&opt, &text, &err), &text, &err);
}

static int run(int argc, char **argv) {
    options o = {0};
    const cli_flag flags[] = {
        {"adapter", 'a', CLI_STRS, &o.adapters, "DIR", "combine: one of them; may be repeated"},
        {"weight", 'w', CLI_STRS, &o.weights, "X", "combine: of each of them; default 1"},
        {"kind", 0, CLI_STR, &o.kind, "NAME",
         "combine: linear, svd, cat, ties, dare_linear, dare_ties, magnitude_prune, and those "
         "three "
         "with _svd; default linear"},
        {"density", 0, CLI_FLOAT, &o.density, "X", "combine: the share that is kept; default 1"},
        {"majority-sign-method", 0, CLI_STR, &o.majority, "WORD",
         "ties: total (default) or frequency"},
        {"svd-rank", 0, CLI_INT, &o.svd_rank, "R", "combine: of the result; default the largest"},
        {"seed", 0, CLI_INT, &o.seed, "N", "dare: of what is dropped"},
        {"to", 0, CLI_STR, &o.to, "FORMAT",
         "convert: peft, adapterhub, mlx; or lora: any method as a LoRA of --rank"},
        {"rank", 'r', CLI_INT, &o.rank, "R", "convert --to lora"},
        {"model", 'm', CLI_STR, &o.model, "DIR", "convert: the base; default: as the adapter says"},
        {"output", 'o', CLI_STR, &o.output, "DIR", "the new folder"},
        {"overwrite", 0, CLI_BOOL, &o.overwrite, NULL, "replace an existing output"},
        {"threads", 0, CLI_INT, &o.threads, "N", "threads; default: all cores"},
        CLI_LEFT_OVER_FLAG(o.left_over),
        {"json", 0, CLI_BOOL, &o.json, NULL, "inspect, diff: JSON"},
    };
    peft_error err = {0};
    cli_words words;
    char *text = NULL;
    if (cli_parse(&cmd_adapter, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    const char *verb = words.n_files > 0 ? words.files[0] : "";
    const char *first = words.n_files > 1 ? words.files[1] : NULL;
    if (strcmp(verb, "combine") == 0)
        return o.adapters.n > 0 && o.output != NULL
                   ? combine(&o)
                   : fail_usage("combine needs --adapter DIR (more than once) and --output DIR");
    if (strcmp(verb, "convert") == 0)
        return first != NULL ? convert(&o, first)
                             : fail_usage("convert: name the adapter's folder");
    if (strcmp(verb, "inspect") == 0 && first != NULL)
        return print(peft_adapter_inspect(first, o.json, &text, &err), &text, &err);
    if (strcmp(verb, "diff") == 0 && words.n_files == 3) {
        bool same = false;
        const int code = print(peft_adapter_diff(first, words.files[2], o.json, &same, &text, &err),
                               &text, &err);
        return code != 0 || same ? code : peft_status_exit_code(PEFT_E_FAILED);
    }
    return fail_usage(
        "say 'adapter inspect DIR', 'adapter diff A B', 'adapter combine' or 'adapter "
        "convert DIR'");
}
