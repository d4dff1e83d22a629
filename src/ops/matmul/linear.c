/* linear.c - the ops linear, linear_grad_x and linear_grad_w: shapes and gradients; see linear.h.
 * The arithmetic is gemm.c's, the launchers are in linear_cpu.c. */
#include "ops/matmul/linear.h"

#include "base/str.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/matmul/narrow.h"
#include "ops/op_util.h"

peft_status pf_linear(pf_graph *g, const char *name, pf_value *x, pf_value *w, pf_value *bias,
                      pf_value **y, peft_error *err) {
    pf_value *in[3] = {x, w, bias};
    const pf_linear_args args = {pf_linear_compute(g, w)};
    return pf_op_emit(g, "linear", name, &args, in, 3, y, err);
}

#ifndef PF_DOUBLE
typedef struct scales {
    const pf_weight *w;
    float *scale;
} scales;

enum { ROWS_A_TASK = 64 };

static void scales_task(void *ctx, int task, int worker) {
    (void)worker;
    const scales *s = ctx;
    const int64_t first = (int64_t)task * ROWS_A_TASK;
    pf_narrow_scales(s->w, first, pf_min_i64(ROWS_A_TASK, s->w->rows - first), s->scale + first);
}

/* The ops whose second input is a matrix for narrow products. */
static bool multiplies(const pf_node *n) {
    static const char *const names[] = {"linear", "linear_grad_x", "head_ce", "head_ce_grad"};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_streq(n->op->name, names[i])) return true;
    }
    return false;
}

peft_status pf_linear_prepare(pf_graph *g, pf_pool *pool, peft_error *err) {
    if (g->compute != PF_COMPUTE_INT8) return PEFT_OK;
    for (int i = 0; i < g->n_nodes; i++) {
        if (!multiplies(g->nodes[i])) continue;
        pf_value *w = g->nodes[i]->in[1];
        if (w->kind != PF_VALUE_WEIGHT || w->row_scale != NULL) continue;
        scales s = {w->weight, PF_NEW_ARRAY(&g->arena, float, w->rows)};
        PF_CHECK_ALLOC(s.scale, err);
        pf_pool_run(pool, (int)pf_ceil_div(w->rows, ROWS_A_TASK), scales_task, &s);
        w->row_scale = s.scale;
    }
    return PEFT_OK;
}
#endif

static peft_status check_matrix(const pf_value *v, const char *name, peft_error *err) {
    if (v->space == PF_SPACE_NONE) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "%s has to be a weight, not rows of a batch", name);
}

/* x (R, in), w (out, in), bias (1, out) or NULL */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0], *w = n->in[1], *bias = n->in[2];
    PF_TRY(check_matrix(w, "the matrix", err));
    if (x->cols != w->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, but the weight is %lld x %lld",
                       (long long)x->cols, (long long)w->rows, (long long)w->cols);
    }
    if (bias != NULL && (bias->rows != 1 || bias->cols != w->rows)) {
        return PF_FAIL(err, PEFT_E_SHAPE, "the bias has %lld numbers, the weight %lld rows",
                       (long long)(bias->rows * bias->cols), (long long)w->rows);
    }
    pf_graph_out(g, n, x->space, x->rows, w->rows);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_graph *g = pf_grad_graph(ad);
    pf_value *x = n->in[0], *w = n->in[1], *bias = n->in[2], *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(w)) {
        pf_value *again;
        PF_TRY(pf_op_need(ad, x, &again, err));
        pf_value *in[3] = {dy, again, pf_grad_sink(ad, w)};
        PF_TRY(pf_graph_emit(g, "linear_grad_w", n->name, NULL, in, 3, NULL, err));
    }
    if (pf_grad_wanted(bias)) {
        pf_value *in[2] = {dy, pf_grad_sink(ad, bias)};
        PF_TRY(pf_graph_emit(g, "bias_grad", n->name, NULL, in, 2, NULL, err));
    }
    if (!pf_grad_wanted(x)) return PEFT_OK;
    pf_value *dx, *in[3] = {dy, w, pf_grad_take(ad, x)};
    PF_TRY(pf_op_emit(g, "linear_grad_x", n->name, n->args, in, 3, &dx, err));
    return pf_grad_give(ad, x, dx, err);
}

/* dy (R, out), w (out, in), acc (R, in) or NULL */
static peft_status grad_x_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *dy = n->in[0], *w = n->in[1], *acc = n->in[2];
    if (dy->cols != w->rows || (acc != NULL && acc->cols != w->cols)) {
        return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns, but the weight is %lld x %lld",
                       (long long)dy->cols, (long long)w->rows, (long long)w->cols);
    }
    pf_graph_out(g, n, dy->space, dy->rows, w->cols);
    return PEFT_OK;
}

/* dy (R, out), x (R, in), dW (out, in) */
static peft_status grad_w_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    const pf_value *dy = n->in[0], *x = n->in[1], *dw = n->in[2];
    if (dy->cols == dw->rows && x->cols == dw->cols && dy->space == x->space) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns and x %lld, but dW is %lld x %lld",
                   (long long)dy->cols, (long long)x->cols, (long long)dw->rows,
                   (long long)dw->cols);
}

static double matrix_bytes(const pf_value *w) {
    if (w->kind == PF_VALUE_WEIGHT) return (double)pf_weight_bytes(w->weight);
    return (double)w->rows * (double)w->cols * sizeof(pf_real);
}

/* Both are linear and linear_grad_x: rows against one matrix. */
static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const pf_value *w = n->in[1];
    double R = (double)pf_value_rows(n->in[0], rows), in = (double)w->cols, out = (double)w->rows;
    double touched = R * (double)n->in[0]->cols + R * (double)n->out[0]->cols;
    return (pf_cost){.flops = 2 * R * in * out,
                     .bytes = matrix_bytes(w) + touched * sizeof(pf_real)};
}

static pf_cost grad_w_cost(const pf_node *n, const int64_t *rows) {
    const pf_value *dw = n->in[2];
    double R = (double)pf_value_rows(n->in[0], rows), in = (double)dw->cols, out = (double)dw->rows;
    return (pf_cost){.flops = 2 * R * in * out,
                     .bytes = (2 * in * out + R * (in + out)) * sizeof(pf_real)};
}

const pf_op pf_op_linear = {
    .name = "linear",
    .what = "y = x Wᵀ (+ bias)",
    .args_size = sizeof(pf_linear_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_linear_workspace,
    .cost = cost,
    .kernels = pf_linear_kernel_rows,
};

const pf_op pf_op_linear_grad_x = {
    .name = "linear_grad_x",
    .what = "dx = dy W (+ acc)",
    .args_size = sizeof(pf_linear_args),
    .shape = grad_x_shape,
    .workspace = pf_linear_grad_workspace,
    .cost = cost,
    .in_place = 3,
    .kernels = pf_linear_grad_x_kernel_rows,
};

const pf_op pf_op_linear_grad_w = {
    .name = "linear_grad_w",
    .what = "dW += dyᵀ x, rows in order",
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_w_shape,
    .workspace = pf_linear_grad_workspace,
    .cost = grad_w_cost,
    .kernels = pf_linear_grad_w_kernel_rows,
};
