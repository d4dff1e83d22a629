/* row_mask_kernels.h - dropout of one row, per instruction set. */
#ifndef PF_ROW_MASK_KERNELS_H
#define PF_ROW_MASK_KERNELS_H

#include "graph/exec.h"
#include "ops/matmul/dropout.h"

/* y (n) = x scale or 0, by the mask of the row (sample, pos); y may be x */
typedef void pf_drop_row_fn(const pf_dropout *d, uint32_t sample, uint32_t pos, const pf_real *x,
                            pf_real *y, int64_t n);

#ifndef PF_DOUBLE
pf_drop_row_fn pf_drop_row_avx2, pf_drop_row_avx512;
#endif

#endif
