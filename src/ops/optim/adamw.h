/* adamw.h - AdamW over contiguous blocks (Loshchilov & Hutter 2019, arXiv 1711.05101), with the
 * arithmetic of torch.optim.AdamW:
 *
 *   p *= 1 - lr·wd
 *   m += (g - m)(1 - b1)
 *   v  = b2 v + (1 - b2) g²
 *   p -= lr / (1 - b1^t) · m / (sqrt(v) / sqrt(1 - b2^t) + eps)
 *
 * Not graph ops: they run between graphs, on runs of a block that share learning rate and decay. */
#ifndef PF_ADAMW_H
#define PF_ADAMW_H

#include "base/pool.h"
#include "tensor/real.h"

#include <stdint.h>

typedef struct pf_adamw {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t t; /* step, from 1 */
} pf_adamw;

/* grad_scale multiplies the gradient first (clipping). */
void pf_adamw_update(pf_pool *pool, const pf_adamw *o, double grad_scale, int64_t n, pf_real *p,
                     const pf_real *g, pf_real *m, pf_real *v);
/* Sum of squares in double, in fixed blocks: the same bits on any number of threads. */
double pf_sum_squares(pf_pool *pool, int64_t n, const pf_real *x);
/* Index of the first NaN or infinity, or -1. */
int64_t pf_first_nonfinite(pf_pool *pool, int64_t n, const pf_real *x);

#endif
