/* layer_norm_cpu.c - layer_norm on the CPU: the reference row kernels, written to be read, and the
 * launchers, which cut the rows of a node into tasks for any row kernel. layer_norm_simd.h has the
 * faster row kernels.
 *
 * A row is computed by one call from its own numbers alone, so it has the same bits wherever it
 * stands. dw and db are summed per task, rows in order, then over the tasks in order: the split is
 * fixed, so the number of threads changes nothing. */
#include "ops/norm/layer_norm.h"
#include "ops/norm/layer_norm_kernels.h"
#include "ops/op_util.h"

#include <string.h>

/* --- kernels ---------------------------------------------------------------------------------- */

static pf_real mean_of(const pf_real *x, int64_t C) {
    double sum = 0;
    for (int64_t c = 0; c < C; c++) sum += (double)x[c];
    return (pf_real)(sum / (double)C);
}

static pf_real inverse_std(const pf_real *x, pf_real mean, int64_t C, double eps) {
    double squares = 0;
    for (int64_t c = 0; c < C; c++) {
        const double d = (double)x[c] - (double)mean;
        squares += d * d;
    }
    return (pf_real)(1 / sqrt(squares / (double)C + eps));
}

void pf_layer_norm_rows_cpu(const pf_layer_norm_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const pf_real *x = k->x + i * C;
        pf_real *y = k->y + i * C;
        if (k->b != NULL) {
            pf_real *sum = k->sum + i * C;
            for (int64_t c = 0; c < C; c++) sum[c] = x[c] + k->b[i * C + c];
            x = sum;
        }
        pf_real mean = mean_of(x, C), r = inverse_std(x, mean, C, k->eps);
        for (int64_t c = 0; c < C; c++) y[c] = (x[c] - mean) * r * k->w[c] + k->bias[c];
    }
}

void pf_layer_norm_grad_rows_cpu(const pf_layer_norm_grad_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const pf_real *x = k->x + i * C, *dy = k->dy + i * C;
        pf_real mean = mean_of(x, C), r = inverse_std(x, mean, C, k->eps);
        for (int64_t c = 0; k->dw != NULL && c < C; c++) k->dw[c] += dy[c] * ((x[c] - mean) * r);
        for (int64_t c = 0; k->db != NULL && c < C; c++) k->db[c] += dy[c];
        if (k->dx == NULL) continue;
        double sum = 0, dot = 0;
        for (int64_t c = 0; c < C; c++) {
            const double g = (double)(dy[c] * k->w[c]);
            sum += g;
            dot += g * (double)((x[c] - mean) * r);
        }
        pf_real mean_g = (pf_real)(sum / (double)C), mean_gn = (pf_real)(dot / (double)C);
        for (int64_t c = 0; c < C; c++) {
            pf_real d = r * (dy[c] * k->w[c] - mean_g - (x[c] - mean) * r * mean_gn);
            k->dx[i * C + c] = k->acc != NULL ? d + k->acc[i * C + c] : d;
        }
    }
}

/* --- launchers -------------------------------------------------------------------------------- */

static int64_t group_of(const pf_value *x, int64_t group) {
    return group > 0 ? group : x->cols;
}

/* Rows of `group` columns that x has. */
static int64_t group_rows(const pf_value *x, int64_t rows, int64_t group) {
    return rows * (x->cols / group);
}

/* The numbers of v, or n times `missing` where there is no v. */
static const pf_real *vector_or(const pf_exec *x, const pf_value *v, pf_real missing, int64_t n,
                                pf_real *scratch) {
    if (v != NULL) return pf_op_vector(x, v, scratch);
    for (int64_t i = 0; i < n; i++) scratch[i] = missing;
    return scratch;
}

typedef struct job {
    pf_layer_norm_rows k;
    pf_layer_norm_fn fn;
    int64_t task_rows;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_layer_norm_rows k = j->k;
    int64_t from = (int64_t)task * j->task_rows, at = from * k.C;
    k.R = pf_min_i64(j->task_rows, k.R - from);
    k.x += at;
    k.y += at;
    if (k.b != NULL) {
        k.b += at;
        k.sum += at;
    }
    j->fn(&k);
}

/* layer_norm: in x, w, b; out y. add_layer_norm: in a, b, w, b; out sum, y. */
static peft_status launch(pf_exec *x, const pf_node *n, pf_layer_norm_fn fn) {
    const pf_layer_norm_args *args = n->args;
    const bool with_add = n->n_out == 2;
    pf_real *scratch = (pf_real *)(void *)x->workspace;
    job j = {.fn = fn};
    j.k.C = group_of(n->in[0], args->group);
    j.k.R = group_rows(n->in[0], pf_exec_rows(x, n->in[0]), j.k.C);
    j.k.eps = args->eps;
    j.k.x = pf_exec_data(x, n->in[0]);
    j.k.b = with_add ? pf_exec_data(x, n->in[1]) : NULL;
    j.k.w = vector_or(x, n->in[n->n_in - 2], 1, j.k.C, scratch);
    j.k.bias = vector_or(x, n->in[n->n_in - 1], 0, j.k.C, scratch + j.k.C);
    j.k.sum = with_add ? pf_exec_data(x, n->out[0]) : NULL;
    j.k.y = pf_exec_data(x, n->out[n->n_out - 1]);
    j.task_rows = pf_op_rows_per_task(j.k.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.k.R, j.task_rows), run_task, &j);
    return PEFT_OK;
}

