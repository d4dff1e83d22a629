/* embed.c - the ops embed and embed_grad: rows of a table by token id or
 * position; see embed.h. A frozen table
 * stays in the type that the file has: only the rows that are asked for are widened. */
#include "ops/embed/embed.h"
#include "ops/op_util.h"

peft_status pf_embed(pf_graph *g, const char *name, pf_value *w, pf_value **y, peft_error *err) {
    return pf_embed_rows(g, name, w, PF_SPACE_TOKENS, y, err);
}

peft_status pf_embed_rows(pf_graph *g, const char *name, pf_value *w, pf_space space, pf_value **y,
                          peft_error *err) {
    const pf_embed_args args = {.space = (int)space};
    return pf_op_emit(g, "embed", name, &args, &w, 1, y, err);
}

peft_status pf_embed_positions(pf_graph *g, const char *name, pf_value *w, pf_space space,
                               int32_t offset, pf_value **y, peft_error *err) {
    const pf_embed_args args = {.space = (int)space, .by_position = true, .offset = offset};
    return pf_op_emit(g, "embed", name, &args, &w, 1, y, err);
}

peft_status pf_embed_types(pf_graph *g, const char *name, pf_value *w, pf_value **y,
                           peft_error *err) {
    const pf_embed_args args = {.space = PF_SPACE_TOKENS, .by_type = true};
    return pf_op_emit(g, "embed", name, &args, &w, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *w = n->in[0];
    if (w->space != PF_SPACE_NONE)
        return PF_FAIL(err, PEFT_E_SHAPE, "the table has to be a weight");
    pf_graph_out(g, n, ((const pf_embed_args *)n->args)->space, 0, w->cols);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *w = n->in[0];
    if (!pf_grad_wanted(w)) return PEFT_OK;
    pf_value *in[2] = {pf_grad_of(ad, n->out[0]), pf_grad_sink(ad, w)};
    return pf_graph_emit(pf_grad_graph(ad), "embed_grad", n->name, n->args, in, 2, NULL, err);
}

/* dy, dW */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    const pf_value *dy = n->in[0], *dw = n->in[1];
    if (dy->cols == dw->cols && dy->space >= 0 && dy->space != PF_SPACE_LABELS) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns, the table has %lld",
                   (long long)dy->cols, (long long)dw->cols);
}

static int64_t row_of(const pf_embed_args *a, const pf_batch *b, int64_t i) {
    if (a->by_type) return b->type != NULL ? b->type[i] : 0;
    return a->by_position ? (int64_t)b->pos[i] + a->offset : b->ids[i];
}

static peft_status check_ids(const pf_embed_args *a, const pf_batch *b, int64_t vocab,
                             peft_error *err) {
    for (int32_t i = 0; i < b->n_tokens; i++) {
        const int64_t row = row_of(a, b, i);
        if (a->by_position && (row < 0 || row >= vocab)) {
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "a sample has a token at position %d, but this model has learned %lld "
                           "positions: shorten the samples (training.max_length)",
                           (int)b->pos[i], (long long)(vocab - a->offset));
        }
        if (row < 0 || row >= vocab) {
            return PF_FAIL(err, PEFT_E_SHAPE, "token row %d has id %d, the table has %lld rows",
                           (int)i, (int)b->ids[i], (long long)vocab);
        }
    }
    return PEFT_OK;
}

typedef struct job {
    const pf_embed_args *args;
    const pf_exec *x;
    const pf_batch *batch; /* whose rows these are */
    const pf_value *w;
    const pf_real *dy;
    pf_real *y, *dw;
    int64_t C, task_size;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_batch *b = j->batch;
    int64_t from = (int64_t)task * j->task_size, to = pf_min_i64(from + j->task_size, b->n_tokens);
    for (int64_t i = from; i < to; i++)
        pf_op_read_row(j->x, j->w, row_of(j->args, b, i), j->y + i * j->C);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_value *w = n->in[0];
    const pf_batch *b = pf_batch_of_space(x->batch, n->out[0]->space);
    PF_TRY(check_ids(n->args, b, w->rows, err));
    job j = {
        .args = n->args, .x = x, .batch = b, .w = w, .y = pf_exec_data(x, n->out[0]), .C = w->cols};
    j.task_size = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(b->n_tokens, j.task_size), run_task, &j);
    return PEFT_OK;
}

#define TASK_COLUMNS 64

/* A task owns columns, not rows: the same token may stand in several rows, and its sum goes in row
 * order. */
static void run_grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_batch *b = j->batch;
    int64_t from = (int64_t)task * TASK_COLUMNS, to = pf_min_i64(from + TASK_COLUMNS, j->C);
    for (int64_t i = 0; i < b->n_tokens; i++) {
        const pf_real *dy = j->dy + i * j->C;
        pf_real *dw = j->dw + row_of(j->args, b, i) * j->C;
        for (int64_t c = from; c < to; c++) dw[c] += dy[c];
    }
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_value *dw = n->in[1];
    const pf_batch *b = pf_batch_of_space(x->batch, n->in[0]->space);
    PF_TRY(check_ids(n->args, b, dw->rows, err));
    job j = {.args = n->args,
             .x = x,
             .batch = b,
             .dy = pf_exec_data(x, n->in[0]),
             .dw = pf_exec_data(x, dw),
             .C = dw->cols};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.C, TASK_COLUMNS), run_grad_task, &j);
    return PEFT_OK;
}

/* Only the rows that are picked are touched, not the table. */
static pf_cost cost(const pf_node *n, const int64_t *rows) {
    double picked = (double)pf_value_rows(n->out[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.bytes = 2 * picked * sizeof(pf_real)};
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    double picked = (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.flops = picked, .bytes = 3 * picked * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

const pf_op pf_op_embed = {
    .name = "embed",
    .what = "y[i] = W[ids[i]], or W[pos[i] + offset]",
    .args_size = sizeof(pf_embed_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_embed_grad = {
    .name = "embed_grad",
    .what = "dW[ids[i]] += dy[i], rows in order",
    .args_size = sizeof(pf_embed_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = grad_cost,
    .kernels = grad_kernels,
};
