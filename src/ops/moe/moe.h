/* moe.h - mixtures of experts: a router, and rows on their way to experts and back (Shazeer et al.
 * 2017, arXiv 1701.06538; Jiang et al. 2024, arXiv 2401.04088).
 *
 *   route       p = softmax(logits); the top_k largest p of a row choose its experts (the first of
 *               equal ones), weights are those p, or divided by their sum
 *   dispatch    x -> for each expert the rows that chose it, in token order
 *   combine     y[t] = sum over t's choices j of weight[t, j] o_expert[row of t]
 *   gate_rows   y = sigmoid(z) x, one z per row: the shared expert's gate
 *
 * An expert computes on its rows only: they are a row space of their own (graph/routed.h), there is
 * no padding and no capacity, nothing is dropped. The choice is made once, in the forward pass; the
 * backward pass goes over the same rows. */
#ifndef PF_MOE_H
#define PF_MOE_H

#include "graph/graph.h"

typedef struct pf_route_args {
    int n, top_k;   /* experts, and how many a row has */
    bool normalize; /* weights sum to 1 */
    int first;      /* space of the first expert; pf_route sets it */
} pf_route_args;

/* The ways of one layer's rows. */
typedef struct pf_routes {
    pf_route_args args;
    pf_value *weights; /* (T, top_k) */
    pf_value *choice;  /* (T, top_k) the experts' numbers */
    pf_value *probs;   /* (T, n) */
} pf_routes;

/* logits (T, n) */
peft_status pf_route(pf_graph *g, const char *name, pf_value *logits, const pf_route_args *args,
                     pf_routes *out, peft_error *err);
/* x (T, C) -> rows[e] (rows of e, C), n of them */
peft_status pf_dispatch(pf_graph *g, const char *name, const pf_routes *r, pf_value *x,
                        pf_value **rows, peft_error *err);
/* rows[e] (rows of e, C) -> y (T, C) */
peft_status pf_combine(pf_graph *g, const char *name, const pf_routes *r, pf_value *const *rows,
                       pf_value **y, peft_error *err);
/* x (T, C), z (T, 1) -> (T, C) */
peft_status pf_gate_rows(pf_graph *g, const char *name, pf_value *x, pf_value *z, pf_value **y,
                         peft_error *err);

#endif
