/* made.h - matrices that are made of trained ones, for products with rows of a batch (linear takes
 * them like any weight).
 *
 *   batch_product  z_i = x_i y_i for n pairs of small matrices, stacked one above the other
 *   kron_sum       M = (sum over i of A_i ⊗ W_i)ᵀ: parametrized hypercomplex multiplication
 *                  (Zhang et al. 2021, arXiv 2102.08597, eq. 3); (x M ᵀ)ᵀ is a PHM layer
 *   householder    W = (B H(X))ᵀ, the first rows of an orthogonal matrix, H(X) a product of
 *                  reflections, B fixed: torch.nn.utils.parametrizations.orthogonal
 *   turn           y = xᵀ
 *
 * They run once per pass and are small beside the products; sums are in double. */
#ifndef PF_MADE_H
#define PF_MADE_H

#include "graph/graph.h"

typedef struct pf_batch_product_args {
    int64_t n;           /* pairs */
    bool turn_x, turn_y; /* the matrices of x, of y are read transposed */
} pf_batch_product_args;

/* x (n a, b), y (n b, c) -> z (n a, c) */
peft_status pf_batch_product(pf_graph *g, const char *name, pf_value *x, pf_value *y,
                             const pf_batch_product_args *args, pf_value **z, peft_error *err);
/* a (n d, d), w (n p, q) -> m (d q, d p); n of the A_i are given by their width d: a has n d rows
 */
peft_status pf_kron_sum(pf_graph *g, const char *name, pf_value *a, pf_value *w, pf_value **m,
                        peft_error *err);
/* x (r, n), base (n, n), r < n -> w (r, n). Of x, the numbers right of the diagonal matter; the
 * diagonal, cut to whole numbers, holds signs that are not trained. */
peft_status pf_householder(pf_graph *g, const char *name, pf_value *x, pf_value *base, pf_value **w,
                           peft_error *err);
/* x (a, b) of fixed rows -> (b, a) */
peft_status pf_turn(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err);

#endif
