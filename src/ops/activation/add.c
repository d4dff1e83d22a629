/* add.c - y = a + b. Its gradient is its output's, for both inputs. Kernels: elementwise.h. */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

peft_status pf_add(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err) {
    pf_value *in[2] = {a, b};
    return pf_op_emit(g, "add", name, NULL, in, 2, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "a", n->in[1], "b", err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    PF_TRY(pf_grad_give(ad, n->in[0], dy, err));
    return pf_grad_give(ad, n->in[1], dy, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

const pf_op pf_op_add = {
    .name = "add",
    .what = "y = a + b",
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_add_kernels,
};
