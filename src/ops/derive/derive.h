/* derive.h - matrices that are made of parameters, and maps of rows that parameters describe: what
 * methods need beyond products (a rotation from a skew-symmetric matrix, Kronecker factors, Fourier
 * coefficients).
 *
 *   derive   Z_1 [, Z_2] = f(P_1, ..)      fixed sizes, once per pass: linear and lowrank ops take
 *            a Z where they take a parameter, and its gradient flows on to the P
 *   rowmap   y = f(x; P_1, ..)             linear in x, row by row; R rows
 *
 * Each function is a table (pf_derive, pf_rowmap) that stands with the method that needs it: sizes,
 * the forward pass, the backward pass. Both engines run the same code (pf_real), so that gradients
 * are checked against differences in double. Functions allocate nothing: they say how much scratch
 * they want. Results must not depend on the number of threads, those of a row on that row alone. */
#ifndef PF_DERIVE_H
#define PF_DERIVE_H

#include "base/pool.h"
#include "graph/graph.h"
#include "ops/matmul/gemm.h"

enum { PF_DERIVE_MAX = 4 };

/* A matrix as functions see it. */
typedef struct pf_mat {
    pf_real *data; /* NULL: only sizes are known, or none is wanted */
    int64_t rows, cols;
    const pf_weight *weight; /* a frozen weight: data is NULL, its tiles can be read */
} pf_mat;

typedef struct pf_derive_run {
    const void *args; /* of the function */
    pf_pool *pool;
    const pf_gemm_isa *isa;
    void *gemm_room; /* pf_gemm_workspace bytes */
    pf_real *scratch;
    pf_mat in[PF_DERIVE_MAX];
    pf_mat out[2];
    /* backward: gradients of the outputs (data NULL: zero), and where those of the inputs are added
     * (data NULL: not wanted). out[] holds the forward results if the table says so. */
    pf_mat d_out[2];
    pf_mat d_in[PF_DERIVE_MAX];
} pf_derive_run;

typedef struct pf_derive {
    const char *name;
    int n_out;
    bool reads_out; /* the backward pass reads the results */
    /* Sizes of the outputs from those of the inputs; false: they do not fit. */
    bool (*shape)(const void *args, const pf_mat *in, pf_mat *out);
    int64_t (*scratch)(const void *args, const pf_mat *in, int n_workers); /* reals; NULL: none */
    void (*forward)(const pf_derive_run *r);
    void (*backward)(const pf_derive_run *r);
} pf_derive;

/* args live as long as the graph. `out` receives fn->n_out values. */
peft_status pf_derive_emit(pf_graph *g, const char *name, const pf_derive *fn, const void *args,
                           pf_value *const *in, int n_in, pf_value **out, peft_error *err);

typedef struct pf_rowmap_run {
    const void *args;
    pf_pool *pool;
    const pf_gemm_isa *isa;
    void *gemm_room;
    pf_real *scratch;
    int64_t R;
    int64_t in_cols, out_cols;
    const pf_real *x; /* (R, in_cols); in the backward pass only if some d_p is wanted */
    pf_real *y;       /* (R, out_cols) */
    pf_mat p[PF_DERIVE_MAX];
    const pf_real *dy;
    pf_real *dx; /* written; NULL: not wanted */
    pf_mat d_p[PF_DERIVE_MAX];
} pf_rowmap_run;

typedef struct pf_rowmap {
    const char *name;
    /* Columns of y; 0: the sizes do not fit. */
    int64_t (*columns)(const void *args, int64_t in_cols, const pf_mat *p);
    /* reals of scratch for R rows; NULL: none */
    int64_t (*scratch)(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers);
    double (*flops)(const void *args, int64_t in_cols, const pf_mat *p); /* a row, forward */
    void (*forward)(const pf_rowmap_run *r);
    void (*backward)(const pf_rowmap_run *r);
} pf_rowmap;

peft_status pf_rowmap_emit(pf_graph *g, const char *name, const pf_rowmap *fn, const void *args,
                           pf_value *x, pf_value *const *p, int n_p, pf_value **y, peft_error *err);

#endif
