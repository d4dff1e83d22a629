/* linear.c - the ops linear, linear_grad_x and linear_grad_w: shapes and gradients; see linear.h.
 * The arithmetic is gemm.c's, the launchers are in linear_cpu.c. */
#include "ops/matmul/linear.h"

#include "base/str.h"
#include "graph/fusion.h"
#include "ops/matmul/gemm.h"
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

/* The ops that multiply by frozen matrices in the graph's type. */
static bool multiplies(const pf_node *n) {
    static const char *const names[] = {"linear", "linear_grad_x", "head_ce", "head_ce_grad"};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_streq(n->op->name, names[i])) return true;
    }
    return false;
}

static peft_status prepare_weight(pf_graph *g, pf_value *w, pf_pool *pool, peft_error *err) {
    if (w == NULL || w->kind != PF_VALUE_WEIGHT || w->rows < 2 || w->row_scale != NULL)
        return PEFT_OK;
    scales s = {w->weight, PF_NEW_ARRAY(&g->arena, float, w->rows)};
    PF_CHECK_ALLOC(s.scale, err);
    pf_pool_run(pool, (int)pf_ceil_div(w->rows, ROWS_A_TASK), scales_task, &s);
    w->row_scale = s.scale;
    return PEFT_OK;
}

peft_status pf_linear_prepare(pf_graph *g, pf_pool *pool, peft_error *err) {
    if (g->compute != PF_COMPUTE_INT8) return PEFT_OK;
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        for (int k = 0; k < n->n_in && multiplies(n); k++)
            PF_TRY(prepare_weight(g, n->in[k], pool, err));
    }
    return PEFT_OK;
}
#endif

static peft_status check_matrix(const pf_value *v, const char *name, peft_error *err) {
    if (v->space == PF_SPACE_NONE) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "%s has to be a weight, not rows of a batch", name);
}

/* x (R, in); of each product w (out, in), bias (1, out) or NULL */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0];
    for (int p = 0; p < pf_linear_products(n); p++) {
        const pf_value *w = pf_linear_w(n, p), *bias = pf_linear_bias(n, p);
        PF_TRY(check_matrix(w, "the matrix", err));
        if (x->cols != w->cols) {
            return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, but the weight is %lld x %lld",
                           (long long)x->cols, (long long)w->rows, (long long)w->cols);
        }
        if (bias != NULL && (bias->rows != 1 || bias->cols != w->rows)) {
            return PF_FAIL(err, PEFT_E_SHAPE, "the bias has %lld numbers, the weight %lld rows",
                           (long long)(bias->rows * bias->cols), (long long)w->rows);
        }
        PF_CHECK_ALLOC(pf_graph_out(g, n, x->space, x->rows, w->rows), err);
    }
    return PEFT_OK;
}

/* dW: into the block of a trained matrix, or a value for the nodes that made the matrix */
static peft_status give_matrix(pf_autodiff *ad, pf_node *n, pf_value *dy, pf_value *w,
                               peft_error *err) {
    pf_graph *g = pf_grad_graph(ad);
    pf_value *in[3] = {dy}, *dw;
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    if (w->kind == PF_VALUE_PARAM) {
        in[2] = pf_grad_sink(ad, w);
        return pf_graph_emit(g, "linear_grad_w", n->name, NULL, in, 3, NULL, err);
    }
    in[2] = pf_grad_take(ad, w);
    PF_TRY(pf_op_emit(g, "linear_dw", n->name, NULL, in, 3, &dw, err));
    return pf_grad_give(ad, w, dw, err);
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_graph *g = pf_grad_graph(ad);
    pf_value *x = n->in[0], *dx, *in_x[1 + 2 * PF_GEMM_SET] = {NULL};
    int n_in = 1;
    for (int p = 0; p < pf_linear_products(n); p++) {
        pf_value *w = pf_linear_w(n, p), *bias = pf_linear_bias(n, p);
        pf_value *dy = pf_grad_of(ad, n->out[p]);
        if (dy == NULL) continue; /* nothing depends on this one */
        if (pf_grad_wanted(w)) PF_TRY(give_matrix(ad, n, dy, w, err));
        if (pf_grad_wanted(bias)) {
            pf_value *in[2] = {dy, pf_grad_sink(ad, bias)};
            PF_TRY(
                pf_graph_emit(g, "bias_grad", n->name, &(pf_add_bias_args){1}, in, 2, NULL, err));
        }
        in_x[n_in++] = dy;
        PF_TRY(pf_op_need(ad, w, &in_x[n_in++], err));
    }
    if (!pf_grad_wanted(x) || n_in == 1) return PEFT_OK;
    in_x[0] = pf_grad_take(ad, x);
    PF_TRY(pf_op_emit(g, "linear_grad_x", n->name, n->args, in_x, n_in, &dx, err));
    return pf_grad_give(ad, x, dx, err);
}

