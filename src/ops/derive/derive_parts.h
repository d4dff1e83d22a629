/* derive_parts.h - what derive.c and rowmap.c share: matrices from values, room, launchers. */
#ifndef PF_DERIVE_PARTS_H
#define PF_DERIVE_PARTS_H

#include "graph/autodiff.h"
#include "graph/exec.h"
#include "ops/derive/derive.h"

pf_mat pf_mat_sizes(const pf_value *v); /* NULL: nothing */
pf_mat pf_mat_of(const pf_exec *x, const pf_value *v);

/* Gradients of matrices. A PARAM's is added to its sink; that of a matrix which another node made
 * is an output of the gradient's node, zeroed before the function adds to it: bit i of `values`. */
void pf_derive_place(pf_autodiff *ad, const pf_value *v, int i, pf_value **sink, unsigned *values);
peft_status pf_derive_grad_outs(pf_graph *g, pf_node *n, pf_value *const *in, int n_in,
                                unsigned values, peft_error *err);
peft_status pf_derive_give(pf_autodiff *ad, pf_value *const *in, int n_in, unsigned values,
                           pf_value *const *out, peft_error *err);
void pf_derive_grads(const pf_exec *x, pf_value *const *sinks, unsigned values,
                     pf_value *const *out, pf_mat *d);

/* Products come first in the workspace. */
static inline int64_t pf_derive_gemm_room(const pf_exec *x) {
    return pf_gemm_workspace(x->backend->n_workers);
}

#define PF_DERIVE_LAUNCHER(fn, isa_name)                                                           \
    static peft_status fn##_##isa_name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        (void)err;                                                                                 \
        return fn(x, n, &pf_gemm_##isa_name);                                                      \
    }
#ifdef PF_DOUBLE
#define PF_DERIVE_LAUNCHERS(fn) PF_DERIVE_LAUNCHER(fn, plain)
#else
#define PF_DERIVE_LAUNCHERS(fn)                                                                    \
    PF_DERIVE_LAUNCHER(fn, plain) PF_DERIVE_LAUNCHER(fn, avx2) PF_DERIVE_LAUNCHER(fn, avx512)
#endif

#endif
