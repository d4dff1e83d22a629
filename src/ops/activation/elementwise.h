/* elementwise.h - kernels of the ops that work on one element at a time. All have one signature:
 * `in` and `out` hold the node's inputs and outputs in order, `n` is the number of elements. An
 * output may be the room of an input. */
#ifndef PF_ELEMENTWISE_H
#define PF_ELEMENTWISE_H

#include "graph/exec.h"

typedef void (*pf_elements_fn)(const pf_real *const *in, pf_real *const *out, int64_t n);

/* Splits the elements of a node into tasks of fixed size. */
peft_status pf_elementwise_run(pf_exec *x, const pf_node *n, pf_elements_fn fn);

#define PF_ELEMENTS(op)                                                                            \
    void pf_##op##_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n);         \
    void pf_##op##_elements_avx2(const float *const *in, float *const *out, int64_t n);            \
    void pf_##op##_elements_avx512(const float *const *in, float *const *out, int64_t n);          \
    extern const pf_kernel_row pf_##op##_kernels[];

PF_ELEMENTS(add)       /* a, b -> a + b */
PF_ELEMENTS(mul)       /* a, b -> a b */
PF_ELEMENTS(silu)      /* x -> x s(x), s the logistic function */
PF_ELEMENTS(silu_grad) /* dy, x -> dy s (1 + x (1 - s)) */
PF_ELEMENTS(gelu)      /* x -> x Φ(x), Φ(x) = (1 + erf(x / sqrt(2))) / 2 */
PF_ELEMENTS(gelu_grad) /* dy, x -> dy (Φ + x φ), φ(x) = exp(-x²/2) / sqrt(2π) */
PF_ELEMENTS(gelu_tanh) /* x -> x s(2u), u = sqrt(2/π) (x + 0.044715 x³) */
PF_ELEMENTS(gelu_tanh_grad)
PF_ELEMENTS(relu) /* x -> max(x, 0) */
PF_ELEMENTS(relu_grad)
PF_ELEMENTS(swiglu)      /* gate, up -> silu(gate) up */
PF_ELEMENTS(swiglu_grad) /* dy, gate, up -> dgate, dup */

#endif
