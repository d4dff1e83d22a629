/* cmd_merge.c - merge: fold an adapter into its base and prove it. */
#include "cli/args.h"

#include "base/status.h"
#include "base/str.h"
#include "peft/adapter.h"

#include <stdio.h>

static int run(int argc, char **argv);

const cli_command cmd_merge = {
    .name = "merge",
    .usage = "merge --ckpt DIR [--output DIR|FILE.pt] [--model DIR] [--dtype TYPE]",
    .what = "fold an adapter into its base; a folder of safetensors or one .pt",
    .examples = "  peft-toolkit merge --ckpt outputs/checkpoint-500\n"
                "  peft-toolkit merge --ckpt outputs --output merged/ --dtype bfloat16\n"
                "  peft-toolkit merge --ckpt outputs --output model.pt\n"
                "  peft-toolkit merge --ckpt outputs --model merged/ --unmerge --output base/\n",
    .run = run,
};

static int run(int argc, char **argv) {
    const char *ckpt = NULL, *output = NULL, *model = NULL, *dtype = NULL, *shard = NULL;
    bool overwrite = false, left_over = false, unmerge = false, no_verify = false, json = false;
    int64_t threads = 0;
    cli_strs prompts = {0};
    const cli_flag flags[] = {
        {"ckpt", 0, CLI_STR, &ckpt, "DIR", "adapter or checkpoint"},
        {"adapter", 'a', CLI_STR, &ckpt, "DIR", "the same"},
        {"output", 'o', CLI_STR, &output, "PATH",
         "folder, or file that ends in .pt; default <ckpt>/merged"},
        {"model", 'm', CLI_STR, &model, "DIR", "the base; default: the one that the adapter names"},
        {"dtype", 0, CLI_STR, &dtype, "TYPE", "float32, bfloat16 or float16; default: as the base"},
        {"max-shard-size", 0, CLI_STR, &shard, "SIZE", "of one safetensors file; default 5GB"},
        {"prompt", 0, CLI_STRS, &prompts, "TEXT", "compare on this text; may be repeated"},
        {"unmerge", 0, CLI_BOOL, &unmerge, NULL,
         "the other way: --model is a merged model, --output becomes its base"},
        {"no-verify", 0, CLI_BOOL, &no_verify, NULL, "do not compare merged with base and adapter"},
        {"overwrite", 0, CLI_BOOL, &overwrite, NULL, "replace an existing output"},
        {"threads", 0, CLI_INT, &threads, "N", "threads; default: all cores"},
        CLI_LEFT_OVER_FLAG(left_over),
        {"json", 0, CLI_BOOL, &json, NULL, "the report as JSON"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_merge, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    uint64_t shard_bytes = 0;
    if (ckpt == NULL)
        pf_fail(&err, PEFT_E_USAGE, "merge: --ckpt is missing");
    else if (shard != NULL && (!pf_parse_size(shard, &shard_bytes) || shard_bytes == 0)) {
        pf_fail(&err, PEFT_E_USAGE, "merge: --max-shard-size needs a size such as 5GB, not '%s'",
                shard);
    }
    if (err.status != PEFT_OK) return cli_fail(&err);
    const peft_merge_options opt = {.checkpoint = ckpt,
                                    .base = model,
                                    .ignore_left_over_weights = left_over,
                                    .output = output,
                                    .dtype = dtype,
                                    .max_shard_bytes = shard_bytes,
                                    .overwrite = overwrite,
                                    .unmerge = unmerge,
                                    .no_verify = no_verify,
                                    .prompts = prompts.items,
                                    .n_prompts = prompts.n,
                                    .threads = (int)threads};
    static peft_merge_report r;
    if (peft_merge(&opt, &r, &err) != PEFT_OK) return cli_fail(&err);
    if (json) {
        printf("{\"n_tensors\": %lld, \"n_changed\": %lld, \"untied\": %s, \"verified\": %s, "
               "\"max_abs_logit\": %.9g, "
               "\"mean_kl\": %.9g, \"token_agreement\": %.9g}\n",
               (long long)r.n_tensors, (long long)r.n_changed, r.untied ? "true" : "false",
               r.verified ? "true" : "false", r.max_abs_logit, r.mean_kl, r.token_agreement);
    } else {
        printf("%s: %s\n%lld tensors, %lld changed by the adapter%s\n",
               unmerge ? "unmerged" : "merged", r.output, (long long)r.n_tensors,
               (long long)r.n_changed,
               r.untied ? "; the output head is stored apart from the embedding now" : "");
        if (r.verified) {
            printf("verified against base + adapter: max |dlogit| %.3g, KL %.3g nats, token "
                   "agreement %.2f%%\n",
                   r.max_abs_logit, r.mean_kl, 100 * r.token_agreement);
        }
    }
    return cli_done();
}
