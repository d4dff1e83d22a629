/* row_mask.h - ops that leave out numbers or whole rows of token rows. Each is its own gradient.
 *
 *   dropout     y = drop(x): x / (1 - p) or 0, number by number, or sample by sample (stochastic
 *               depth, Huang et al. 2016, arXiv 1603.09382). The mask is a function of (seed, step,
 *               sample, position, mask_key, column) as in ops/matmul/dropout.h; of (seed, step,
 *               sample, mask_key) by samples. Off unless exec->training. Rows of label entries have
 *               the position of the row that they stand on.
 *   first_rows  y = x where the row's position is below n, else 0
 */
#ifndef PF_ROW_MASK_H
#define PF_ROW_MASK_H

#include "graph/graph.h"

typedef struct pf_drop_args {
    double p; /* in [0, 1) */
    uint64_t seed;
    uint32_t mask_key;
    bool by_sample;
} pf_drop_args;

/* x (T, C) -> (T, C), or (E, C); without p it is x itself */
peft_status pf_drop(pf_graph *g, const char *name, pf_value *x, const pf_drop_args *args,
                    pf_value **y, peft_error *err);
/* x (T, C) -> (T, C) */
peft_status pf_first_rows(pf_graph *g, const char *name, pf_value *x, int64_t n, pf_value **y,
                          peft_error *err);

#endif
