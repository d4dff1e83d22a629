/* lowrank.h - y = base + scale · drop(x) Aᵀ Bᵀ  (Hu et al. 2021, LoRA, arXiv 2106.09685,
 * section 4.1).
 *
 * A is (r, in), B is (out, r). The product is bracketed, and so is the gradient; no (out, in)
 * matrix ever exists. Two ops:
 *
 *   lowrank_down   S = drop(x) Aᵀ             dA = dSᵀ drop(x), dx = drop(dS A)
 *   lowrank_up     y = base + scale · S Bᵀ    dS = scale dy B, dB = scale dyᵀ S
 *
 * A fusion rule makes one lowrank_down of all those that read the same x (q, k, v; gate, up): one
 * pass over x forward, one over x and dx backward, one mask. S (r numbers a row) is saved.
 *
 * drop(x)[i, c] is x[i, c] / (1 - p) or 0. The mask is a function of (adapter seed, step, sample,
 * position, mask_key, c) alone (dropout.h): it does not depend on how the step
 * was cut, and sites that share their input share mask_key and so the mask. Off unless
 * exec->training.
 *
 * Several adapters: `adapter` (per row, -1 is the base alone) chooses which rows take part; NULL:
 * all. */
#ifndef PF_LOWRANK_H
#define PF_LOWRANK_H

#include "graph/graph.h"

typedef struct pf_lowrank_args {
    double scale;                  /* alpha / r, or alpha / sqrt(r) */
    double dropout;                /* p in [0, 1) */
    uint64_t seed;                 /* the adapter's */
    uint32_t mask_key;             /* of the group of sites that share x */
    const int32_t *const *adapter; /* address of the row -> adapter table, read at run time; NULL:
                                      every row is ours */
    int32_t adapter_id;
} pf_lowrank_args;

/* base (R, out), x (R, in), a (r, in), b (out, r) -> y (R, out); base's room is taken over when it
 * can be */
peft_status pf_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *x, pf_value *a,
                       pf_value *b, const pf_lowrank_args *args, pf_value **y, peft_error *err);

#endif
