/* embed_lowrank.c - the ops embed_lowrank and embed_lowrank_grad: LoRA on an embedding; see
 * embed.h. The gradient of the base passes through; token ids have none. */
#include "ops/embed/embed.h"
#include "ops/embed/embed_lowrank_kernels.h"
#include "ops/op_util.h"

peft_status pf_embed_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *a,
                             pf_value *b, double scale, pf_value **y, peft_error *err) {
    const pf_embed_lowrank_args args = {.scale = scale};
    pf_value *in[3] = {base, a, b};
    return pf_op_emit(g, "embed_lowrank", name, &args, in, 3, y, err);
}

/* base (T, C), a (r, V), b (C, r) */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *base = n->in[0], *a = n->in[1], *b = n->in[2];
    if (base->space != PF_SPACE_TOKENS && base->space != PF_SPACE_SOURCE)
        return PF_FAIL(err, PEFT_E_SHAPE, "base has to have one row per token");
    if (b->rows != base->cols || a->rows != b->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "A is %lld x %lld and B %lld x %lld, but the embedding has %lld columns",
                       (long long)a->rows, (long long)a->cols, (long long)b->rows,
                       (long long)b->cols, (long long)base->cols);
    }
    pf_op_out_like(g, n, base);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *a = n->in[1], *b = n->in[2], *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(a) || pf_grad_wanted(b)) {
        pf_value *in[5] = {dy, a, b, NULL, NULL};
        if (pf_grad_wanted(a)) in[3] = pf_grad_sink(ad, a);
        if (pf_grad_wanted(b)) in[4] = pf_grad_sink(ad, b);
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "embed_lowrank_grad", n->name, n->args, in, 5, NULL,
                             err));
    }
    return pf_grad_give(ad, n->in[0], dy, err);
}

/* dy (T, C), a, b, dA or NULL, dB or NULL */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    if (n->in[0]->cols == n->in[2]->rows) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "dy has %lld columns, B %lld rows", (long long)n->in[0]->cols,
                   (long long)n->in[2]->rows);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    double T = (double)pf_value_rows(n->in[0], rows), r = (double)n->in[1]->rows;
    double C = (double)n->in[0]->cols;
    return (pf_cost){.flops = 2 * T * r * C, .bytes = 2 * T * C * sizeof(pf_real)};
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    pf_cost c = cost(n, rows);
    return (pf_cost){.flops = 2 * c.flops, .bytes = c.bytes};
}

const pf_op pf_op_embed_lowrank = {
    .name = "embed_lowrank",
    .what = "y[i] = base[i] + scale Aᵀ[ids[i]] Bᵀ",
    .args_size = sizeof(pf_embed_lowrank_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_embed_lowrank_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_embed_lowrank_kernel_rows,
};

const pf_op pf_op_embed_lowrank_grad = {
    .name = "embed_lowrank_grad",
    .what = "dA[:, ids[i]] += scale dy[i] B, dB += scale dyᵀ Aᵀ[ids], rows in order",
    .args_size = sizeof(pf_embed_lowrank_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = pf_embed_lowrank_grad_workspace,
    .cost = grad_cost,
    .kernels = pf_embed_lowrank_grad_kernel_rows,
};
