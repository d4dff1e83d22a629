/* delta_loops.h - the innermost loops of this folder, compiled once for every instruction set
 * (delta_loops_plain.c, delta_loops_avx2.c, delta_loops_avx512.c from fft_loops.h and
 * rotate_loops.h). All give the same bits: the order of operations is written out, and nothing is
 * contracted. */
#ifndef PF_DELTA_LOOPS_H
#define PF_DELTA_LOOPS_H

#include "ops/matmul/gemm.h"
#include "peft/delta/fft.h"

enum { PF_ROTATE_LANES = 16 };

typedef struct pf_delta_loops {
    /* pf_fft.h; x is kept, y another buffer, part has room for pf_fft_part numbers */
    void (*fft)(const pf_fft *f, const pf_real *x, pf_real *y, pf_real *part);
    /* Rows (n_rows, cols) side by side, real; lanes without a row are zero. */
    void (*load)(const pf_real *x, int64_t n_rows, int64_t cols, pf_real *to);
    /* to[at[k]] += p[k] from[of[k]] */
    void (*scatter)(const pf_real *p, int64_t n, const pf_real *from, const int32_t *of,
                    pf_real *to, const int32_t *at);
    /* sums[k]: the real part of x[v[k]] g[u[k]], summed over the lanes */
    void (*match)(int64_t n, const pf_real *x, const int32_t *v, const pf_real *g, const int32_t *u,
                  pf_real *sums);
    /* z = x y of (s, s); an element is one chain of additions, in ascending order */
    void (*product)(int64_t s, const double *x, const double *y, double *z);
    /* Rows side by side: number c of row l at [c LANES + l]. z[c] = sum over j < s of x[from[j]]
     * m[j, c]; turned: m[c, j]. from NULL: as they stand */
    void (*rotate)(int64_t s, const pf_real *x, const int32_t *from, const pf_real *m, bool turned,
                   pf_real *z);
    /* d (s, s) += sum over n groups of rows, `step` numbers apart, and over the lanes, of
     * x[from[j]] dy[from[c]] */
    void (*outer)(int64_t s, int64_t n, int64_t step, const pf_real *x, const pf_real *dy,
                  const int32_t *from, pf_real *d);
} pf_delta_loops;

extern const pf_delta_loops pf_delta_loops_plain;
#ifndef PF_DOUBLE
extern const pf_delta_loops pf_delta_loops_avx2, pf_delta_loops_avx512;
#endif

/* Those of the instruction set of the products. */
static inline const pf_delta_loops *pf_delta_loops_of(const pf_gemm_isa *isa) {
#ifndef PF_DOUBLE
    if (isa == &pf_gemm_avx512) return &pf_delta_loops_avx512;
    if (isa == &pf_gemm_avx2) return &pf_delta_loops_avx2;
#endif
    (void)isa;
    return &pf_delta_loops_plain;
}

#endif
