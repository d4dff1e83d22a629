/* rope.c - the ops rope_table and rope; see rope.h. A turn is undone by the turn back, so rope is
 * its own gradient and nothing of its input is kept. */
#include "ops/attention/rope.h"

#include "ops/attention/rope_kernels.h"
#include "ops/op_util.h"

peft_status pf_rope_table(pf_graph *g, const char *name, const pf_rope_table_args *args,
                          pf_value **table, peft_error *err) {
    return pf_op_emit(g, "rope_table", name, args, NULL, 0, table, err);
}

peft_status pf_rope(pf_graph *g, const char *name, pf_value *x, pf_value *table, int64_t head_dim,
                    pf_value **y, peft_error *err) {
    pf_rope_args args = {.head_dim = head_dim};
    pf_value *in[2] = {x, table};
    return pf_op_emit(g, "rope", name, &args, in, 2, y, err);
}

static peft_status table_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_rope_table_args *args = n->args;
    if (args->dim < 2 || args->dim % 2 != 0) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld columns cannot turn in pairs",
                       (long long)args->dim);
    }
    if (args->dynamic_factor != 0 && (args->original < 1 || args->dim < 4)) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "dynamic frequencies need an original length and four columns or more");
    }
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, args->dim);
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_rope_args *args = n->args;
    pf_value *x = n->in[0], *table = n->in[1];
    if (args->head_dim < 1 || x->cols % args->head_dim != 0 || table->cols > args->head_dim) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, a head %lld, of which %lld turn",
                       (long long)x->cols, (long long)args->head_dim, (long long)table->cols);
    }
    if (x->space != table->space)
        return PF_FAIL(err, PEFT_E_SHAPE, "x and the table have different rows");
    pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_rope_args *args = n->args;
    pf_rope_args back = {.head_dim = args->head_dim, .inverse = !args->inverse};
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])}, *dx;
    PF_TRY(pf_op_need(ad, n->in[1], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "rope", n->name, &back, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 3);
}
static pf_cost table_cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 40);
}

const pf_op pf_op_rope_table = {
    .name = "rope_table",
    .what = "cos and sin of pos * inv_freq, times the attention factor",
    .args_size = sizeof(pf_rope_table_args),
    .shape = table_shape,
    .cost = table_cost,
    .kernels = pf_rope_table_kernel_rows,
};

const pf_op pf_op_rope = {
    .name = "rope",
    .what = "(x1 cos - x2 sin, x2 cos + x1 sin) for the two halves of each head",
    .args_size = sizeof(pf_rope_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_rope_kernel_rows,
};
