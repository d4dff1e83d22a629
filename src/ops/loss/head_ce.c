/* head_ce.c - the ops head_ce and head_ce_grad: shapes and gradients; see head_ce.h. */
#include "ops/loss/head_ce.h"
#include "ops/embed/token_rows.h"
#include "ops/loss/head_ce_kernels.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/op_util.h"

peft_status pf_head_ce(pf_graph *g, const char *name, pf_value *h, pf_value *w, pf_value *bias,
                       pf_value *a, pf_value *b, const pf_head_ce_args *args, pf_value **nll,
                       pf_value **correct, peft_error *err) {
    pf_head_ce_args all = args != NULL ? *args : (pf_head_ce_args){.scale = 1};
    all.compute = pf_linear_compute(g, w);
    pf_value *in[PF_HEAD_INPUTS] = {h, w, bias, a, b};
    pf_node *n;
    *nll = *correct = NULL;
    PF_TRY(pf_graph_emit(g, "head_ce", name, &all, in, PF_HEAD_INPUTS, &n, err));
    *nll = n->out[PF_HEAD_NLL];
    *correct = n->out[PF_HEAD_CORRECT];
    return PEFT_OK;
}

static bool is_trained(const pf_node *n) {
    for (int i = PF_HEAD_W; i <= PF_HEAD_B; i++) {
        if (n->in[i] != NULL && n->in[i]->needs_grad) return true;
    }
    return false;
}

static peft_status check_inputs(const pf_node *n, double dropout, double softcap, peft_error *err) {
    const pf_value *h = n->in[PF_HEAD_H], *w = n->in[PF_HEAD_W], *bias = n->in[PF_HEAD_BIAS];
    const pf_value *a = n->in[PF_HEAD_A], *b = n->in[PF_HEAD_B];
    if (!(softcap >= 0))
        return PF_FAIL(err, PEFT_E_SHAPE, "softcap %g has to be positive, or 0", softcap);
    if (h->space != PF_SPACE_LABELS)
        return PF_FAIL(err, PEFT_E_SHAPE, "h has to have one row per label entry");
    if (h->cols != w->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "h has %lld columns, but the head is %lld x %lld",
                       (long long)h->cols, (long long)w->rows, (long long)w->cols);
    if (bias != NULL && (bias->rows != 1 || bias->cols != w->rows))
        return PF_FAIL(err, PEFT_E_SHAPE, "the bias has %lld numbers, the head %lld rows",
                       (long long)(bias->rows * bias->cols), (long long)w->rows);
    if ((a != NULL) != (b != NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "the low-rank part needs both A and B");
    if (a == NULL) return PEFT_OK;
    if (pf_token_shift_param(a) == NULL || b->kind != PF_VALUE_PARAM)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "A and B have to be parameters");
    if (a->cols != w->cols || b->rows != w->rows || a->rows != b->cols)
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "A is %lld x %lld and B %lld x %lld, but the head is %lld x %lld",
                       (long long)a->rows, (long long)a->cols, (long long)b->rows,
                       (long long)b->cols, (long long)w->rows, (long long)w->cols);
    if (!(dropout >= 0 && dropout < 1))
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout is %g; it has to be in [0, 1)", dropout);
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_head_ce_args *args = n->args;
    PF_TRY(check_inputs(n, args->dropout, args->softcap, err));
    const bool want_unit = n->in[PF_HEAD_H]->needs_grad && !is_trained(n);
    for (int k = PF_HEAD_NLL; k <= (want_unit ? PF_HEAD_UNIT : PF_HEAD_LSE); k++) {
        const int64_t cols = k == PF_HEAD_UNIT ? n->in[PF_HEAD_H]->cols : 1;
        pf_value *v = pf_graph_out(g, n, PF_SPACE_LABELS, 0, cols);
        PF_CHECK_ALLOC(v, err);
        if (k != PF_HEAD_NLL) v->needs_grad = false; /* only the loss is differentiated */
    }
    return PEFT_OK;
}

