/* adamw_kernels.h - one AdamW step over n numbers: raw pointers, one thread. All kernels round
 * every product, sum, root and quotient once, in the same order: they give the same bits, so a run
 * may move to another processor. */
#ifndef PF_ADAMW_KERNELS_H
#define PF_ADAMW_KERNELS_H

#include "tensor/real.h"

#include <stdint.h>

typedef struct pf_adamw_step {
    pf_real *p, *m, *v;
    const pf_real *g;
    int64_t n;
    pf_real grad_scale;
    pf_real decay;        /* 1 - lr wd */
    pf_real one_minus_b1; /* and so on: rounded to pf_real once, as torch does with its Python
                             scalars */
    pf_real b2, one_minus_b2;
    pf_real minus_step; /* -lr / (1 - b1^t) */
    pf_real root_bias2; /* sqrt(1 - b2^t) */
    pf_real eps;
} pf_adamw_step;

void pf_adamw_step_cpu(const pf_adamw_step *k);
void pf_adamw_step_avx2(const pf_adamw_step *k);
void pf_adamw_step_avx512(const pf_adamw_step *k);

#endif
