/* silu.c - y = x s(x), s the logistic function (Elfwing et al. 2017, arXiv 1702.03118). Kernels:
 * elementwise.h. */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

peft_status pf_silu(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err) {
    return pf_op_emit(g, "silu", name, NULL, &x, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])};
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    pf_value *dx;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "silu_grad", n->name, NULL, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 16);
}

const pf_op pf_op_silu = {
    .name = "silu",
    .what = "y = x / (1 + exp(-x))",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_silu_kernels,
};

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "x", err));
    pf_op_out_like(g, n, n->in[1]);
    return PEFT_OK;
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 20);
}

const pf_op pf_op_silu_grad = {
    .name = "silu_grad",
    .what = "dx = dy s (1 + x (1 - s)), s = 1 / (1 + exp(-x))",
    .shape = grad_shape,
    .cost = grad_cost,
    .in_place = 1,
    .kernels = pf_silu_grad_kernels,
};