/* Frozen: dh[e] = dnll[e] unit[e]. Trained: head_ce_grad makes the logits again. */
static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_graph *g = pf_grad_graph(ad);
    pf_value *h = n->in[PF_HEAD_H], *dnll = pf_grad_of(ad, n->out[PF_HEAD_NLL]), *dh;
    if (dnll == NULL) return PEFT_OK; /* nothing depends on the loss itself */
    if (n->n_out > PF_HEAD_UNIT) {
        pf_value *in[2] = {NULL, dnll};
        PF_TRY(pf_op_need(ad, n->out[PF_HEAD_UNIT], &in[0], err));
        PF_TRY(pf_op_emit(g, "scale_rows", n->name, NULL, in, 2, &dh, err));
        return pf_grad_give(ad, h, dh, err);
    }
    const pf_head_ce_args *f = n->args;
    const pf_head_ce_grad_args args = {f->scale,   f->dropout,        f->seed,   f->mask_key,
                                       f->softcap, pf_grad_wanted(h), f->compute};
    pf_value *in[PF_HEAD_GRAD_INPUTS] = {0};
    for (int i = PF_HEAD_W; i <= PF_HEAD_B; i++) {
        in[i] = n->in[i];
        if (pf_grad_wanted(n->in[i]))
            in[PF_HEAD_GRAD_DW + i - PF_HEAD_W] = pf_grad_sink(ad, pf_token_shift_param(n->in[i]));
    }
    PF_TRY(pf_op_need(ad, h, &in[PF_HEAD_H], err));
    in[PF_HEAD_GRAD_DNLL] = dnll;
    PF_TRY(pf_op_need(ad, n->out[PF_HEAD_LSE], &in[PF_HEAD_GRAD_LSE], err));
    if (args.want_dh) in[PF_HEAD_GRAD_ACC] = pf_grad_take(ad, h);
    pf_node *grad;
    PF_TRY(pf_graph_emit(g, "head_ce_grad", n->name, &args, in, PF_HEAD_GRAD_INPUTS, &grad, err));
    return args.want_dh ? pf_grad_give(ad, h, grad->out[0], err) : PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_head_ce_grad_args *args = n->args;
    PF_TRY(check_inputs(n, args->dropout, args->softcap, err));
    if (args->want_dh) pf_op_out_like(g, n, n->in[PF_HEAD_H]);
    return PEFT_OK;
}

static pf_cost cost_of(const pf_node *n, const int64_t *rows, double dense_products,
                       double lowrank_products) {
    const pf_value *w = n->in[PF_HEAD_W], *a = n->in[PF_HEAD_A];
    double E = (double)rows[PF_SPACE_LABELS], V = (double)w->rows, C = (double)w->cols;
    double flops = 2 * E * V * C * dense_products + 5 * E * V;
    if (a != NULL) flops += 2 * E * (double)a->rows * (V + C) * lowrank_products;
    double stored =
        w->kind == PF_VALUE_WEIGHT ? (double)pf_weight_bytes(w->weight) : V * C * sizeof(pf_real);
    return (pf_cost){.flops = flops, .bytes = stored + 2 * E * C * sizeof(pf_real)};
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n, rows, n->n_out > PF_HEAD_UNIT ? 2 : 1, 1);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    const bool want_dh = ((const pf_head_ce_grad_args *)n->args)->want_dh;
    return cost_of(n, rows, 1 + want_dh + (n->in[PF_HEAD_GRAD_DW] != NULL), 3);
}

const pf_op pf_op_head_ce = {
    .name = "head_ce",
    .what =
        "nll[e] = logsumexp(z) - z[target], z = h Wᵀ (+ bias) (+ scale drop(h) Aᵀ Bᵀ), capped or "
        "not, in tiles",
    .args_size = sizeof(pf_head_ce_args),
    .flags = PF_OP_ALWAYS_SAVED, /* making it again would cost the head once more */
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_head_ce_workspace,
    .cost = cost,
    .kernels = pf_head_ce_kernel_rows,
};

const pf_op pf_op_head_ce_grad = {
    .name = "head_ce_grad",
    .what = "with p = dnll (softmax(z) - onehot), made again tile by tile: dh = p W (+ acc), "
            "dW += pᵀ h, db += sum p, and the low-rank gradients",
    .args_size = sizeof(pf_head_ce_grad_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = pf_head_ce_grad_workspace,
    .cost = grad_cost,
    .in_place = PF_HEAD_GRAD_ACC + 1,
    .kernels = pf_head_ce_grad_kernel_rows,
};
