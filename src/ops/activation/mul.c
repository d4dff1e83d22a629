/* mul.c - y = a b, element by element. Its gradients are products too: da = dy b, db = dy a.
 * Kernels: elementwise.h. */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

peft_status pf_mul(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err) {
    pf_value *in[2] = {a, b};
    return pf_op_emit(g, "mul", name, NULL, in, 2, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "a", n->in[1], "b", err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    for (int i = 0; i < 2; i++) {
        if (!pf_grad_wanted(n->in[i])) continue;
        pf_value *other, *d;
        PF_TRY(pf_op_need(ad, n->in[1 - i], &other, err));
        PF_TRY(pf_mul(pf_grad_graph(ad), n->name, dy, other, &d, err));
        PF_TRY(pf_grad_give(ad, n->in[i], d, err));
    }
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

const pf_op pf_op_mul = {
    .name = "mul",
    .what = "y = a * b, element by element",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_mul_kernels,
};
