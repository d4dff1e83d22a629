/* token_rows.c - the ops token_rows, token_rows_grad and token_shift; see token_rows.h. */
#include "ops/embed/token_rows.h"

#include "base/str.h"
#include "ops/op_util.h"

#include <string.h>

enum { STRIP = 64 }; /* columns of a task of the gradient */

peft_status pf_token_rows(pf_graph *g, const char *name, pf_value *base, pf_value *d,
                          const pf_token_rows_args *args, pf_value **y, peft_error *err) {
    pf_value *in[2] = {base, d};
    return pf_op_emit(g, "token_rows", name, args, in, 2, y, err);
}

peft_status pf_token_shift(pf_graph *g, const char *name, pf_value *d, pf_value *w,
                           const int32_t *ids, pf_value **a, peft_error *err) {
    const pf_token_shift_args args = {ids};
    pf_value *in[2] = {d, w};
    return pf_op_emit(g, "token_shift", name, &args, in, 2, a, err);
}

pf_value *pf_token_shift_param(const pf_value *a) {
    if (a->kind == PF_VALUE_PARAM) return (pf_value *)(uintptr_t)a;
    const bool shifted = a->kind == PF_VALUE_ACT && pf_streq(a->producer->op->name, "token_shift");
    return shifted ? a->producer->in[0] : NULL;
}

/* --- shapes, gradients ------------------------------------------------------------------------ */

static peft_status check(const pf_value *rows, const pf_value *d, peft_error *err) {
    if (rows->cols == d->cols && rows->space >= 0 && d->space == PF_SPACE_NONE) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "rows of %lld columns are to take rows of %lld",
                   (long long)rows->cols, (long long)d->cols);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *base = n->in[0], *d = n->in[1];
    pf_value *in[3] = {pf_grad_of(ad, n->out[0]), d,
                       pf_grad_wanted(d) ? pf_grad_sink(ad, d) : NULL};
    pf_node *grad;
    PF_TRY(
        pf_graph_emit(pf_grad_graph(ad), "token_rows_grad", n->name, n->args, in, 3, &grad, err));
    return pf_grad_give(ad, base, grad->out[0], err);
}

/* dy, D, dD or NULL -> dbase */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status shift_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *d = n->in[0], *w = n->in[1];
    if (d->kind != PF_VALUE_PARAM || d->cols != w->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "rows of %lld columns for a table of %lld",
                       (long long)d->cols, (long long)w->cols);
    pf_graph_out(g, n, PF_SPACE_NONE, d->rows, d->cols);
    return PEFT_OK;
}

static peft_status shift_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    return pf_grad_give(ad, n->in[0], pf_grad_of(ad, n->out[0]), err);
}

/* --- kernels ---------------------------------------------------------------------------------- */

typedef struct job {
    const pf_batch *batch;
    const int32_t *slot;
    int64_t vocab, C, task_rows;
    const pf_real *from, *d;
    pf_real *to, *dd;
} job;

static int32_t slot_of(const job *j, int64_t i) {
    const int32_t id = j->batch->ids[i];
    return id >= 0 && id < j->vocab ? j->slot[id] : -1;
}

static void rows_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * j->task_rows;
    const int64_t to = pf_min_i64(from + j->task_rows, j->batch->n_tokens);
    for (int64_t i = from; i < to; i++) {
        const int32_t k = slot_of(j, i);
        const pf_real *row = k >= 0 ? j->d + k * j->C : j->from + i * j->C;
        if (row != j->to + i * j->C) memcpy(j->to + i * j->C, row, (size_t)j->C * sizeof *row);
    }
}

static job make_job(pf_exec *x, const pf_node *n) {
    const pf_token_rows_args *args = n->args;
    return (job){.batch = pf_batch_of_space(x->batch, n->in[0]->space),
                 .slot = args->slot,
                 .vocab = args->vocab,
                 .C = n->in[0]->cols,
                 .from = pf_exec_data(x, n->in[0]),
                 .to = pf_exec_data(x, n->out[0]),
                 .task_rows = pf_op_rows_per_task(n->in[0]->cols)};
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = make_job(x, n);
    j.d = pf_exec_data(x, n->in[1]);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.batch->n_tokens, j.task_rows), rows_task, &j);
    return PEFT_OK;
}

/* A task owns columns: the same token may stand in several rows, and its sum goes in row order. */
static void grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t c0 = (int64_t)task * STRIP, c1 = pf_min_i64(j->C, c0 + STRIP);
    for (int64_t i = 0; i < j->batch->n_tokens; i++) {
        const int32_t k = slot_of(j, i);
        const pf_real *dy = j->from + i * j->C;
        pf_real *dbase = j->to + i * j->C;
        if (k < 0) {
            for (int64_t c = c0; c < c1; c++) dbase[c] = dy[c];
            continue;
        }
        for (int64_t c = c0; c < c1; c++) {
            if (j->dd != NULL) j->dd[k * j->C + c] += dy[c];
            dbase[c] = 0;
        }
    }
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = make_job(x, n);
    j.dd = pf_exec_data(x, n->in[2]);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.C, STRIP), grad_task, &j);
    return PEFT_OK;
}

static peft_status run_shift(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_token_shift_args *args = n->args;
    const pf_real *d = pf_exec_data(x, n->in[0]);
    pf_real *a = pf_exec_data(x, n->out[0]);
    const int64_t C = n->in[0]->cols;
    for (int64_t k = 0; k < n->in[0]->rows; k++) {
        pf_op_read_row(x, n->in[1], args->ids[k], a + k * C);
        for (int64_t c = 0; c < C; c++) a[k * C + c] = d[k * C + c] - a[k * C + c];
    }
    return PEFT_OK;
}

/* --- descriptors ------------------------------------------------------------------------------ */

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const double numbers = (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.bytes = 2 * numbers * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};
static const pf_kernel_row shift_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_shift}, {0}};

const pf_op pf_op_token_rows = {
    .name = "token_rows",
    .what = "y[i] = D[slot[id]] where the id has a slot, else base[i]",
    .args_size = sizeof(pf_token_rows_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_token_rows_grad = {
    .name = "token_rows_grad",
    .what = "dD[slot[id]] += dy[i] in row order; dbase is dy with those rows zero",
    .args_size = sizeof(pf_token_rows_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = cost,
    .in_place = 1,
    .kernels = grad_kernels,
};

const pf_op pf_op_token_shift = {
    .name = "token_shift",
    .what = "A[k] = D[k] - W[ids[k]]",
    .args_size = sizeof(pf_token_shift_args),
    .flags = PF_OP_ALWAYS_SAVED,
    .shape = shift_shape,
    .vjp = shift_vjp,
    .cost = cost,
    .kernels = shift_kernels,
};
