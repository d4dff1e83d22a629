/* layer_norm_kernels.h - the row kernels of layer_norm, add_layer_norm and layer_norm_grad: raw
 * pointers and sizes, one thread.
 *
 *   R rows of C columns; the mean of a row is over all its columns. (An op with groups passes
 * R·C/group rows of `group`.) */
#ifndef PF_LAYER_NORM_KERNELS_H
#define PF_LAYER_NORM_KERNELS_H

#include "graph/exec.h"

/* y = (s - mean(s)) / sqrt(var(s) + eps) · w + bias, where s = x, or s = x + b, which is then
 * stored in `sum`. b and sum may be NULL (both); sum may be x's or b's room. */
typedef struct pf_layer_norm_rows {
    const pf_real *x, *b;    /* (R, C) */
    const pf_real *w, *bias; /* (C) */
    pf_real *sum, *y;        /* (R, C) */
    int64_t R, C;
    double eps;
} pf_layer_norm_rows;

/* With r = 1 / sqrt(var(x) + eps), n = (x - mean(x)) r and g = dy · w:
 *   dx = r (g - mean(g) - n mean(g · n)) + acc,   dw += dy · n,  db += dy, rows in order.
 * dx, acc, dw, db may be NULL; dx may be dy's or acc's room. */
typedef struct pf_layer_norm_grad_rows {
    const pf_real *dy, *x; /* (R, C) */
    const pf_real *w;      /* (C) */
    const pf_real *acc;    /* (R, C) */
    pf_real *dx;           /* (R, C) */
    pf_real *dw, *db;      /* (C) */
    int64_t R, C;
    double eps;
} pf_layer_norm_grad_rows;

typedef void (*pf_layer_norm_fn)(const pf_layer_norm_rows *k);
typedef void (*pf_layer_norm_grad_fn)(const pf_layer_norm_grad_rows *k);

void pf_layer_norm_rows_cpu(const pf_layer_norm_rows *k);
void pf_layer_norm_rows_avx2(const pf_layer_norm_rows *k);
void pf_layer_norm_rows_avx512(const pf_layer_norm_rows *k);
void pf_layer_norm_grad_rows_cpu(const pf_layer_norm_grad_rows *k);
void pf_layer_norm_grad_rows_avx2(const pf_layer_norm_grad_rows *k);
void pf_layer_norm_grad_rows_avx512(const pf_layer_norm_grad_rows *k);

/* The arguments and inputs of a layer_norm_grad node. Output: dx, when wanted. */
typedef struct pf_layer_norm_grad_args {
    double eps;
    int64_t group;
    bool want_dx;
} pf_layer_norm_grad_args;

enum {
    PF_LN_DY,
    PF_LN_X,
    PF_LN_W,   /* or NULL */
    PF_LN_ACC, /* or NULL */
    PF_LN_DW,  /* GRAD or NULL */
    PF_LN_DB,  /* GRAD or NULL */
    PF_LN_GRAD_INPUTS
};

/* What the descriptors in layer_norm.c need of layer_norm_cpu.c. */
extern const pf_kernel_row pf_layer_norm_kernel_rows[]; /* of add_layer_norm, too */
extern const pf_kernel_row pf_layer_norm_grad_kernel_rows[];
int64_t pf_layer_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_layer_norm_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif
