/* merged_model.h - a base with an adapter folded in, written as a model of its own.
 *
 * Every tensor of the base's files is written under its name, in the order and, unless told
 * otherwise, in the type that it has there; tensors that the adapter touches are computed in f32,
 * a few rows at a time, and rounded once. A matrix that embedding and head share is stored twice,
 * and config.json says so, when the adapter changes one of the two alone. Tokenizer files and
 * generation_config.json are carried over byte by byte.
 *
 * The output appears complete or not at all: a folder is filled under a temporary name beside it
 * and renamed last. */
#ifndef PF_MERGED_MODEL_H
#define PF_MERGED_MODEL_H

#include "peft/method.h"

typedef struct pf_merged_options {
    const char *output;       /* a folder, or a file that ends in .pt */
    pf_dtype dtype;           /* NONE: as the base */
    uint64_t max_shard_bytes; /* 0: 5 GB */
    bool overwrite;
    bool undo; /* the model has the adapter in it, and the base is written */
} pf_merged_options;

/* Called when everything is written and nothing renamed yet: `path` is the temporary folder or
 * file. A failure discards the output. */
typedef peft_status (*pf_merged_check)(void *ctx, const char *path, peft_error *err);

typedef struct pf_merged_result {
    int64_t n_tensors, n_changed;
    bool untied;
} pf_merged_result;

/* The adapter's model must be open in the types of its files (torch_dtype auto). */
peft_status pf_merged_write(const pf_adapter *ad, const pf_merged_options *opt,
                            pf_merged_check check, void *check_ctx, pf_merged_result *out,
                            peft_error *err);

#endif
