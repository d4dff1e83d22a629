/* step_mask.h - ops that leave out parts of a matrix for one optimizer step, in training only.
 *
 *   drop_columns  y[i, c] = m[c] x[i, c]: whole columns of rows (outputs of an update: peft's
 *                 rank_dropout), or all of them (module_dropout). Is its own gradient.
 *   drop_blocks   Z (sets blocks size, size) is a stack of square blocks; int(p blocks) of one
 *                 set, both drawn, become the identity (multiplicative dropout of OFT and BOFT).
 *
 * The mask is a function of (seed, step, name of the site, column or block), so neither of how the
 * step is cut into micro-batches nor of the pass (a recomputed one draws the same). With
 *   key = words 0, 1 of philox(make_key(seed, PF_RNG_STEP_MASK, step), low, high, kind, 0),
 * low and high the halves of pf_hash64(name), kind 0 columns, 1 the module, 2 blocks:
 *   column c stays     if uniform_at(key, c) >= p_column; kept ones are scaled by 1 / (their share)
 *                      if asked for
 *   the module stays   if uniform_at(key, 0) >= p_module
 *   block b of the set below_at(key, blocks, sets) becomes the identity if
 *                      permutation(key, blocks)[b] < int(p blocks)
 * (base/rng.h). */
#ifndef PF_STEP_MASK_H
#define PF_STEP_MASK_H

#include "graph/graph.h"

typedef struct pf_drop_columns_args {
    double p_column, p_module; /* in [0, 1] */
    bool scaled;               /* what is kept is divided by its share */
    uint64_t seed, site;       /* pf_hash64 (seed 0) of the site's name */
} pf_drop_columns_args;

typedef struct pf_drop_blocks_args {
    double p; /* in [0, 1] */
    int64_t sets, blocks;
    uint64_t seed, site;
} pf_drop_blocks_args;

/* x (R, C) -> (R, C); with nothing to drop it is x itself */
peft_status pf_drop_columns(pf_graph *g, const char *name, pf_value *x,
                            const pf_drop_columns_args *args, pf_value **y, peft_error *err);
peft_status pf_drop_blocks(pf_graph *g, const char *name, pf_value *z,
                           const pf_drop_blocks_args *args, pf_value **y, peft_error *err);

#endif
