/* kron.c - rows times a Kronecker product, never formed; see delta_maps.h.
 *
 * A row of x is a matrix X (m, n), its result Y = scale W1 X W2ᵀ (l, k). All rows at once:
 *   Z (R m, k) = X W2ᵀ, turned row by row to (R k, m), times W1ᵀ gives (R k, l), turned to (R l, k)
 * three dense products instead of one of m n l k. Turning is a copy, rows dealt out to tasks. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

enum { ROWS_A_TASK = 8 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    return p[0].cols * p[1].cols == in_cols ? p[0].rows * p[1].rows : 0;
}

/* Z and its turned form, and a turned Y. */
static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)args, (void)n_workers, (void)in_cols;
    return R * (2 * p[0].cols * p[1].rows + p[0].rows * p[1].rows);
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    return 2 * (double)p[1].rows * ((double)in_cols + (double)p[0].rows * (double)p[0].cols);
}

typedef struct turn {
    int64_t R, rows, cols; /* of each row's matrix */
    const pf_real *x;
    pf_real *y;
} turn;

static void turn_task(void *ctx, int task, int worker) {
    const turn *t = ctx;
    (void)worker;
    const int64_t size = t->rows * t->cols, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(t->R, first + ROWS_A_TASK);
    for (int64_t i = first; i < end; i++) {
        const pf_real *x = t->x + i * size;
        pf_real *y = t->y + i * size;
        for (int64_t c = 0; c < t->cols; c++) {
            for (int64_t k = 0; k < t->rows; k++) y[c * t->rows + k] = x[k * t->cols + c];
        }
    }
}

static void turn_rows(const pf_rowmap_run *r, int64_t rows, int64_t cols, const pf_real *x,
                      pf_real *y) {
    turn t = {r->R, rows, cols, x, y};
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), turn_task, &t);
}

static void multiply(const pf_rowmap_run *r, pf_gemm_form form, int64_t m, int64_t n, int64_t k,
                     const pf_real *a, const pf_real *b, int64_t b_rows, int64_t b_cols, pf_real *c,
                     double alpha, bool accumulate) {
    const pf_weight w = pf_gemm_dense(b, b_rows, b_cols, b_cols);
    const pf_gemm g = {.form = form,
                       .m = m,
                       .n = n,
                       .k = k,
                       .a = a,
                       .lda = form == PF_GEMM_TN ? m : k,
                       .b = &w,
                       .c = c,
                       .ldc = n,
                       .alpha = (pf_real)alpha,
                       .accumulate = accumulate};
    pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
}

/* Z turned: (R k, m) */
static pf_real *inner(const pf_rowmap_run *r) {
    const int64_t m = r->p[0].cols, k = r->p[1].rows, n = r->p[1].cols;
    pf_real *z = r->scratch, *turned = z + r->R * m * k;
    multiply(r, PF_GEMM_NT, r->R * m, k, n, r->x, r->p[1].data, k, n, z, 1, false);
    turn_rows(r, m, k, z, turned);
    return turned;
}

static void forward(const pf_rowmap_run *r) {
    const double scale = *(const double *)r->args;
    const int64_t l = r->p[0].rows, m = r->p[0].cols, k = r->p[1].rows;
    const pf_real *z = inner(r);
    pf_real *y = r->scratch + 2 * r->R * m * k;
    multiply(r, PF_GEMM_NT, r->R * k, l, m, z, r->p[0].data, l, m, y, scale, false);
    turn_rows(r, k, l, y, r->y);
}

static void backward(const pf_rowmap_run *r) {
    const double scale = *(const double *)r->args;
    const int64_t l = r->p[0].rows, m = r->p[0].cols, k = r->p[1].rows, n = r->p[1].cols;
    pf_real *dy = r->scratch + 2 * r->R * m * k, *dz = r->scratch, *turned = dz + r->R * m * k;
    turn_rows(r, l, k, r->dy, dy); /* (R k, l) */
    if (r->d_p[0].data != NULL) {
        const pf_real *z = inner(r);
        multiply(r, PF_GEMM_TN, l, m, r->R * k, dy, z, r->R * k, m, r->d_p[0].data, scale, true);
    }
    if (r->dx == NULL && r->d_p[1].data == NULL) return;
    multiply(r, PF_GEMM_NN, r->R * k, m, l, dy, r->p[0].data, l, m, turned, scale, false);
    turn_rows(r, k, m, turned, dz); /* (R m, k) */
    if (r->d_p[1].data != NULL)
        multiply(r, PF_GEMM_TN, k, n, r->R * m, dz, r->x, r->R * m, n, r->d_p[1].data, 1, true);
    if (r->dx != NULL)
        multiply(r, PF_GEMM_NN, r->R * m, n, k, dz, r->p[1].data, k, n, r->dx, 1, false);
}

const pf_rowmap pf_kron = {.name = "Kronecker product",
                           .columns = columns,
                           .scratch = scratch,
                           .flops = flops,
                           .forward = forward,
                           .backward = backward};
