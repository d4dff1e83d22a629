/* swiglu.c - y = silu(gate) up (Shazeer 2020, arXiv 2002.05202), one pass instead of two. Models
 * emit silu and mul; the fusion rule below makes this of them. Kernels: elementwise.h. */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

#include "graph/fusion.h"

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "gate", n->in[1], "up", err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[3] = {pf_grad_of(ad, n->out[0])};
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    PF_TRY(pf_op_need(ad, n->in[1], &in[2], err));
    pf_node *d;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "swiglu_grad", n->name, NULL, in, 3, &d, err));
    PF_TRY(pf_grad_give(ad, n->in[0], d->out[0], err));
    return pf_grad_give(ad, n->in[1], d->out[1], err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 17);
}

const pf_op pf_op_swiglu = {
    .name = "swiglu",
    .what = "y = silu(gate) * up",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_swiglu_kernels,
};

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "gate", err));
    PF_TRY(pf_op_check_same(n->in[1], "gate", n->in[2], "up", err));
    pf_op_out_like(g, n, n->in[1]); /* dgate */
    pf_op_out_like(g, n, n->in[2]); /* dup */
    return PEFT_OK;
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 23);
}

const pf_op pf_op_swiglu_grad = {
    .name = "swiglu_grad",
    .what = "dgate = dy up s (1 + gate (1 - s)), dup = dy silu(gate)",
    .shape = grad_shape,
    .cost = grad_cost,
    .in_place = 1,
    .kernels = pf_swiglu_grad_kernels,
};

/* mul(silu(gate), up) or mul(up, silu(gate)) */
static peft_status fuse(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *silu = g->nodes[i];
    if (silu->op != &pf_op_silu) return PEFT_OK;
    pf_node *mul = pf_fusion_single_use(silu->out[0]);
    if (mul == NULL || mul->op != &pf_op_mul || mul->in[0] == mul->in[1]) return PEFT_OK;
    pf_value *up = mul->in[mul->in[0] == silu->out[0] ? 1 : 0];
    if (!pf_value_same_shape(silu->in[0], up)) return PEFT_OK;

    pf_value *in[2] = {silu->in[0], up};
    pf_node *old[2] = {silu, mul};
    *done = true;
    return pf_fusion_replace(g, "swiglu", NULL, in, 2, mul->out, 1, old, 2, mul, err);
}

const pf_fusion_rule pf_fusion_swiglu = {.name = "swiglu", .apply = fuse};
