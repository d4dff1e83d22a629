/* labels.c - the ops between token rows and label entries: gather_labels, scatter_labels and
 * scale_rows. */
#include "ops/loss/head_ce.h"
#include "ops/op_util.h"

#include <string.h>

peft_status pf_gather_labels(pf_graph *g, const char *name, pf_value *h, pf_value **y,
                             peft_error *err) {
    return pf_op_emit(g, "gather_labels", name, NULL, &h, 1, y, err);
}

/* --- gather_labels, scatter_labels --------------------------------------------------------- */

static peft_status gather_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_TOKENS)
        return PF_FAIL(err, PEFT_E_SHAPE, "h has to have one row per token");
    pf_graph_out(g, n, PF_SPACE_LABELS, 0, n->in[0]->cols);
    return PEFT_OK;
}

static peft_status gather_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dh, *dy = pf_grad_of(ad, n->out[0]);
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "scatter_labels", n->name, NULL, &dy, 1, &dh, err));
    return pf_grad_give(ad, n->in[0], dh, err);
}

static peft_status scatter_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_LABELS)
        return PF_FAIL(err, PEFT_E_SHAPE, "dy has to have one row per label entry");
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, n->in[0]->cols);
    return PEFT_OK;
}

typedef struct job {
    const pf_batch *batch;
    const pf_real *x, *c;
    pf_real *y;
    int64_t rows, C, task_rows;
} job;

static job job_of(const pf_exec *x, const pf_node *n) {
    job j = {.batch = x->batch,
             .x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->out[0]),
             .rows = pf_exec_rows(x, n->out[0]),
             .C = n->out[0]->cols};
    j.task_rows = pf_op_rows_per_task(j.C);
    return j;
}

static void spread(const pf_exec *x, job *j, pf_task_fn fn) {
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j->rows, j->task_rows), fn, j);
}

static void gather_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->task_rows, to = pf_min_i64(j->rows, from + j->task_rows);
    for (int64_t e = from; e < to; e++)
        memcpy(j->y + e * j->C, j->x + j->batch->label_row[e] * j->C, (size_t)j->C * sizeof *j->y);
}

static peft_status run_gather(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n);
    spread(x, &j, gather_task);
    return PEFT_OK;
}

static int32_t first_entry(const pf_batch *b, int64_t row) {
    int32_t lo = 0, hi = b->n_labels;
    while (lo < hi) {
        const int32_t mid = lo + (hi - lo) / 2;
        if (b->label_row[mid] < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* A task owns token rows; label_row ascends, so their entries stand together. */
static void scatter_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->task_rows, to = pf_min_i64(j->rows, from + j->task_rows);
    memset(j->y + from * j->C, 0, (size_t)((to - from) * j->C) * sizeof *j->y);
    for (int32_t e = first_entry(j->batch, from); e < j->batch->n_labels; e++) {
        const int64_t row = j->batch->label_row[e];
        if (row >= to) break;
        pf_real *y = j->y + row * j->C;
        const pf_real *x = j->x + e * j->C;
        for (int64_t c = 0; c < j->C; c++) y[c] += x[c];
    }
}

static peft_status run_scatter(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n);
    spread(x, &j, scatter_task);
    return PEFT_OK;
}

/* --- scale_rows ---------------------------------------------------------------------------- */

/* x (R, C), c (R, 1) -> y[i] = c[i] x[i] */
static peft_status scale_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0], *c = n->in[1];
    if (c->cols != 1 || c->space != x->space || (c->space == PF_SPACE_NONE && c->rows != x->rows))
        return PF_FAIL(err, PEFT_E_SHAPE, "c has to have one number per row of x");
    pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static peft_status scale_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    if (pf_grad_wanted(n->in[1]))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "the factors of scale_rows cannot be trained");
    pf_value *dx, *in[2] = {pf_grad_of(ad, n->out[0]), NULL};
    PF_TRY(pf_op_need(ad, n->in[1], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "scale_rows", n->name, NULL, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static void scale_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->task_rows, to = pf_min_i64(j->rows, from + j->task_rows);
    for (int64_t i = from; i < to; i++) {
        for (int64_t c = 0; c < j->C; c++) j->y[i * j->C + c] = j->c[i] * j->x[i * j->C + c];
    }
}

static peft_status run_scale(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n);
    j.c = pf_exec_data(x, n->in[1]);
    spread(x, &j, scale_task);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

static const pf_kernel_row gather_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_gather}, {0}};
static const pf_kernel_row scatter_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_scatter}, {0}};
static const pf_kernel_row scale_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_scale}, {0}};

const pf_op pf_op_gather_labels = {
    .name = "gather_labels",
    .what = "y[e] = h[label_row[e]]",
    .flags = PF_OP_CHEAP,
    .shape = gather_shape,
    .vjp = gather_vjp,
    .cost = cost,
    .kernels = gather_kernels,
};

const pf_op pf_op_scatter_labels = {
    .name = "scatter_labels",
    .what = "dh[label_row[e]] += dy[e], entries in order; other rows 0",
    .shape = scatter_shape,
    .cost = cost,
    .kernels = scatter_kernels,
};

const pf_op pf_op_scale_rows = {
    .name = "scale_rows",
    .what = "y[i] = c[i] x[i]",
    .shape = scale_shape,
    .vjp = scale_vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = scale_kernels,
};
