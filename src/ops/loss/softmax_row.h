/* softmax_row.h - one row of logits at a time: what head_ce and head_ce_grad share. A row's result
 * depends on the row alone. */
#ifndef PF_SOFTMAX_ROW_H
#define PF_SOFTMAX_ROW_H

#include "base/cpu.h"
#include "tensor/real.h"

#include <stdint.h>

typedef struct pf_softmax_row {
    pf_real max, sum; /* of exp(z - max) */
    int64_t top;      /* where the largest logit first stands */
} pf_softmax_row;

typedef struct pf_softmax_isa {
    const char *name;
    /* Largest logit, its place, and the sum of exp(z - max); NaN anywhere gives a NaN sum. */
    pf_softmax_row (*look)(const pf_real *z, int64_t n);
    /* z[i] = exp(z[i] - max) · factor */
    void (*finish)(pf_real *z, int64_t n, pf_real max, pf_real factor);
} pf_softmax_isa;

extern const pf_softmax_isa pf_softmax_plain;
#ifndef PF_DOUBLE
extern const pf_softmax_isa pf_softmax_row_avx2, pf_softmax_row_avx512;
#endif
const pf_softmax_isa *pf_softmax_best(void); /* for the level in force */

#endif
