/* turn.c - the op turn: y = xᵀ of fixed rows; see made.h. Its gradient is itself. */
#include "ops/made/made.h"
#include "ops/op_util.h"

peft_status pf_turn(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err) {
    return pf_op_emit(g, "turn", name, NULL, &x, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0];
    if (x->space != PF_SPACE_NONE)
        return PF_FAIL(err, PEFT_E_SHAPE, "x has to be a matrix, not rows of a batch");
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, x->cols, x->rows), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dx;
    PF_TRY(pf_turn(pf_grad_graph(ad), n->name, pf_grad_of(ad, n->out[0]), &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const int64_t rows = n->in[0]->rows, cols = n->in[0]->cols;
    const pf_real *from = pf_exec_data(x, n->in[0]);
    pf_real *to = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < cols; c++) to[c * rows + i] = from[i * cols + c];
    }
    return PEFT_OK;
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};

extern const pf_op pf_op_turn;

const pf_op pf_op_turn = {
    .name = "turn",
    .what = "y = x^T of a matrix",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .kernels = kernels,
};
