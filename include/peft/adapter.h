/* adapter.h - folding an adapter into its base, and proving it. */
#ifndef PEFT_ADAPTER_H
#define PEFT_ADAPTER_H

#include "peft/error.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peft_merge_options { /* zero = default */
    const char *checkpoint;         /* adapter or checkpoint folder */
    const char *base;               /* NULL: the one that the adapter names */
    const char *output;         /* folder, or file that ends in .pt; NULL: <checkpoint>/merged */
    const char *dtype;          /* "float32", "bfloat16", "float16"; NULL: as the base */
    uint64_t max_shard_bytes;   /* 0: 5 GB */
    bool overwrite;             /* replace an existing output */
    bool no_verify;             /* skip the comparison with base and adapter */
    const char *const *prompts; /* for the comparison; NULL: built-in ones */
    int n_prompts;
    int threads;
} peft_merge_options;

typedef struct peft_merge_report {
    char output[4096];
    int64_t n_tensors, n_changed; /* written; touched by the adapter */
    bool untied;                  /* a tied head had to be stored apart */
    bool verified;
    double max_abs_logit;   /* largest difference of a logit, merged against base + adapter */
    double mean_kl;         /* of the next-token distributions, nats */
    double token_agreement; /* share of positions with the same most likely token */
} peft_merge_report;

/* Writes the merged model, reads it back and compares. Nothing is left under the final name when
 * it fails. */
PEFT_API
peft_status peft_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err);

#ifdef __cplusplus
}
#endif
#endif
