/* split.h - the columns of a matrix dealt out to several, and put together again.
 *
 * A row is a number of periods, each of which holds parts of given widths: part i of every period
 * goes to result i, in order. One period: [q | k | v] of GPT-2. As many periods as key heads: the
 * fused projections of GPT-NeoX, BLOOM and Falcon, where q, k and v of a head stand together. */
#ifndef PF_SPLIT_H
#define PF_SPLIT_H

#include "graph/graph.h"

enum { PF_SPLIT_MAX = 8 };
extern const pf_op pf_op_split, pf_op_join;

typedef struct pf_split_args {
    int64_t periods; /* in a row */
    int n;           /* parts of a period */
    int64_t width[PF_SPLIT_MAX];
} pf_split_args;

/* x (R, periods · Σ width) -> ys[i] (R, periods · width[i]) */
peft_status pf_split(pf_graph *g, const char *name, pf_value *x, const pf_split_args *args,
                     pf_value **ys, peft_error *err);
/* The inverse; NULL stands for zeros, but at least one has to be there. */
peft_status pf_join(pf_graph *g, const char *name, pf_value *const *xs, const pf_split_args *args,
                    pf_value **y, peft_error *err);

#endif
