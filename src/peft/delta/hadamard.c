/* hadamard.c - the product of two low-rank matrices element by element, as a matrix: what loha.c
 * takes where Kronecker factors (khatri_rao.c) would be wider than it; see delta_maps.h.
 *
 *   Z = scale M1 * M2,  M1 = A1 B1, M2 = A2 B2
 *   dM1 = scale dZ * M2,  dA1 = dM1 B1ᵀ,  dB1 = A1ᵀ dM1, and likewise for the other */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

enum { TASK_ELEMENTS = 16384 };

/* A1, B1, A2, B2 */
static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0] = (pf_mat){.rows = in[0].rows, .cols = in[1].cols};
    return in[0].cols == in[1].rows && in[2].cols == in[3].rows && in[2].rows == in[0].rows &&
           in[3].cols == in[1].cols;
}

static int64_t scratch(const void *args, const pf_mat *in, int n_workers) {
    (void)args, (void)n_workers;
    return 2 * in[0].rows * in[1].cols;
}

static void multiply(const pf_derive_run *r, pf_gemm_form form, const pf_mat *a, const pf_mat *b,
                     pf_mat *c, bool accumulate) {
    const pf_weight w = pf_gemm_dense(b->data, b->rows, b->cols, b->cols);
    const pf_gemm g = {.form = form,
                       .m = c->rows,
                       .n = c->cols,
                       .k = form == PF_GEMM_TN ? a->rows : a->cols,
                       .a = a->data,
                       .lda = a->cols,
                       .b = &w,
                       .c = c->data,
                       .ldc = c->cols,
                       .alpha = 1,
                       .accumulate = accumulate};
    pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
}

typedef struct job {
    const pf_real *x, *y;
    pf_real *z, scale;
    int64_t n;
} job;

static void multiply_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t first = (int64_t)task * TASK_ELEMENTS,
                  end = pf_min_i64(j->n, first + TASK_ELEMENTS);
    (void)worker;
    for (int64_t i = first; i < end; i++) j->z[i] = j->scale * j->x[i] * j->y[i];
}

/* z = scale x * y; z may be x or y */
static void elements(const pf_derive_run *r, const pf_real *x, const pf_real *y, pf_real *z,
                     int64_t n) {
    job j = {x, y, z, (pf_real) * (const double *)r->args, n};
    pf_pool_run(r->pool, (int)pf_ceil_div(n, TASK_ELEMENTS), multiply_task, &j);
}

/* M1 and M2 in scratch */
static void factors(const pf_derive_run *r, pf_mat *m1, pf_mat *m2) {
    const int64_t rows = r->in[0].rows, cols = r->in[1].cols;
    *m1 = (pf_mat){.data = r->scratch, .rows = rows, .cols = cols};
    *m2 = (pf_mat){.data = r->scratch + rows * cols, .rows = rows, .cols = cols};
    multiply(r, PF_GEMM_NN, &r->in[0], &r->in[1], m1, false);
    multiply(r, PF_GEMM_NN, &r->in[2], &r->in[3], m2, false);
}

static void forward(const pf_derive_run *r) {
    pf_mat m1, m2;
    factors(r, &m1, &m2);
    elements(r, m1.data, m2.data, r->out[0].data, m1.rows * m1.cols);
}

static void backward(const pf_derive_run *r) {
    pf_mat m[2];
    if (r->d_out[0].data == NULL) return;
    factors(r, &m[0], &m[1]);
    for (int i = 0; i < 2; i++) {
        pf_mat *own =
            &m[1 - i]; /* dM_i, in the room of the other, which is read for the last time */
        pf_mat da = r->d_in[2 * i], db = r->d_in[2 * i + 1];
        elements(r, r->d_out[0].data, own->data, own->data, own->rows * own->cols);
        if (da.data != NULL) multiply(r, PF_GEMM_NT, own, &r->in[2 * i + 1], &da, true);
        if (db.data != NULL) multiply(r, PF_GEMM_TN, &r->in[2 * i], own, &db, true);
    }
}

const pf_derive pf_hadamard = {.name = "product of two low-rank matrices, element by element",
                               .n_out = 1,
                               .shape = shape,
                               .scratch = scratch,
                               .forward = forward,
                               .backward = backward};
