/* fold.c - sums of shards of a row, matrices tiled over outputs, and the update by blocks of the
 * weight itself: what miss.c needs; see delta_maps.h. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

#include <string.h>

enum { ROWS_A_TASK = 16 };

/* ---- fold ------------------------------------------------------------------------------------ */

static int64_t fold_columns(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)p;
    const int64_t r = *(const int64_t *)args;
    return r <= in_cols ? r : 0;
}

static double fold_flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args, (void)p;
    return (double)in_cols;
}

static void fold_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const int64_t n = *(const int64_t *)r->args, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const pf_real *x = r->x + i * r->in_cols;
        pf_real *y = r->y + i * n;
        memcpy(y, x, (size_t)n * sizeof *y);
        for (int64_t at = n; at < r->in_cols; at += n) {
            const int64_t width = pf_min_i64(n, r->in_cols - at);
            for (int64_t c = 0; c < width; c++) y[c] += x[at + c];
        }
    }
}

static void unfold_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const int64_t n = *(const int64_t *)r->args, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        for (int64_t at = 0; at < r->in_cols; at += n)
            memcpy(r->dx + i * r->in_cols + at, r->dy + i * n,
                   (size_t)pf_min_i64(n, r->in_cols - at) * sizeof *r->dx);
    }
}

static void fold_forward(const pf_rowmap_run *r) {
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), fold_task, (void *)r);
}

static void fold_backward(const pf_rowmap_run *r) {
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), unfold_task, (void *)r);
}

const pf_rowmap pf_fold = {.name = "sum of shards",
                           .columns = fold_columns,
                           .flops = fold_flops,
                           .forward = fold_forward,
                           .backward = fold_backward};

/* ---- tiles ----------------------------------------------------------------------------------- */

static bool tile_shape(const void *args, const pf_mat *in, pf_mat *out) {
    out[0] = (pf_mat){.rows = *(const int64_t *)args, .cols = in[0].rows};
    return out[0].rows % in[0].cols == 0;
}

static void tile_forward(const pf_derive_run *r) {
    const int64_t n = r->in[0].cols, R = r->in[0].rows;
    for (int64_t o = 0; o < r->out[0].rows; o++) {
        for (int64_t i = 0; i < R; i++) r->out[0].data[o * R + i] = r->in[0].data[i * n + o % n];
    }
}

static void tile_backward(const pf_derive_run *r) {
    const int64_t n = r->in[0].cols, R = r->in[0].rows;
    if (r->d_in[0].data == NULL || r->d_out[0].data == NULL) return;
    for (int64_t o = 0; o < r->d_out[0].rows; o++) {
        for (int64_t i = 0; i < R; i++)
            r->d_in[0].data[i * n + o % n] += r->d_out[0].data[o * R + i];
    }
}

const pf_derive pf_tile_turned = {.name = "tiles, turned",
                                  .n_out = 1,
                                  .shape = tile_shape,
                                  .forward = tile_forward,
                                  .backward = tile_backward};

/* ---- the weight's own blocks ----------------------------------------------------------------- */

static bool shard_shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0] = (pf_mat){.rows = in[1].rows, .cols = in[1].cols};
    return in[0].rows == in[1].rows && in[1].cols % in[0].cols == 0 && in[1].rows % in[0].cols == 0;
}

static int64_t shard_scratch(const void *args, const pf_mat *in, int n_workers) {
    (void)args;
    return n_workers * in[1].cols;
}

static const pf_real *weight_row(const pf_derive_run *r, int64_t o, int worker) {
    const pf_mat *w = &r->in[1];
    if (w->data != NULL) return w->data + o * w->cols;
    pf_real *row = r->scratch + worker * w->cols;
    pf_weight_read_tile(w->weight, o, 1, 0, w->cols, row, w->cols);
    return row;
}

/* D[o, g r + c] = B[o, c] + sum over k of W[o, g r + k] B[o's block, k, c] */
static void shard_task(void *ctx, int task, int worker) {
    const pf_derive_run *r = ctx;
    const int64_t n = r->in[0].cols, C = r->in[1].cols;
    for (int64_t o = task * n; o < (task + 1) * n; o++) {
        const pf_real *w = weight_row(r, o, worker), *b = r->in[0].data + task * n * n;
        pf_real *d = r->out[0].data + o * C;
        for (int64_t at = 0; at < C; at += n) {
            memcpy(d + at, r->in[0].data + o * n, (size_t)n * sizeof *d);
            for (int64_t k = 0; k < n; k++) {
                for (int64_t c = 0; c < n; c++) d[at + c] += w[at + k] * b[k * n + c];
            }
        }
    }
}

static void shard_gradient_task(void *ctx, int task, int worker) {
    const pf_derive_run *r = ctx;
    const int64_t n = r->in[0].cols, C = r->in[1].cols;
    pf_real *db = r->d_in[0].data + task * n * n;
    for (int64_t o = task * n; o < (task + 1) * n; o++) {
        const pf_real *w = weight_row(r, o, worker), *d = r->d_out[0].data + o * C;
        for (int64_t at = 0; at < C; at += n) {
            for (int64_t c = 0; c < n; c++) r->d_in[0].data[o * n + c] += d[at + c];
            for (int64_t k = 0; k < n; k++) {
                for (int64_t c = 0; c < n; c++) db[k * n + c] += w[at + k] * d[at + c];
            }
        }
    }
}

static void shard_forward(const pf_derive_run *r) {
    pf_pool_run(r->pool, (int)(r->in[1].rows / r->in[0].cols), shard_task, (void *)r);
}

static void shard_backward(const pf_derive_run *r) {
    if (r->d_in[0].data == NULL || r->d_out[0].data == NULL) return;
    pf_pool_run(r->pool, (int)(r->in[1].rows / r->in[0].cols), shard_gradient_task, (void *)r);
}

const pf_derive pf_shard_update = {.name = "update by blocks of the weight",
                                   .n_out = 1,
                                   .shape = shard_shape,
                                   .scratch = shard_scratch,
                                   .forward = shard_forward,
                                   .backward = shard_backward};