int64_t pf_layer_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    (void)n_workers;
    const pf_layer_norm_args *args = n->args;
    return 2 * group_of(n->in[0], args->group) * (int64_t)sizeof(pf_real);
}

typedef struct grad_job {
    pf_layer_norm_grad_rows k;
    pf_layer_norm_grad_fn fn;
    int64_t task_rows;
    bool want_dw, want_db;
    pf_real *partial; /* (tasks, 2 C) of dw and db */
} grad_job;

static void run_grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const grad_job *j = ctx;
    pf_layer_norm_grad_rows k = j->k;
    int64_t from = (int64_t)task * j->task_rows, at = from * k.C;
    k.R = pf_min_i64(j->task_rows, k.R - from);
    k.x += at;
    k.dy += at;
    if (k.acc != NULL) k.acc += at;
    if (k.dx != NULL) k.dx += at;
    if (j->want_dw || j->want_db) {
        pf_real *mine = j->partial + (int64_t)task * 2 * k.C;
        memset(mine, 0, (size_t)(2 * k.C) * sizeof *mine);
        k.dw = j->want_dw ? mine : NULL;
        k.db = j->want_db ? mine + k.C : NULL;
    }
    j->fn(&k);
}

static peft_status launch_grad(pf_exec *x, const pf_node *n, pf_layer_norm_grad_fn fn) {
    const pf_layer_norm_grad_args *args = n->args;
    pf_real *dw = pf_exec_data(x, n->in[PF_LN_DW]), *db = pf_exec_data(x, n->in[PF_LN_DB]);
    pf_real *scratch = (pf_real *)(void *)x->workspace;
    grad_job j = {.fn = fn, .want_dw = dw != NULL, .want_db = db != NULL};
    const pf_value *xv = n->in[PF_LN_X];
    j.k.C = group_of(xv, args->group);
    j.k.R = group_rows(xv, pf_exec_rows(x, xv), j.k.C);
    j.k.eps = args->eps;
    j.k.dy = pf_exec_data(x, n->in[PF_LN_DY]);
    j.k.x = pf_exec_data(x, xv);
    j.k.w = vector_or(x, n->in[PF_LN_W], 1, j.k.C, scratch);
    j.k.acc = pf_exec_data(x, n->in[PF_LN_ACC]);
    j.k.dx = args->want_dx ? pf_exec_data(x, n->out[0]) : NULL;
    j.task_rows = pf_op_rows_per_task(j.k.C);
    j.partial = scratch + j.k.C;
    int64_t n_tasks = pf_ceil_div(j.k.R, j.task_rows);
    pf_pool_run(pf_exec_pool(x), (int)n_tasks, run_grad_task, &j);
    for (int64_t t = 0; t < n_tasks; t++) {
        const pf_real *part = j.partial + t * 2 * j.k.C;
        for (int64_t c = 0; dw != NULL && c < j.k.C; c++) dw[c] += part[c];
        for (int64_t c = 0; db != NULL && c < j.k.C; c++) db[c] += part[j.k.C + c];
    }
    return PEFT_OK;
}

int64_t pf_layer_norm_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n_workers;
    const pf_layer_norm_grad_args *args = n->args;
    int64_t C = group_of(n->in[PF_LN_X], args->group);
    int64_t R = group_rows(n->in[PF_LN_X], pf_value_rows(n->in[PF_LN_X], capacity), C);
    int64_t vectors = 1; /* w, then dw and db of each task */
    if (n->in[PF_LN_DW] != NULL || n->in[PF_LN_DB] != NULL)
        vectors += 2 * pf_ceil_div(R, pf_op_rows_per_task(C));
    return vectors * C * (int64_t)sizeof(pf_real);
}

/* --- the lists of kernels, fastest first ------------------------------------------------------ */

#define RUN(isa)                                                                                   \
    static peft_status run_##isa(pf_exec *x, const pf_node *n, peft_error *err) {                  \
        (void)err;                                                                                 \
        return launch(x, n, pf_layer_norm_rows_##isa);                                             \
    }                                                                                              \
    static peft_status run_grad_##isa(pf_exec *x, const pf_node *n, peft_error *err) {             \
        (void)err;                                                                                 \
        return launch_grad(x, n, pf_layer_norm_grad_rows_##isa);                                   \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_layer_norm_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
const pf_kernel_row pf_layer_norm_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on
