/* label_rows.c - the ops between token rows and label entries: gather_labels, its gradient
 * scatter_labels, and scale_rows (entries times their coefficients); see head_ce.h. Entries are
 * added to rows in entry order. */
#include "ops/loss/head_ce.h"
#include "ops/op_util.h"

#include <string.h>

#define TASK_COLUMNS 64

/* --- gather_labels: h (T, C) -> (E, C) ------------------------------------------------------- */

peft_status pf_gather_labels(pf_graph *g, const char *name, pf_value *h, pf_value **y,
                             peft_error *err) {
    return pf_op_emit(g, "gather_labels", name, NULL, &h, 1, y, err);
}

static peft_status gather_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_TOKENS) {
        return PF_FAIL(err, PEFT_E_SHAPE, "labels are gathered from token rows");
    }
    pf_graph_out(g, n, PF_SPACE_LABELS, 0, n->in[0]->cols);
    return PEFT_OK;
}

static peft_status gather_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]), *dh;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "scatter_labels", n->name, NULL, &dy, 1, &dh, err));
    return pf_grad_give(ad, n->in[0], dh, err);
}

typedef struct job {
    const pf_batch *batch;
    const pf_real *x, *coef;
    pf_real *y;
    int64_t C, rows, task_size;
} job;

static void gather_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    int64_t from = task * j->task_size, to = pf_min_i64(from + j->task_size, j->rows);
    for (int64_t e = from; e < to; e++) {
        memcpy(j->y + e * j->C, j->x + j->batch->label_row[e] * j->C, (size_t)j->C * sizeof *j->y);
    }
}

static peft_status gather_run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.batch = x->batch,
             .x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->out[0]),
             .C = n->in[0]->cols,
             .rows = x->batch->n_labels};
    j.task_size = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.rows, j.task_size), gather_task, &j);
    return PEFT_OK;
}

static pf_cost bytes_only(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 0);
}

const pf_op pf_op_gather_labels = {
    .name = "gather_labels",
    .what = "y[e] = h[row of label entry e]",
    .shape = gather_shape,
    .vjp = gather_vjp,
    .cost = bytes_only,
    .kernels =
        (const pf_kernel_row[]){{.backend = "cpu", .name = "reference", .run = gather_run}, {0}},
};

/* --- scatter_labels: dy (E, C) -> (T, C) ----------------------------------------------------- */

static peft_status scatter_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_LABELS) {
        return PF_FAIL(err, PEFT_E_SHAPE, "what is scattered stands in label rows");
    }
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, n->in[0]->cols);
    return PEFT_OK;
}

/* A task owns columns: a row of a shared prefix has several entries, and their sum has one order.
 */
static void scatter_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    int64_t from = (int64_t)task * TASK_COLUMNS, to = pf_min_i64(from + TASK_COLUMNS, j->C);
    for (int64_t t = 0; t < j->rows; t++) {
        memset(j->y + t * j->C + from, 0, (size_t)(to - from) * sizeof *j->y);
    }
    for (int32_t e = 0; e < j->batch->n_labels; e++) {
        const pf_real *dy = j->x + e * j->C;
        pf_real *row = j->y + j->batch->label_row[e] * j->C;
        for (int64_t c = from; c < to; c++) row[c] += dy[c];
    }
}

static peft_status scatter_run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.batch = x->batch,
             .x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->out[0]),
             .C = n->in[0]->cols,
             .rows = x->batch->n_tokens};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.C, TASK_COLUMNS), scatter_task, &j);
    return PEFT_OK;
}

const pf_op pf_op_scatter_labels = {
    .name = "scatter_labels",
    .what = "y[row of entry e] += dy[e], entries in order; other rows 0",
    .shape = scatter_shape,
    .cost = bytes_only,
    .kernels =
        (const pf_kernel_row[]){{.backend = "cpu", .name = "reference", .run = scatter_run}, {0}},
};

/* --- scale_rows: x (E, C), coef (E, 1) -> (E, C) ---------------------------------------------- */

static peft_status scale_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0], *coef = n->in[1];
    if (x->space != PF_SPACE_LABELS || coef->space != PF_SPACE_LABELS || coef->cols != 1) {
        return PF_FAIL(err, PEFT_E_SHAPE, "one coefficient per row is needed");
    }
    pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static void scale_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    int64_t from = task * j->task_size, to = pf_min_i64(from + j->task_size, j->rows);
    for (int64_t e = from; e < to; e++) {
        const pf_real c = j->coef[e], *x = j->x + e * j->C;
        pf_real *y = j->y + e * j->C;
        for (int64_t i = 0; i < j->C; i++) y[i] = c * x[i];
    }
}

static peft_status scale_run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.x = pf_exec_data(x, n->in[0]),
             .coef = pf_exec_data(x, n->in[1]),
             .y = pf_exec_data(x, n->out[0]),
             .C = n->in[0]->cols,
             .rows = pf_exec_rows(x, n->in[0])};
    j.task_size = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.rows, j.task_size), scale_task, &j);
    return PEFT_OK;
}

const pf_op pf_op_scale_rows = {
    .name = "scale_rows",
    .what = "y[e] = coef[e] · x[e]",
    .shape = scale_shape,
    .cost = bytes_only,
    .in_place = 1,
    .kernels =
        (const pf_kernel_row[]){{.backend = "cpu", .name = "reference", .run = scale_run}, {0}},
};
