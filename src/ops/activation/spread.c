/* spread.c - the ops spread, y[c] = s, and spread_grad, ds = sum of dy; see spread.h. */
#include "ops/activation/spread.h"

#include "ops/op_util.h"

typedef struct spread_args {
    int64_t cols;
} spread_args;

peft_status pf_spread(pf_graph *g, const char *name, pf_value *s, int64_t cols, pf_value **y,
                      peft_error *err) {
    const spread_args args = {cols};
    return pf_op_emit(g, "spread", name, &args, &s, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *s = n->in[0];
    if (s->space != PF_SPACE_NONE || s->rows != 1 || s->cols != 1)
        return PF_FAIL(err, PEFT_E_SHAPE, "s has to be one number");
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, 1, ((const spread_args *)n->args)->cols), err);
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, 1, 1), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]), *ds;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "spread_grad", n->name, NULL, &dy, 1, &ds, err));
    return pf_grad_give(ad, n->in[0], ds, err);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *s = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t c = 0; c < n->out[0]->cols; c++) y[c] = *s;
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *dy = pf_exec_data(x, n->in[0]);
    double sum = 0;
    for (int64_t c = 0; c < n->in[0]->cols; c++) sum += (double)dy[c];
    *pf_exec_data(x, n->out[0]) = (pf_real)sum;
    return PEFT_OK;
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad},
    {0},
};

extern const pf_op pf_op_spread, pf_op_spread_grad;

const pf_op pf_op_spread = {
    .name = "spread",
    .what = "y[c] = s",
    .args_size = sizeof(spread_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .kernels = kernels,
};

const pf_op pf_op_spread_grad = {
    .name = "spread_grad",
    .what = "ds = sum over c of dy[c]",
    .shape = grad_shape,
    .kernels = grad_kernels,
};
