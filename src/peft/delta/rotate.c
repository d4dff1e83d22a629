/* rotate.c - rows times a block-diagonal matrix; see delta_maps.h. Blocks of 16 and wider go
 * through the dense products, one block after the other; narrower ones through plain loops, rows
 * (or for gradients of blocks, blocks) dealt out to tasks. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

#include <string.h>

enum { WIDE = 16, ROWS_A_TASK = 16 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_rotate_args *a = args;
    const bool fits = p[0].cols == a->size && in_cols % a->size == 0 &&
                      (p[0].rows == a->size || p[0].rows >= a->first * a->size + in_cols);
    return fits ? in_cols : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)p, (void)n_workers;
    return ((const pf_rotate_args *)args)->from == NULL ? 0 : 2 * R * in_cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)p;
    return 2.0 * (double)in_cols * (double)((const pf_rotate_args *)args)->size;
}

/* ---- columns in another order ---------------------------------------------------------------- */

typedef struct shuffle {
    int64_t R, cols;
    const int32_t *from;
    const pf_real *x;
    pf_real *y;
} shuffle;

static void shuffle_task(void *ctx, int task, int worker) {
    const shuffle *s = ctx;
    (void)worker;
    const int64_t first = (int64_t)task * ROWS_A_TASK, end = pf_min_i64(s->R, first + ROWS_A_TASK);
    for (int64_t i = first; i < end; i++) {
        for (int64_t c = 0; c < s->cols; c++)
            s->y[i * s->cols + c] = s->x[i * s->cols + s->from[c]];
    }
}

/* y[c] = x[from[c]]; x itself without an order */
static const pf_real *shuffled(const pf_rowmap_run *r, const int32_t *from, const pf_real *x,
                               pf_real *y) {
    if (from == NULL || x == NULL) return x;
    shuffle s = {r->R, r->in_cols, from, x, y};
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), shuffle_task, &s);
    return y;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

typedef struct blocks {
    const pf_rowmap_run *r;
    int64_t size, first, n, stride; /* blocks of a row; numbers from one block's matrix to the next:
                                0 when all share one */
    const pf_real *x, *dy;          /* dy: gradient of z, in the same order of columns as x */
    pf_real *y;
    bool turned;
} blocks;

static void narrow_task(void *ctx, int task, int worker) {
    const blocks *b = ctx;
    (void)worker;
    const int64_t s = b->size, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(b->r->R, first + ROWS_A_TASK);
    for (int64_t i = first; i < end; i++) {
        const pf_real *x = b->x + i * b->r->in_cols;
        pf_real *y = b->y + i * b->r->in_cols;
        for (int64_t k = 0; k < b->n; k++, x += s, y += s) {
            const pf_real *m = b->r->p[0].data + (b->first + k) * b->stride;
            for (int64_t c = 0; c < s; c++) y[c] = 0;
            for (int64_t j = 0; j < s; j++) {
                for (int64_t c = 0; c < s; c++)
                    y[c] += x[j] * (b->turned ? m[c * s + j] : m[j * s + c]);
            }
        }
    }
}

/* y = x blockdiag(R), or its transpose */
static void multiply(const pf_rowmap_run *r, const pf_real *x, pf_real *y, bool turned) {
    const pf_rotate_args *a = r->args;
    const int64_t s = a->size, n = r->in_cols / s, stride = r->p[0].rows == s ? 0 : s * s;
    if (s < WIDE) {
        blocks b = {.r = r,
                    .size = s,
                    .first = a->first,
                    .n = n,
                    .stride = stride,
                    .x = x,
                    .y = y,
                    .turned = turned};
        pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), narrow_task, &b);
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        const pf_weight w = pf_gemm_dense(r->p[0].data + (a->first + k) * stride, s, s, s);
        const pf_gemm g = {.form = turned ? PF_GEMM_NT : PF_GEMM_NN,
                           .m = r->R,
                           .n = s,
                           .k = s,
                           .a = x + k * s,
                           .lda = r->in_cols,
                           .b = &w,
                           .c = y + k * s,
                           .ldc = r->in_cols,
                           .alpha = 1};
        pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
    }
}

