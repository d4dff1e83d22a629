/* lowrank.c - the ops lowrank and lowrank_grad: shapes and gradients; see lowrank.h. */
#include "ops/matmul/lowrank.h"
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

peft_status pf_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *x, pf_value *a,
                       pf_value *b, const pf_lowrank_args *args, pf_value **y, peft_error *err) {
    pf_value *in[4] = {base, x, a, b};
    return pf_op_emit(g, "lowrank", name, args, in, 4, y, err);
}

/* base (R, out), x (R, in), a (r, in), b (out, r) */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *base = n->in[0], *x = n->in[1], *a = n->in[2], *b = n->in[3];
    const pf_lowrank_args *args = n->args;
    if (a->cols != x->cols || b->rows != base->cols || a->rows != b->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "A is %lld x %lld and B %lld x %lld, but x has %lld columns and y %lld",
                       (long long)a->rows, (long long)a->cols, (long long)b->rows,
                       (long long)b->cols, (long long)x->cols, (long long)base->cols);
    }
    if (x->space != base->space || x->rows != base->rows)
        return PF_FAIL(err, PEFT_E_SHAPE, "x and the base's result have different rows");
    if (!(args->dropout >= 0 && args->dropout < 1))
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout is %g; it has to be in [0, 1)", args->dropout);
    if (args->dropout > 0 && x->space == PF_SPACE_NONE)
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout needs rows of a batch");
    pf_op_out_like(g, n, base);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_lowrank_args *f = n->args;
    pf_value *x = n->in[1], *a = n->in[2], *b = n->in[3], *dy = pf_grad_of(ad, n->out[0]);
    const pf_lowrank_grad_args args = {f->scale,   f->dropout,    f->seed,          f->mask_key,
                                       f->adapter, f->adapter_id, pf_grad_wanted(x)};
    if (args.want_dx || pf_grad_wanted(a) || pf_grad_wanted(b)) {
        pf_value *again, *in[7] = {dy, NULL, a, b, NULL, NULL, NULL};
        PF_TRY(pf_op_need(ad, x, &again, err));
        in[1] = again;
        if (args.want_dx) in[4] = pf_grad_take(ad, x);
        if (pf_grad_wanted(a)) in[5] = pf_grad_sink(ad, a);
        if (pf_grad_wanted(b)) in[6] = pf_grad_sink(ad, b);
        pf_node *grad;
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "lowrank_grad", n->name, &args, in, 7, &grad, err));
        if (args.want_dx) PF_TRY(pf_grad_give(ad, x, grad->out[0], err));
    }
    return pf_grad_give(ad, n->in[0], dy, err);
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *dy = n->in[0], *x = n->in[1], *a = n->in[2], *b = n->in[3];
    const pf_lowrank_grad_args *args = n->args;
    if (a->cols != x->cols || b->rows != dy->cols || a->rows != b->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "A is %lld x %lld, B %lld x %lld, dy has %lld columns",
                       (long long)a->rows, (long long)a->cols, (long long)b->rows,
                       (long long)b->cols, (long long)dy->cols);
    if (args->want_dx) pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    double R = (double)pf_value_rows(n->in[1], rows), r = (double)n->in[2]->rows;
    double in = (double)n->in[1]->cols, out = (double)n->in[0]->cols;
    return (pf_cost){.flops = 2 * R * r * (in + out),
                     .bytes = (R * (in + 2 * out) + r * (in + out)) * sizeof(pf_real)};
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    const pf_lowrank_grad_args *args = n->args;
    double R = (double)pf_value_rows(n->in[1], rows), r = (double)n->in[2]->rows;
    double in = (double)n->in[1]->cols, out = (double)n->in[0]->cols;
    double products = out; /* dS = dy B; then, as wanted, S and dB, dA, dx */
    if (n->in[6] != NULL) products += in + out;
    if (n->in[5] != NULL) products += in;
    if (args->want_dx) products += in;
    return (pf_cost){.flops = 2 * R * r * products,
                     .bytes = (2 * R * (in + out) + R * in + 2 * r * (in + out)) * sizeof(pf_real)};
}

const pf_op pf_op_lowrank = {
    .name = "lowrank",
    .what = "y = base + scale drop(x) Aᵀ Bᵀ (Hu et al. 2021, arXiv 2106.09685, section 4.1)",
    .args_size = sizeof(pf_lowrank_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_lowrank_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_lowrank_kernel_rows,
};

const pf_op pf_op_lowrank_grad = {
    .name = "lowrank_grad",
    .what = "dA += scale (dy B)ᵀ drop(x), dB += scale dyᵀ (drop(x) Aᵀ), dx = drop(scale dy B A) "
            "(+ acc)",
    .args_size = sizeof(pf_lowrank_grad_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = pf_lowrank_grad_workspace,
    .cost = grad_cost,
    .in_place = 5,
    .kernels = pf_lowrank_grad_kernel_rows,
};
