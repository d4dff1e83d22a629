/* scale_cols.h - y[i,c] = x[i,c] v[c]: one factor per column, learned or not. */
#ifndef PF_SCALE_COLS_H
#define PF_SCALE_COLS_H

#include "graph/exec.h"

/* x (R, C), v (1, C) or (C, 1): a PARAM, a frozen WEIGHT, or an ACT of fixed rows -> y (R, C) */
peft_status pf_scale_cols(pf_graph *g, const char *name, pf_value *x, pf_value *v, pf_value **y,
                          peft_error *err);

/* --- kernels: rows of `stride` numbers, n of each --- */
enum { PF_SCALE_STRIP = 64 }; /* most columns of a call of scale_grad */

typedef struct pf_scale_cols_call {
    int64_t rows, n, stride;
    const pf_real *x, *v; /* x: dy in the backward pass */
    pf_real *y;           /* dx in the backward pass, which may be dy's room; NULL: not wanted */
    const pf_real *from;  /* backward: the forward pass's x; NULL: dv is not wanted */
    pf_real *dv;          /* backward: added to */
} pf_scale_cols_call;

#define PF_SCALE_COLS(isa)                                                                         \
    void pf_scale_cols_##isa(const pf_scale_cols_call *c);                                         \
    void pf_scale_cols_grad_##isa(const pf_scale_cols_call *c);
PF_SCALE_COLS(cpu)
PF_SCALE_COLS(avx2)
PF_SCALE_COLS(avx512)

#endif
