/* sparse.c - rows times a matrix of few numbers at fixed places; see delta_maps.h. Rows are dealt
 * out to tasks, numbers of the gradient likewise; sums go in order. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

#include <string.h>

enum { ROWS_A_TASK = 4, OUTPUTS_A_TASK = 64 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_sparse_args *a = args;
    return a->in == in_cols && p[0].rows * p[0].cols == a->n ? a->out : 0;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args, (void)in_cols;
    return 2.0 * (double)(p[0].rows * p[0].cols);
}

static void forward_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const pf_sparse_args *a = r->args;
    const pf_real *v = r->p[0].data;
    const int64_t first = (int64_t)task * ROWS_A_TASK, end = pf_min_i64(r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const pf_real *x = r->x + i * a->in;
        for (int64_t o = 0; o < a->out; o++) {
            pf_real sum = 0;
            for (int64_t k = a->start[o]; k < a->start[o + 1]; k++) sum += v[k] * x[a->column[k]];
            r->y[i * a->out + o] = sum;
        }
    }
}

static void dx_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const pf_sparse_args *a = r->args;
    const pf_real *v = r->p[0].data;
    const int64_t first = (int64_t)task * ROWS_A_TASK, end = pf_min_i64(r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        pf_real *dx = r->dx + i * a->in;
        memset(dx, 0, (size_t)a->in * sizeof *dx);
        for (int64_t o = 0; o < a->out; o++) {
            const pf_real dy = r->dy[i * a->out + o];
            for (int64_t k = a->start[o]; k < a->start[o + 1]; k++) dx[a->column[k]] += dy * v[k];
        }
    }
}

static void values_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const pf_sparse_args *a = r->args;
    const int64_t first = (int64_t)task * OUTPUTS_A_TASK,
                  end = pf_min_i64(a->out, first + OUTPUTS_A_TASK);
    (void)worker;
    for (int64_t i = 0; i < r->R; i++) {
        const pf_real *x = r->x + i * a->in;
        for (int64_t o = first; o < end; o++) {
            const pf_real dy = r->dy[i * a->out + o];
            for (int64_t k = a->start[o]; k < a->start[o + 1]; k++)
                r->d_p[0].data[k] += dy * x[a->column[k]];
        }
    }
}

static void forward(const pf_rowmap_run *r) {
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), forward_task, (void *)(uintptr_t)r);
}

static void backward(const pf_rowmap_run *r) {
    void *ctx = (void *)(uintptr_t)r;
    const pf_sparse_args *a = r->args;
    if (r->d_p[0].data != NULL)
        pf_pool_run(r->pool, (int)pf_ceil_div(a->out, OUTPUTS_A_TASK), values_task, ctx);
    if (r->dx != NULL) pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), dx_task, ctx);
}

const pf_rowmap pf_sparse = {.name = "numbers at few places",
                             .columns = columns,
                             .flops = flops,
                             .forward = forward,
                             .backward = backward};