/* acc (R, in) or NULL; of each product dy (R, out), w (out, in) */
static peft_status grad_x_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *acc = n->in[0], *first = pf_linear_grad_w(n, 0);
    for (int p = 0; p < pf_linear_products(n); p++) {
        const pf_value *dy = pf_linear_grad_dy(n, p), *w = pf_linear_grad_w(n, p);
        if (dy->cols != w->rows || w->cols != first->cols ||
            (acc != NULL && acc->cols != w->cols)) {
            return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns, but the weight is %lld x %lld",
                           (long long)dy->cols, (long long)w->rows, (long long)w->cols);
        }
    }
    const pf_value *dy = pf_linear_grad_dy(n, 0);
    PF_CHECK_ALLOC(pf_graph_out(g, n, dy->space, dy->rows, first->cols), err);
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

/* dy (R, out), x (R, in), acc (out, in) or NULL -> dW (out, in) */
static peft_status dw_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *dy = n->in[0], *x = n->in[1], *acc = n->in[2];
    if (dy->space != x->space || (acc != NULL && (acc->rows != dy->cols || acc->cols != x->cols)))
        return PF_FAIL(err, PEFT_E_SHAPE, "dy, x and the gradient so far do not fit together");
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, dy->cols, x->cols), err);
    return PEFT_OK;
}

static double matrix_bytes(const pf_value *w) {
    if (w->kind == PF_VALUE_WEIGHT) return (double)pf_weight_bytes(w->weight);
    return (double)w->rows * (double)w->cols * sizeof(pf_real);
}

/* R rows against one matrix more. */
static void add_cost(pf_cost *c, double R, const pf_value *w, int64_t new_cols) {
    c->flops += 2 * R * (double)w->cols * (double)w->rows;
    c->bytes += matrix_bytes(w) + R * (double)new_cols * sizeof(pf_real);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const double R = (double)pf_value_rows(n->in[0], rows);
    pf_cost c = {.bytes = R * (double)n->in[0]->cols * sizeof(pf_real)};
    for (int p = 0; p < pf_linear_products(n); p++)
        add_cost(&c, R, pf_linear_w(n, p), n->out[p]->cols);
    return c;
}

static pf_cost grad_x_cost(const pf_node *n, const int64_t *rows) {
    const double R = (double)pf_value_rows(n->out[0], rows);
    pf_cost c = {.bytes = R * (double)n->out[0]->cols * sizeof(pf_real)};
    for (int p = 0; p < pf_linear_products(n); p++)
        add_cost(&c, R, pf_linear_grad_w(n, p), pf_linear_grad_dy(n, p)->cols);
    return c;
}

static pf_cost grad_w_cost(const pf_node *n, const int64_t *rows) {
    const pf_value *dw = n->n_out > 0 ? n->out[0] : n->in[2];
    double R = (double)pf_value_rows(n->in[0], rows), in = (double)dw->cols, out = (double)dw->rows;
    return (pf_cost){.flops = 2 * R * in * out,
                     .bytes = (2 * in * out + R * (in + out)) * sizeof(pf_real)};
}

const pf_op pf_op_linear = {
    .name = "linear",
    .what = "y = x Wᵀ (+ bias) for every W that shares x",
    .args_size = sizeof(pf_linear_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_linear_workspace,
    .cost = cost,
    .kernels = pf_linear_kernel_rows,
};

const pf_op pf_op_linear_grad_x = {
    .name = "linear_grad_x",
    .what = "dx = sum of dy W (+ acc)",
    .args_size = sizeof(pf_linear_args),
    .shape = grad_x_shape,
    .workspace = pf_linear_grad_workspace,
    .cost = grad_x_cost,
    .in_place = 1,
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

const pf_op pf_op_linear_dw = {
    .name = "linear_dw",
    .what = "dW = dyᵀ x (+ acc) of a matrix that nodes make",
    .shape = dw_shape,
    .workspace = pf_linear_grad_workspace,
    .cost = grad_w_cost,
    .in_place = 3,
    .kernels = pf_linear_dw_kernel_rows,
};

/* --- fusion ---------------------------------------------------------------------------------- */

/* All products of one x with frozen weights become one node, where the first of them stands. */
static peft_status group(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *first = g->nodes[i], *old[PF_GEMM_SET];
    if (first->op != &pf_op_linear || first->n_out > 1 || first->in[1]->kind != PF_VALUE_WEIGHT)
        return PEFT_OK; /* the new node takes the place of the first */
    pf_value *in[1 + 2 * PF_GEMM_SET] = {first->in[0]}, *out[PF_GEMM_SET];
    int count = 0;
    for (pf_node *n = first; n != NULL && count < PF_GEMM_SET;
         n = pf_fusion_next_use(first->in[0], n)) {
        if (n->op != first->op || n->n_out > 1 || n->in[0] != first->in[0] ||
            n->block != first->block || n->in[1]->kind != PF_VALUE_WEIGHT)
            continue;
        if (n->in[2] != NULL && n->in[2]->kind == PF_VALUE_ACT) continue; /* made in between */
        in[1 + 2 * count] = n->in[1];
        in[2 + 2 * count] = n->in[2];
        out[count] = n->out[0];
        old[count++] = n;
    }
    if (count < 2) return PEFT_OK;
    *done = true;
    return pf_fusion_replace(g, "linear", first->args, in, 1 + 2 * count, out, count, old, count,
                             first, err);
}

const pf_fusion_rule pf_fusion_linear_group = {.name = "linear_group", .apply = group};
