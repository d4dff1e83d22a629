/* scale_about.c - y = s (x - b) + b, a factor for each column about a bias that stays: what a
 * scaled weight does to outputs that have their bias already; see delta_maps.h. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

enum { ROWS_A_TASK = 16, COLS_A_TASK = 64 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    return p[0].rows * p[0].cols == in_cols && p[1].rows * p[1].cols == in_cols ? in_cols : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)args, (void)R, (void)n_workers;
    return p[1].weight != NULL ? in_cols : 0;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args, (void)p;
    return 3 * (double)in_cols;
}

typedef struct job {
    const pf_rowmap_run *r;
    const pf_real *bias;
} job;

static job job_of(const pf_rowmap_run *r) {
    if (r->p[1].weight == NULL) return (job){r, r->p[1].data};
    pf_weight_read_tile(r->p[1].weight, 0, 1, 0, r->in_cols, r->scratch, r->in_cols);
    return (job){r, r->scratch};
}

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(j->r->R, first + ROWS_A_TASK);
    const pf_real *s = j->r->p[0].data;
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        for (int64_t c = 0; c < C; c++)
            j->r->y[i * C + c] = s[c] * (j->r->x[i * C + c] - j->bias[c]) + j->bias[c];
    }
}

static void dx_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(j->r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        for (int64_t c = 0; c < C; c++)
            j->r->dx[i * C + c] = j->r->p[0].data[c] * j->r->dy[i * C + c];
    }
}

static void parameters_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, first = (int64_t)task * COLS_A_TASK,
                  end = pf_min_i64(C, first + COLS_A_TASK);
    pf_real *ds = j->r->d_p[0].data, *db = j->r->d_p[1].data;
    (void)worker;
    for (int64_t i = 0; i < j->r->R; i++) {
        const pf_real *x = j->r->x + i * C, *dy = j->r->dy + i * C;
        for (int64_t c = first; ds != NULL && c < end; c++) ds[c] += dy[c] * (x[c] - j->bias[c]);
        for (int64_t c = first; db != NULL && c < end; c++)
            db[c] += dy[c] * (1 - j->r->p[0].data[c]);
    }
}

static void forward(const pf_rowmap_run *r) {
    job j = job_of(r);
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), forward_task, &j);
}

static void backward(const pf_rowmap_run *r) {
    job j = job_of(r);
    if (r->d_p[0].data != NULL || r->d_p[1].data != NULL)
        pf_pool_run(r->pool, (int)pf_ceil_div(r->in_cols, COLS_A_TASK), parameters_task, &j);
    if (r->dx != NULL) pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), dx_task, &j);
}

const pf_rowmap pf_scale_about = {.name = "factors about a bias",
                                  .columns = columns,
                                  .scratch = scratch,
                                  .flops = flops,
                                  .forward = forward,
                                  .backward = backward};
