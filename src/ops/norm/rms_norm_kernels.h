/* rms_norm_kernels.h - the row kernels of rms_norm, add_rms_norm and rms_norm_grad: raw pointers
 * and sizes, one thread.
 *
 *   R rows of C columns; the mean of a row is over all its columns. (An op with groups passes
 * R·C/group rows of `group`.) */
#ifndef PF_RMS_NORM_KERNELS_H
#define PF_RMS_NORM_KERNELS_H

#include "graph/exec.h"

/* y = s / sqrt(mean(s²) + eps) · w, where s = x, or s = x + b, which is then stored in `sum`. b and
 * sum may be NULL (both); sum may be x's or b's room. */
typedef struct pf_rms_norm_rows {
    const pf_real *x, *b; /* (R, C) */
    const pf_real *w;     /* (C) */
    pf_real *sum, *y;     /* (R, C) */
    int64_t R, C;
    double eps;
} pf_rms_norm_rows;

/* With r = 1 / sqrt(mean(x²) + eps) and m = mean(dy · w · x):
 *   dx = r (dy · w - x r² m) + acc,   dw += dy · x r, rows in order.
 * dx, acc, dw may be NULL; dx may be dy's or acc's room. */
typedef struct pf_rms_norm_grad_rows {
    const pf_real *dy, *x; /* (R, C) */
    const pf_real *w;      /* (C) */
    const pf_real *acc;    /* (R, C) */
    pf_real *dx;           /* (R, C) */
    pf_real *dw;           /* (C) */
    int64_t R, C;
    double eps;
} pf_rms_norm_grad_rows;

typedef void (*pf_rms_norm_fn)(const pf_rms_norm_rows *k);
typedef void (*pf_rms_norm_grad_fn)(const pf_rms_norm_grad_rows *k);

void pf_rms_norm_rows_cpu(const pf_rms_norm_rows *k);
void pf_rms_norm_rows_avx2(const pf_rms_norm_rows *k);
void pf_rms_norm_rows_avx512(const pf_rms_norm_rows *k);
void pf_rms_norm_grad_rows_cpu(const pf_rms_norm_grad_rows *k);
void pf_rms_norm_grad_rows_avx2(const pf_rms_norm_grad_rows *k);
void pf_rms_norm_grad_rows_avx512(const pf_rms_norm_grad_rows *k);

/* The arguments of a rms_norm_grad node. Inputs: dy, x, w, acc or NULL, dw (GRAD) or NULL. Output:
 * dx, when wanted. */
typedef struct pf_rms_norm_grad_args {
    double eps;
    int64_t group;
    double offset;
    bool want_dx;
} pf_rms_norm_grad_args;

/* What the descriptors in rms_norm.c need of rms_norm_cpu.c. */
extern const pf_kernel_row pf_rms_norm_kernel_rows[]; /* of add_rms_norm, too */
extern const pf_kernel_row pf_rms_norm_grad_kernel_rows[];
int64_t pf_rms_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_rms_norm_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif
