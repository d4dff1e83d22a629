/* rope_kernels.h - turns the heads of some rows by the angles of a table; raw pointers, one thread.
 */
#ifndef PF_ROPE_KERNELS_H
#define PF_ROPE_KERNELS_H

#include "graph/exec.h"

/* y may be x. The first D columns of each of the H heads of W columns turn, the rest are copied. */
typedef struct pf_rope_rows {
    const pf_real *x;     /* (R, H·W) */
    const pf_real *table; /* (R, D): D/2 cosines, D/2 sines */
    pf_real *y;           /* (R, H·W) */
    int64_t R, H, W, D;
    bool inverse;
} pf_rope_rows;

void pf_rope_rows_cpu(const pf_rope_rows *k);
void pf_rope_rows_avx2(const pf_rope_rows *k);
void pf_rope_rows_avx512(const pf_rope_rows *k);

extern const pf_kernel_row pf_rope_kernel_rows[], pf_rope_table_kernel_rows[];

#endif
