/* scale_kernels.h - the kernels of scale and softcap: n elements, one thread. `out` may be the room
 * of an input; `by` is the node's number. */
#ifndef PF_SCALE_KERNELS_H
#define PF_SCALE_KERNELS_H

#include "graph/exec.h"

typedef void (*pf_scale_fn)(const pf_real *const *in, pf_real *out, int64_t n, pf_real by);

#define PF_SCALES(op)                                                                              \
    void pf_##op##_numbers_cpu(const pf_real *const *in, pf_real *out, int64_t n, pf_real by);     \
    void pf_##op##_numbers_avx2(const float *const *in, float *out, int64_t n, float by);          \
    void pf_##op##_numbers_avx512(const float *const *in, float *out, int64_t n, float by);        \
    extern const pf_kernel_row pf_##op##_kernels[];

PF_SCALES(scale)        /* x -> by x */
PF_SCALES(softcap)      /* x -> by tanh(x / by) */
PF_SCALES(softcap_grad) /* dy, y -> dy (1 - (y / by)²) */

#endif
