/* head_ce.h - output projection and cross-entropy over label entries, in chunks of entries and
 * tiles of the vocabulary: the full logits never exist.
 *
 * For entry e with hidden row h[e] and target t: nll[e] = logsumexp(z) - z[t], z = h W ᵀ (+ bias)
 * (+ scale (h Aᵀ) Bᵀ). Frozen head: the forward pass also forms the unit gradient u[e] =
 * (softmax(z) - onehot(t)) W while the logits of a tile are at hand; the backward pass scales it
 * by the coefficient of the entry (dL/dnll[e]). Trainable head: u is not kept, the logits of each
 * tile are recomputed in head_ce_grad. With a softcap c the logits are c tanh(z / c) in place of z
 * (Gemma Team 2024, arXiv 2408.00118). Chunks never change a bit: entries are independent.
 * `correct[e]` is 1 when the target has the largest logit (first one wins), for token accuracy. */
#ifndef PF_HEAD_CE_H
#define PF_HEAD_CE_H

#include "graph/graph.h"

typedef struct pf_head_ce_args {
    double scale;   /* of the low-rank part */
    double dropout; /* as lowrank.h; the mask of an entry is that of its token row */
    uint64_t seed;
    uint32_t mask_key;
    double softcap;     /* 0: none */
    pf_compute compute; /* of the products with W; set by pf_head_ce */
} pf_head_ce_args;

/* h (T, C) -> (E, C): row label_row[e]; the gradient adds entries to rows in entry order */
peft_status pf_gather_labels(pf_graph *g, const char *name, pf_value *h, pf_value **y,
                             peft_error *err);
/* h (E, C), w (V, C), bias (1, V) or NULL, a (r, C) and b (V, r) or NULL -> nll (E, 1),
 * correct (E, 1). args NULL: no low-rank part. */
peft_status pf_head_ce(pf_graph *g, const char *name, pf_value *h, pf_value *w, pf_value *bias,
                       pf_value *a, pf_value *b, const pf_head_ce_args *args, pf_value **nll,
                       pf_value **correct, peft_error *err);

#endif
