/* dora.h - the magnitude of DoRA (Liu et al. 2024, arXiv 2402.09353, equation 5):
 *
 *   y = g ⊙ v,   g = m / ‖W + s BA‖,   v = x (W + s BA)ᵀ
 *
 * with one norm per output: of a row of W for a linear layer, of a column of the table (V, C) for
 * an embedding. Two ops:
 *
 *   dora_norm    1 / ‖W + s (BA − B0 A0)‖ per output, 0 where the norm is 0
 *   dora_scale   y = v ⊙ m ⊙ inverse      dv = dy ⊙ m ⊙ inverse, dm += inverse ⊙ sum of dy ⊙ v
 *
 * The norm is a constant to the backward pass (section 4.3 of the paper). The matrix W + s BA never
 * exists: ‖·‖² = ‖W‖² + 2s b·(W Aᵀ) + s² b (A Aᵀ) bᵀ, where ‖W‖² is computed once by the caller
 * and W Aᵀ is a product of r rows. The result is kept as long as the factors are the same numbers
 * (pf_dora_kept), so that generation does not pay for it token by token; it has the same bits kept
 * or made anew. */
#ifndef PF_DORA_H
#define PF_DORA_H

#include "graph/graph.h"

/* The last result, with the factors it was made of. One per site, used by one graph at a time. */
typedef struct pf_dora_kept {
    pf_real *factors; /* A then B, stacked; NULL: nothing is kept */
    pf_real *inverse; /* (outputs) */
    bool valid;
} pf_dora_kept;

typedef struct pf_dora_norm_args {
    double scale;       /* s */
    bool by_column;     /* the outputs are the columns of W */
    pf_dora_kept *kept; /* NULL: computed each time */
} pf_dora_norm_args;

/* Numbers that pf_dora_kept.factors holds. */
static inline int64_t pf_dora_factor_count(int64_t rank, int64_t in, int64_t out) {
    return rank * (in + out);
}

/* w (out, in), squares (1, out) WEIGHT: sums of the squares of w per output; a (r, in), b (out, r),
 * a0 (r0, in), b0 (out, r0) PARAM or both NULL -> inverse (1, out). by_column: w is (in, out). */
peft_status pf_dora_norm(pf_graph *g, const char *name, pf_value *w, pf_value *squares, pf_value *a,
                         pf_value *b, pf_value *a0, pf_value *b0, const pf_dora_norm_args *args,
                         pf_value **inverse, peft_error *err);
/* v (R, out), m (1, out) PARAM, inverse (1, out) -> y (R, out) */
peft_status pf_dora_scale(pf_graph *g, const char *name, pf_value *v, pf_value *m,
                          pf_value *inverse, pf_value **y, peft_error *err);

#endif
