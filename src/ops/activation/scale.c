/* scale.c - the ops scale, softcap and softcap_grad; see scale.h. */
#include "ops/activation/scale.h"

#include "ops/activation/scale_kernels.h"
#include "ops/op_util.h"

peft_status pf_scale(pf_graph *g, const char *name, pf_value *x, double a, pf_value **y,
                     peft_error *err) {
    const pf_scale_args args = {.by = a};
    *y = x;
    return a == 1 ? PEFT_OK : pf_op_emit(g, "scale", name, &args, &x, 1, y, err);
}

peft_status pf_softcap(pf_graph *g, const char *name, pf_value *x, double c, pf_value **y,
                       peft_error *err) {
    const pf_scale_args args = {.by = c};
    return pf_op_emit(g, "softcap", name, &args, &x, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_scale_args *args = n->args;
    if (!isfinite(args->by) || args->by == 0)
        return PF_FAIL(err, PEFT_E_SHAPE, "%g is no number to scale by", args->by);
    if (n->n_in == 2) PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "y", err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status scale_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_scale_args *args = n->args;
    pf_value *dx;
    PF_TRY(pf_scale(pf_grad_graph(ad), n->name, pf_grad_of(ad, n->out[0]), args->by, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status softcap_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])}, *dx;
    PF_TRY(pf_op_need(ad, n->out[0], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "softcap_grad", n->name, n->args, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

static pf_cost softcap_cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 24);
}

const pf_op pf_op_scale = {
    .name = "scale",
    .what = "y = a x",
    .args_size = sizeof(pf_scale_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = scale_vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_scale_kernels,
};

const pf_op pf_op_softcap = {
    .name = "softcap",
    .what = "y = c tanh(x / c)",
    .args_size = sizeof(pf_scale_args),
    .shape = shape,
    .vjp = softcap_vjp,
    .cost = softcap_cost,
    .in_place = 1,
    .kernels = pf_softcap_kernels,
};

const pf_op pf_op_softcap_grad = {
    .name = "softcap_grad",
    .what = "dx = dy (1 - (y / c)^2)",
    .args_size = sizeof(pf_scale_args),
    .shape = shape,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_softcap_grad_kernels,
};
