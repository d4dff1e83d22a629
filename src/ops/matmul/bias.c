/* bias.c - the ops add_bias and bias_grad, and the fusion of linear + add_bias into a linear with a
 * bias, which adds it after the last term: the same bits. */
#include "ops/matmul/linear.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/op_util.h"

#include "base/str.h"
#include "graph/fusion.h"

enum { STRIP = 64 }; /* columns of a task of bias_grad */

peft_status pf_add_bias(pf_graph *g, const char *name, pf_value *x, pf_value *bias, pf_value **y,
                        peft_error *err) {
    return pf_add_scaled_bias(g, name, x, bias, 1, y, err);
}

peft_status pf_add_scaled_bias(pf_graph *g, const char *name, pf_value *x, pf_value *bias,
                               double scale, pf_value **y, peft_error *err) {
    const pf_add_bias_args args = {scale};
    pf_value *in[2] = {x, bias};
    return pf_op_emit(g, "add_bias", name, &args, in, 2, y, err);
}

/* x (R, C), bias (1, C) */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0], *bias = n->in[1];
    if (bias->space != PF_SPACE_NONE || bias->rows != 1 || bias->cols != x->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, the bias %lld x %lld numbers",
                       (long long)x->cols, (long long)bias->rows, (long long)bias->cols);
    }
    pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(n->in[1])) {
        pf_value *in[2] = {dy, pf_grad_sink(ad, n->in[1])};
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "bias_grad", n->name, n->args, in, 2, NULL, err));
    }
    return pf_grad_give(ad, n->in[0], dy, err);
}

/* dy (R, C), db (1, C) */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    if (n->in[1]->rows == 1 && n->in[0]->cols == n->in[1]->cols) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns, db %lld", (long long)n->in[0]->cols,
                   (long long)n->in[1]->cols);
}

typedef struct job {
    const pf_real *x, *bias;
    pf_real *y; /* of bias_grad: db */
    int64_t R, C, task_rows;
    pf_real scale;
} job;

static void add_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t C = j->C, to = pf_min_i64(j->R, (task + 1) * j->task_rows);
    for (int64_t i = task * j->task_rows; i < to; i++) {
        for (int64_t c = 0; c < C; c++) j->y[i * C + c] = j->x[i * C + c] + j->scale * j->bias[c];
    }
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->out[0]),
             .R = pf_exec_rows(x, n->in[0]),
             .C = n->in[0]->cols,
             .scale = (pf_real)((const pf_add_bias_args *)n->args)->scale};
    j.bias = pf_op_vector(x, n->in[1], (pf_real *)(void *)x->workspace);
    j.task_rows = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), add_task, &j);
    return PEFT_OK;
}

/* A task owns columns, so that the sum over rows goes in their order. */
static void sum_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t c0 = (int64_t)task * STRIP, n = pf_min_i64(STRIP, j->C - c0);
    pf_real sum[STRIP] = {0};
    for (int64_t i = 0; i < j->R; i++) {
        const pf_real *dy = j->x + i * j->C + c0;
        if (n == STRIP) {
            for (int c = 0; c < STRIP; c++) sum[c] += dy[c];
        } else {
            for (int64_t c = 0; c < n; c++) sum[c] += dy[c];
        }
    }
    for (int64_t c = 0; c < n; c++) j->y[c0 + c] += j->scale * sum[c];
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->in[1]),
             .R = pf_exec_rows(x, n->in[0]),
             .C = n->in[0]->cols,
             .scale = (pf_real)((const pf_add_bias_args *)n->args)->scale};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.C, STRIP), sum_task, &j);
    return PEFT_OK;
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    (void)n_workers;
    return pf_op_vector_scratch(n->in[1]);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    double numbers = (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.flops = numbers, .bytes = numbers * sizeof(pf_real)};
}

static peft_status fuse(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *linear = g->nodes[i];
    if (!pf_streq(linear->op->name, "linear") || linear->in[2] != NULL) return PEFT_OK;
    pf_node *add = pf_fusion_single_use(linear->out[0]);
    if (add == NULL || !pf_streq(add->op->name, "add_bias")) return PEFT_OK;
    if (((const pf_add_bias_args *)add->args)->scale != 1) return PEFT_OK;
    pf_value *in[3] = {linear->in[0], linear->in[1], add->in[1]};
    pf_value *out[1] = {add->out[0]};
    pf_node *old[2] = {linear, add};
    *done = true;
    return pf_fusion_replace(g, "linear", linear->args, in, 3, out, 1, old, 2, add, err);
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

const pf_op pf_op_add_bias = {
    .name = "add_bias",
    .what = "y = x + scale b",
    .args_size = sizeof(pf_add_bias_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_bias_grad = {
    .name = "bias_grad",
    .what = "db += scale * sum of the rows of dy, rows in order",
    .args_size = sizeof(pf_add_bias_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = grad_cost,
    .kernels = grad_kernels,
};

const pf_fusion_rule pf_fusion_linear_bias = {.name = "linear_bias", .apply = fuse};
