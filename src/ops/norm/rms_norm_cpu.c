/* rms_norm_cpu.c - rms_norm on the CPU: the reference row kernels, written to be read, and the
 * launchers, which cut the rows of a node into tasks for any row kernel. rms_norm_simd.h has the
 * faster row kernels.
 *
 * A row is computed by one call from its own numbers alone, so it has the same bits wherever it
 * stands. dw is summed per task, rows in order, then over the tasks in order: the split is fixed,
 * so the number of threads changes nothing. */
#include "ops/norm/rms_norm.h"
#include "ops/norm/rms_norm_kernels.h"
#include "ops/op_util.h"

#include <string.h>

/* --- kernels ---------------------------------------------------------------------------------- */

static pf_real inverse_rms(const pf_real *x, int64_t C, double eps) {
    double squares = 0;
    for (int64_t c = 0; c < C; c++) squares += (double)x[c] * (double)x[c];
    return (pf_real)(1 / sqrt(squares / (double)C + eps));
}

void pf_rms_norm_rows_cpu(const pf_rms_norm_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const pf_real *x = k->x + i * C;
        pf_real *y = k->y + i * C;
        if (k->b != NULL) {
            pf_real *sum = k->sum + i * C;
            for (int64_t c = 0; c < C; c++) sum[c] = x[c] + k->b[i * C + c];
            x = sum;
        }
        pf_real r = inverse_rms(x, C, k->eps);
        for (int64_t c = 0; c < C; c++) y[c] = x[c] * r * k->w[c];
    }
}

void pf_rms_norm_grad_rows_cpu(const pf_rms_norm_grad_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const pf_real *x = k->x + i * C, *dy = k->dy + i * C;
        pf_real r = inverse_rms(x, C, k->eps);
        if (k->dw != NULL) {
            for (int64_t c = 0; c < C; c++) k->dw[c] += dy[c] * (x[c] * r);
        }
        if (k->dx == NULL) continue;
        double dot = 0;
        for (int64_t c = 0; c < C; c++) dot += (double)(dy[c] * k->w[c]) * (double)x[c];
        pf_real m = (pf_real)(dot / (double)C) * r * r;
        for (int64_t c = 0; c < C; c++) {
            pf_real d = r * (dy[c] * k->w[c] - x[c] * m);
            k->dx[i * C + c] = k->acc != NULL ? d + k->acc[i * C + c] : d;
        }
    }
}

/* --- launchers -------------------------------------------------------------------------------- */

/* Rows of `group` columns that the node's x has, and how many of them make a task. */
static int64_t group_rows(const pf_value *x, int64_t rows, int64_t group) {
    return rows * (x->cols / group);
}

static int64_t group_of(const pf_value *x, int64_t group) {
    return group > 0 ? group : x->cols;
}

/* w + offset; in `scratch` unless w can be read where it stands. */
static const pf_real *weight_of(const pf_exec *x, const pf_value *w, double offset,
                                pf_real *scratch) {
    const pf_real *v = pf_op_vector(x, w, scratch);
    if (offset == 0) return v;
    for (int64_t c = 0; c < w->cols; c++) scratch[c] = v[c] + (pf_real)offset;
    return scratch;
}

typedef struct job {
    pf_rms_norm_rows k;
    pf_rms_norm_fn fn;
    int64_t task_rows;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_rms_norm_rows k = j->k;
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

/* rms_norm: in x, w; out y. add_rms_norm: in a, b, w; out sum, y. */
static peft_status launch(pf_exec *x, const pf_node *n, pf_rms_norm_fn fn) {
    const pf_rms_norm_args *args = n->args;
    const bool with_add = n->n_out == 2;
    job j = {.fn = fn};
    j.k.C = group_of(n->in[0], args->group);
    j.k.R = group_rows(n->in[0], pf_exec_rows(x, n->in[0]), j.k.C);
    j.k.eps = args->eps;
    j.k.x = pf_exec_data(x, n->in[0]);
    j.k.b = with_add ? pf_exec_data(x, n->in[1]) : NULL;
    j.k.w = weight_of(x, n->in[n->n_in - 1], args->offset, (pf_real *)(void *)x->workspace);
    j.k.sum = with_add ? pf_exec_data(x, n->out[0]) : NULL;
    j.k.y = pf_exec_data(x, n->out[n->n_out - 1]);
    j.task_rows = pf_op_rows_per_task(j.k.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.k.R, j.task_rows), run_task, &j);
    return PEFT_OK;
}

