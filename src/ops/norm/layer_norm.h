/* layer_norm.h - y = (x - mean(x)) / sqrt(var(x) + eps) · w + b  (Ba, Kiros & Hinton 2016, arXiv
 * 1607.06450, eq. 4; var is the mean of the squared distances, not the sample's).
 *
 * Mean and variance are over groups of `group` neighbouring columns: the whole row for a block
 * norm, the head width for Phi's norm of q and k. w and b have `group` numbers; either may be
 * missing. */
#ifndef PF_LAYER_NORM_H
#define PF_LAYER_NORM_H

#include "graph/graph.h"

typedef struct pf_layer_norm_args {
    double eps;
    int64_t group; /* columns per mean; 0: all */
} pf_layer_norm_args;

/* x (R, C), w, b (1, group) or NULL -> (R, C) */
peft_status pf_layer_norm(pf_graph *g, const char *name, pf_value *x, pf_value *w, pf_value *b,
                          double eps, int64_t group, pf_value **y, peft_error *err);

#endif
