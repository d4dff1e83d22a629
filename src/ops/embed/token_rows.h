/* token_rows.h - single rows of a table that stand in for those of the base.
 *
 *   token_rows    y[i] = D[slot[id_i]] where the id has a slot, else base[i]     (embedding)
 *   token_shift   A[k] = D[k] - W[ids[k]]                                        (head)
 *
 * A head whose rows ids[k] are D's gives the logits h Wᵀ + h Aᵀ Pᵀ, where P (V, n) has a one at
 * (ids[k], k): a low-rank update, for which token_shift makes the factor. Its gradient is D's. */
#ifndef PF_TOKEN_ROWS_H
#define PF_TOKEN_ROWS_H

#include "graph/graph.h"

typedef struct pf_token_rows_args {
    const int32_t *slot; /* (V): row of D, or -1; borrowed */
    int64_t vocab;
} pf_token_rows_args;

typedef struct pf_token_shift_args {
    const int32_t *ids; /* (n); borrowed */
} pf_token_shift_args;

/* base (T, C), d (n, C) -> y (T, C) */
peft_status pf_token_rows(pf_graph *g, const char *name, pf_value *base, pf_value *d,
                          const pf_token_rows_args *args, pf_value **y, peft_error *err);
/* d (n, C) PARAM, w (V, C) -> a (n, C) */
peft_status pf_token_shift(pf_graph *g, const char *name, pf_value *d, pf_value *w,
                           const int32_t *ids, pf_value **a, peft_error *err);
/* The parameter whose gradient is that of a: a itself, or what token_shift made it of; else NULL.
 */
pf_value *pf_token_shift_param(const pf_value *a);

#endif