static void block_gradient_task(void *ctx, int task, int worker) {
    const blocks *b = ctx;
    (void)worker;
    const int64_t s = b->size, C = b->r->in_cols;
    const int64_t first = b->stride == 0 ? 0 : task, end = b->stride == 0 ? b->n : task + 1;
    pf_real *d = b->r->d_p[0].data + (b->first + task) * b->stride;
    for (int64_t k = first; k < end; k++) {
        for (int64_t i = 0; i < b->r->R; i++) {
            const pf_real *x = b->x + i * C + k * s, *dy = b->dy + i * C + k * s;
            for (int64_t j = 0; j < s; j++) {
                for (int64_t c = 0; c < s; c++) d[j * s + c] += x[j] * dy[c];
            }
        }
    }
}

/* dR_k += x_kᵀ dy_k */
static void block_gradients(const pf_rowmap_run *r, const pf_real *x, const pf_real *dy) {
    const pf_rotate_args *a = r->args;
    const int64_t s = a->size, n = r->in_cols / s, stride = r->p[0].rows == s ? 0 : s * s;
    if (s < WIDE) {
        blocks b = {
            .r = r, .size = s, .first = a->first, .n = n, .stride = stride, .x = x, .dy = dy};
        pf_pool_run(r->pool, stride == 0 ? 1 : (int)n, block_gradient_task, &b);
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        const pf_weight w = pf_gemm_dense(dy + k * s, r->R, s, r->in_cols);
        const pf_gemm g = {.form = PF_GEMM_TN,
                           .m = s,
                           .n = s,
                           .k = r->R,
                           .a = x + k * s,
                           .lda = r->in_cols,
                           .b = &w,
                           .c = r->d_p[0].data + (a->first + k) * stride,
                           .ldc = s,
                           .alpha = 1,
                           .accumulate = true};
        pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
    }
}

static void forward(const pf_rowmap_run *r) {
    const pf_rotate_args *a = r->args;
    const pf_real *x = shuffled(r, a->from, r->x, r->scratch);
    pf_real *z = a->to == NULL ? r->y : r->scratch + r->R * r->in_cols;
    multiply(r, x, z, false);
    shuffled(r, a->to, z, r->y);
}

/* The inverse of each order is the other. */
static void backward(const pf_rowmap_run *r) {
    const pf_rotate_args *a = r->args;
    pf_real *first = r->scratch, *second = r->scratch + r->R * r->in_cols;
    const pf_real *dz = shuffled(r, a->from, r->dy, first);
    if (r->d_p[0].data != NULL) block_gradients(r, shuffled(r, a->from, r->x, second), dz);
    if (r->dx == NULL) return;
    pf_real *dx = a->to == NULL ? r->dx : second;
    multiply(r, dz, dx, true);
    shuffled(r, a->to, dx, r->dx);
}

const pf_rowmap pf_rotate = {.name = "block-diagonal rotation",
                             .columns = columns,
                             .scratch = scratch,
                             .flops = flops,
                             .forward = forward,
                             .backward = backward};

void pf_rotate_back(const pf_rotate_args *a, const pf_mat *m, int64_t n, const double *x,
                    double *y) {
    const int64_t s = a->size, stride = m->rows == s ? 0 : s * s;
    for (int64_t c = 0; c < n; c++) {
        const int64_t k = a->from == NULL ? c : a->to[c]; /* where column c of y is made */
        const pf_real *row = m->data + (a->first + k / s) * stride + (k % s) * s;
        y[c] = 0;
        for (int64_t j = 0; j < s; j++) {
            const int64_t at = (k / s) * s + j;
            y[c] += (double)row[j] * x[a->from == NULL ? at : a->from[at]];
        }
    }
}
