/* dora.c - the ops dora_norm, dora_scale and dora_scale_grad: shapes, gradients, costs; see
 * dora.h. What the backward pass reads is v; y is made again from it where it is wanted. */
#include "ops/matmul/dora.h"

#include "ops/matmul/dora_kernels.h"
#include "ops/op_util.h"

peft_status pf_dora_norm(pf_graph *g, const char *name, pf_value *w, pf_value *squares, pf_value *a,
                         pf_value *b, pf_value *a0, pf_value *b0, const pf_dora_norm_args *args,
                         pf_value **inverse, peft_error *err) {
    pf_value *in[PF_DORA_INPUTS] = {w, squares, a, b, a0, b0};
    return pf_op_emit(g, "dora_norm", name, args, in, PF_DORA_INPUTS, inverse, err);
}

peft_status pf_dora_scale(pf_graph *g, const char *name, pf_value *v, pf_value *m,
                          pf_value *inverse, pf_value **y, peft_error *err) {
    pf_value *in[3] = {v, m, inverse};
    return pf_op_emit(g, "dora_scale", name, NULL, in, 3, y, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static peft_status check_pair(const pf_value *a, const pf_value *b, int64_t in, int64_t out,
                              peft_error *err) {
    if (a->kind != PF_VALUE_PARAM || b->kind != PF_VALUE_PARAM)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "A and B have to be parameters");
    if (a->cols == in && b->rows == out && a->rows == b->cols) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE,
                   "A is %lld x %lld and B %lld x %lld, but W has %lld inputs "
                   "and %lld outputs",
                   (long long)a->rows, (long long)a->cols, (long long)b->rows, (long long)b->cols,
                   (long long)in, (long long)out);
}

static peft_status norm_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_dora_norm_args *args = n->args;
    const pf_value *w = n->in[PF_DORA_W], *squares = n->in[PF_DORA_SQUARES];
    const int64_t out = args->by_column ? w->cols : w->rows;
    const int64_t in = args->by_column ? w->rows : w->cols;
    if (squares->rows != 1 || squares->cols != out)
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld sums of squares for %lld outputs",
                       (long long)squares->cols, (long long)out);
    PF_TRY(check_pair(n->in[PF_DORA_A], n->in[PF_DORA_B], in, out, err));
    if (n->in[PF_DORA_A0] != NULL)
        PF_TRY(check_pair(n->in[PF_DORA_A0], n->in[PF_DORA_B0], in, out, err));
    pf_graph_out(g, n, PF_SPACE_NONE, 1, out);
    return PEFT_OK;
}

static peft_status check_scale(const pf_value *v, const pf_value *m, const pf_value *inverse,
                               peft_error *err) {
    if (m->rows == 1 && inverse->rows == 1 && m->cols == v->cols && inverse->cols == v->cols)
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE,
                   "v has %lld columns, but there are %lld magnitudes and %lld "
                   "norms",
                   (long long)v->cols, (long long)m->cols, (long long)inverse->cols);
}

static peft_status scale_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check_scale(n->in[0], n->in[1], n->in[2], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status scale_grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_dora_scale_grad_args *args = n->args;
    PF_TRY(check_scale(n->in[0], n->in[2], n->in[3], err));
    if (args->want_dv) pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

/* --- gradients -------------------------------------------------------------------------------- */

static peft_status scale_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *v = n->in[0], *m = n->in[1];
    const pf_dora_scale_grad_args args = {pf_grad_wanted(v)};
    pf_value *in[5] = {pf_grad_of(ad, n->out[0]), NULL, m, NULL, NULL};
    if (pf_grad_wanted(m)) {
        PF_TRY(pf_op_need(ad, v, &in[1], err));
        in[4] = pf_grad_sink(ad, m);
    }
    PF_TRY(pf_op_need(ad, n->in[2], &in[3], err));
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "dora_scale_grad", n->name, &args, in, 5, &grad, err));
    return args.want_dv ? pf_grad_give(ad, v, grad->out[0], err) : PEFT_OK;
}

/* --- costs, descriptors ----------------------------------------------------------------------- */

static pf_cost norm_cost(const pf_node *n, const int64_t *rows) {
    (void)rows;
    const pf_value *w = n->in[PF_DORA_W];
    const double r = (double)n->in[PF_DORA_A]->rows, size = (double)w->rows * (double)w->cols;
    const double bytes =
        w->kind == PF_VALUE_WEIGHT ? (double)pf_weight_bytes(w->weight) : size * sizeof(pf_real);
    return (pf_cost){.flops = 2 * r * size, .bytes = bytes};
}

static pf_cost scale_cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

static pf_cost scale_grad_cost(const pf_node *n, const int64_t *rows) {
    const double numbers = (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.flops = 3 * numbers, .bytes = 3 * numbers * sizeof(pf_real)};
}

const pf_op pf_op_dora_norm = {
    .name = "dora_norm",
    .what = "1 / |W + s (B A - B0 A0)| per output (Liu et al. 2024, arXiv 2402.09353)",
    .args_size = sizeof(pf_dora_norm_args),
    .flags = PF_OP_ALWAYS_SAVED,
    .shape = norm_shape,
    .workspace = pf_dora_norm_workspace,
    .cost = norm_cost,
    .kernels = pf_dora_norm_kernel_rows,
};

const pf_op pf_op_dora_scale = {
    .name = "dora_scale",
    .what = "y = v * m * inverse, per column",
    .flags = PF_OP_CHEAP,
    .shape = scale_shape,
    .vjp = scale_vjp,
    .workspace = pf_dora_scale_workspace,
    .cost = scale_cost,
    .in_place = 1,
    .kernels = pf_dora_scale_kernel_rows,
};

const pf_op pf_op_dora_scale_grad = {
    .name = "dora_scale_grad",
    .what = "dv = dy * m * inverse, dm += inverse * sum of dy * v over the rows, rows in order",
    .args_size = sizeof(pf_dora_scale_grad_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = scale_grad_shape,
    .workspace = pf_dora_scale_workspace,
    .cost = scale_grad_cost,
    .in_place = 1,
    .kernels = pf_dora_scale_grad_kernel_rows,
};
