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
    const char *output;       /* folder, or file that ends in .pt; NULL: <checkpoint>/merged */
    const char *dtype;        /* "float32", "bfloat16", "float16"; NULL: as the base */
    uint64_t max_shard_bytes; /* 0: 5 GB */
    bool overwrite;           /* replace an existing output */
    bool unmerge;   /* `base` is a merged model: the base that it was made of is written */
    bool no_verify; /* skip the comparison with base and adapter */
    bool ignore_left_over_weights; /* as in peft_model_options */
    const char *const *prompts;    /* for the comparison; NULL: built-in ones */
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

/* --- adapters as things; texts are the caller's to free with peft_free (run.h) --- */

typedef struct peft_combine_options { /* zero = default */
    const char *const *adapters;      /* folders of LoRA adapters (PEFT, AdapterHub, MLX) */
    int n_adapters;
    const double *weights;   /* NULL: 1 each */
    const char *kind;        /* linear svd cat ties ties_svd dare_linear dare_ties dare_linear_svd
                                dare_ties_svd magnitude_prune magnitude_prune_svd; NULL: linear */
    double density;          /* of what is kept; 0: 1 */
    bool majority_frequency; /* ties: by how many, not by how much */
    int64_t svd_rank;        /* 0: the largest rank of them */
    uint64_t seed;           /* dare */
    const char *output;      /* folder, in PEFT's format */
    bool overwrite;
} peft_combine_options;

PEFT_API
peft_status peft_adapter_combine(const peft_combine_options *opt, char **text, peft_error *err);

typedef struct peft_convert_options { /* zero = default */
    const char *adapter;
    const char *to;    /* peft, adapterhub, mlx: another format of a LoRA; lora: another method as a
                          LoRA of `rank`, by SVD, with what it misses said */
    const char *model; /* lora: the base, NULL: the one that the adapter names; adapterhub: whose
                          type and width the folder names */
    int64_t rank;
    int threads;
    bool ignore_left_over_weights; /* as in peft_model_options */
    const char *output;
    bool overwrite;
} peft_convert_options;

PEFT_API
peft_status peft_adapter_convert(const peft_convert_options *opt, char **text, peft_error *err);

/* What two folders do not have in common; one folder's configuration and norms. */
PEFT_API
peft_status peft_adapter_diff(const char *a, const char *b, bool json, bool *same, char **text,
                              peft_error *err);
PEFT_API
peft_status peft_adapter_inspect(const char *dir, bool json, char **text, peft_error *err);

#ifdef __cplusplus
}
#endif
#endif