int64_t pf_rms_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    (void)n_workers;
    const pf_value *w = n->in[n->n_in - 1];
    const pf_rms_norm_args *args = n->args;
    return args->offset != 0 ? w->cols * (int64_t)sizeof(pf_real) : pf_op_vector_scratch(w);
}

typedef struct grad_job {
    pf_rms_norm_grad_rows k;
    pf_rms_norm_grad_fn fn;
    int64_t task_rows;
    pf_real *partial; /* (tasks, C) of dw, or NULL */
} grad_job;

static void run_grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const grad_job *j = ctx;
    pf_rms_norm_grad_rows k = j->k;
    int64_t from = (int64_t)task * j->task_rows, at = from * k.C;
    k.R = pf_min_i64(j->task_rows, k.R - from);
    k.x += at;
    k.dy += at;
    if (k.acc != NULL) k.acc += at;
    if (k.dx != NULL) k.dx += at;
    if (j->partial != NULL) {
        k.dw = j->partial + (int64_t)task * k.C;
        memset(k.dw, 0, (size_t)k.C * sizeof *k.dw);
    }
    j->fn(&k);
}

static peft_status launch_grad(pf_exec *x, const pf_node *n, pf_rms_norm_grad_fn fn) {
    const pf_rms_norm_grad_args *args = n->args;
    pf_real *dw = pf_exec_data(x, n->in[4]);
    pf_real *scratch = (pf_real *)(void *)x->workspace;
    grad_job j = {.fn = fn};
    j.k.C = group_of(n->in[1], args->group);
    j.k.R = group_rows(n->in[1], pf_exec_rows(x, n->in[1]), j.k.C);
    j.k.eps = args->eps;
    j.k.dy = pf_exec_data(x, n->in[0]);
    j.k.x = pf_exec_data(x, n->in[1]);
    j.k.w = weight_of(x, n->in[2], args->offset, scratch);
    j.k.acc = pf_exec_data(x, n->in[3]);
    j.k.dx = args->want_dx ? pf_exec_data(x, n->out[0]) : NULL;
    j.task_rows = pf_op_rows_per_task(j.k.C);
    j.partial = dw != NULL ? scratch + j.k.C : NULL;
    int64_t n_tasks = pf_ceil_div(j.k.R, j.task_rows);
    pf_pool_run(pf_exec_pool(x), (int)n_tasks, run_grad_task, &j);
    for (int64_t t = 0; dw != NULL && t < n_tasks; t++) {
        for (int64_t c = 0; c < j.k.C; c++) dw[c] += j.partial[t * j.k.C + c];
    }
    return PEFT_OK;
}

int64_t pf_rms_norm_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n_workers;
    const pf_rms_norm_grad_args *args = n->args;
    int64_t C = group_of(n->in[1], args->group);
    int64_t R = group_rows(n->in[1], pf_value_rows(n->in[1], capacity), C);
    int64_t vectors = 1; /* w, then dw of each task */
    if (n->in[4] != NULL) vectors += pf_ceil_div(R, pf_op_rows_per_task(C));
    return vectors * C * (int64_t)sizeof(pf_real);
}

/* --- the lists of kernels, fastest first ------------------------------------------------------ */

#define RUN(isa)                                                                                   \
    static peft_status run_##isa(pf_exec *x, const pf_node *n, peft_error *err) {                  \
        (void)err;                                                                                 \
        return launch(x, n, pf_rms_norm_rows_##isa);                                               \
    }                                                                                              \
    static peft_status run_grad_##isa(pf_exec *x, const pf_node *n, peft_error *err) {             \
        (void)err;                                                                                 \
        return launch_grad(x, n, pf_rms_norm_grad_rows_##isa);                                     \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_rms_norm_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
const pf_kernel_row pf_rms_norm_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on
