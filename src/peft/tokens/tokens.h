/* tokens.h - chosen rows of the embedding (and of the head) trained in place of the base's, as
 * peft's TrainableTokensLayer does it: the parameter holds the rows themselves, not a difference.
 *
 * Where the head reads the embedding's matrix, its rows are the embedding's: one parameter at both
 * sites. For the method trainable_tokens and for trainable_token_indices of LoRA. */
#ifndef PF_TOKENS_H
#define PF_TOKENS_H

#include "peft/method.h"

typedef struct pf_token_list { /* rows of one module */
    const char *module;        /* the end of its path; NULL: the embedding */
    pf_cfg_ints ids;
} pf_token_list;

typedef struct pf_token_lists {
    pf_token_list *items;
    int n;
} pf_token_lists;

typedef struct pf_tokens { /* what is attached, one module a time; a list */
    pf_site *site, *tied;  /* tied: the head that shares the matrix, or NULL */
    pf_param *rows;        /* (n, C) */
    pf_param *places;      /* (V, n), one where a row stands: for the head; NULL without one */
    int32_t *ids, *slot;   /* (n), (V) */
    bool given;            /* its module was named (files: a mapping, not a list) */
    struct pf_tokens *next;
} pf_tokens;

/* key: of the configuration, for messages. suffix: of the tensors' names behind the module's.
 * attached: sites that the method acts on otherwise are refused. */
peft_status pf_tokens_attach(pf_adapter *ad, const pf_token_lists *lists, const char *key,
                             const char *suffix, pf_tokens **out, peft_error *err);
/* The base's rows, or normal numbers. */
void pf_tokens_init(const pf_tokens *t, bool from_base, uint64_t seed);
void pf_tokens_ready(const pf_tokens *t); /* weights are there */
bool pf_tokens_touch(const pf_tokens *t, const pf_site *site);
void pf_tokens_merge(const pf_tokens *t, const pf_site *site, int64_t row0, int64_t n, float *rows);
/* Embedding and head share their matrix, and are changed alike (or not at all) by these. */
bool pf_tokens_keep_tie(const pf_adapter *ad, const pf_tokens *t);

/* trainable_token_indices of adapter_config.json: a list, or {module: list}. */
peft_status pf_tokens_from_json(pf_arena *a, const struct json_t *c, const char *where,
                                const char *key, pf_token_lists *out, peft_error *err);
struct json_t *pf_tokens_to_json(const pf_token_lists *lists);

#endif
