/* rotate.c - rows times a block-diagonal matrix; see delta_maps.h. Blocks of 16 and wider go
 * through the dense products, one block after the other. Narrower ones take the rows in groups of
 * PF_ROTATE_LANES side by side, a task each, where columns in another order cost nothing; gradients
 * of blocks then go over all groups in order, a task for each block. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"
#include "peft/delta/delta_loops.h"

#include <string.h>

enum { WIDE = 16, ROWS_A_TASK = 16, LANES = PF_ROTATE_LANES };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_rotate_args *a = args;
    const bool fits = p[0].cols == a->size && in_cols % a->size == 0 &&
                      (p[0].rows == a->size || p[0].rows >= a->first * a->size + in_cols);
    return fits ? in_cols : 0;
}

/* Narrow blocks: two groups a worker, and for the backward pass all of x and of dy in groups. */
static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    const pf_rotate_args *a = args;
    (void)p;
    if (a->size >= WIDE) return a->from == NULL ? 0 : 2 * R * in_cols;
    return (2 * pf_ceil_div(R, LANES) + 2 * n_workers) * LANES * in_cols;
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

/* ---- narrow blocks --------------------------------------------------------------------------- */

typedef struct narrow {
    const pf_rowmap_run *r;
    const pf_delta_loops *loops;
    int64_t size, first, n, stride; /* blocks of a row; numbers from one block's matrix to the next:
                                       0 when all share one */
    const pf_real *x;               /* NULL: only the groups are wanted */
    pf_real *y, *groups;            /* groups: of x, kept; NULL: they are not */
    pf_real *other_groups, *room;   /* of x where groups has dy; of the workers */
    bool turned;
} narrow;

static narrow narrow_of(const pf_rowmap_run *r) {
    const pf_rotate_args *a = r->args;
    const int64_t s = a->size, kept = pf_ceil_div(r->R, LANES) * LANES * r->in_cols;
    return (narrow){.r = r,
                    .loops = pf_delta_loops_of(r->isa),
                    .size = s,
                    .first = a->first,
                    .n = r->in_cols / s,
                    .stride = r->p[0].rows == s ? 0 : s * s,
                    .groups = r->scratch,
                    .other_groups = r->scratch + kept,
                    .room = r->scratch + 2 * kept};
}

static void gather_group(const pf_real *x, int64_t n_rows, int64_t cols, pf_real *to) {
    for (int64_t c0 = 0; c0 < cols; c0 += LANES) {
        const int64_t end = pf_min_i64(cols, c0 + LANES);
        for (int64_t l = 0; l < LANES; l++) {
            for (int64_t c = c0; c < end; c++) to[c * LANES + l] = l < n_rows ? x[l * cols + c] : 0;
        }
    }
}

static void narrow_task(void *ctx, int task, int worker) {
    const narrow *b = ctx;
    const pf_rotate_args *a = b->r->args;
    const int64_t s = b->size, C = b->r->in_cols, first = (int64_t)task * LANES,
                  n_rows = pf_min_i64(LANES, b->r->R - first);
    pf_real *room = b->room + 2 * worker * LANES * C, *z = room + LANES * C;
    pf_real *x = b->groups != NULL ? b->groups + task * LANES * C : room;
    gather_group(b->x + first * C, n_rows, C, x);
    if (b->y == NULL) return;
    for (int64_t k = 0; k < b->n; k++)
        b->loops->rotate(
            s, a->from == NULL ? x + k * s * LANES : x, a->from == NULL ? NULL : a->from + k * s,
            b->r->p[0].data + (b->first + k) * b->stride, b->turned, z + k * s * LANES);
    for (int64_t l = 0; l < n_rows; l++) {
        pf_real *y = b->y + (first + l) * C;
        for (int64_t c = 0; c < C; c++) y[c] = z[(a->to == NULL ? c : a->to[c]) * LANES + l];
    }
}

/* y = x P blockdiag(R) Pᵀ, or with the transpose; groups of x are kept where there is room for them
 */
static void narrow_rows(narrow b, const pf_real *x, pf_real *y, pf_real *groups, bool turned) {
    b.x = x;
    b.y = y;
    b.groups = groups;
    b.turned = turned;
    pf_pool_run(b.r->pool, (int)pf_ceil_div(b.r->R, LANES), narrow_task, &b);
}

static void narrow_gradient_task(void *ctx, int task, int worker) {
    const narrow *b = ctx;
    const pf_rotate_args *a = b->r->args;
    const int64_t s = b->size, C = b->r->in_cols;
    (void)worker;
    const int64_t first = b->stride == 0 ? 0 : task, end = b->stride == 0 ? b->n : task + 1;
    pf_real *d = b->r->d_p[0].data + (b->first + task) * b->stride;
    for (int64_t k = first; k < end; k++) {
        const int64_t at = a->from == NULL ? k * s * LANES : 0;
        b->loops->outer(s, pf_ceil_div(b->r->R, LANES), LANES * C, b->other_groups + at,
                        b->groups + at, a->from == NULL ? NULL : a->from + k * s, d);
    }
}

static void narrow_backward(const pf_rowmap_run *r) {
    narrow b = narrow_of(r);
    const bool wanted = r->d_p[0].data != NULL;
    if (wanted) narrow_rows(b, r->x, NULL, b.other_groups, false);
    narrow_rows(b, r->dy, r->dx, b.groups, true);
    if (wanted) pf_pool_run(r->pool, b.stride == 0 ? 1 : (int)b.n, narrow_gradient_task, &b);
}

/* ---- wide blocks ----------------------------------------------------------------------------- */

/* y = x blockdiag(R), or its transpose */
static void multiply(const pf_rowmap_run *r, const pf_real *x, pf_real *y, bool turned) {
    const pf_rotate_args *a = r->args;
    const int64_t s = a->size, n = r->in_cols / s, stride = r->p[0].rows == s ? 0 : s * s;
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

/* dR_k += x_kᵀ dy_k */
static void block_gradients(const pf_rowmap_run *r, const pf_real *x, const pf_real *dy) {
    const pf_rotate_args *a = r->args;
    const int64_t s = a->size, n = r->in_cols / s, stride = r->p[0].rows == s ? 0 : s * s;
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
    if (a->size < WIDE) {
        narrow_rows(narrow_of(r), r->x, r->y, NULL, false);
        return;
    }
    const pf_real *x = shuffled(r, a->from, r->x, r->scratch);
    pf_real *z = a->to == NULL ? r->y : r->scratch + r->R * r->in_cols;
    multiply(r, x, z, false);
    shuffled(r, a->to, z, r->y);
}

/* The inverse of each order is the other. */
static void backward(const pf_rowmap_run *r) {
    const pf_rotate_args *a = r->args;
    if (a->size < WIDE) {
        narrow_backward(r);
        return;
    }
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
