/* head_ce.c - the ops head_ce and head_ce_grad; see head_ce.h.
 *
 * Inputs of head_ce: h, w, bias, a, b (the last three may be NULL). Outputs: nll, correct, and,
 * when the head is frozen and h wants a gradient, the unit gradient. head_ce_grad gets coef, h, w,
 * bias, a, b and the gradient blocks of those that are trained, and makes dh. */
#include "ops/loss/head_chunk.h"

enum { IN_H, IN_W, IN_BIAS, IN_A, IN_B, N_IN };
enum {
    GRAD_COEF,
    GRAD_H,
    GRAD_W,
    GRAD_BIAS,
    GRAD_A,
    GRAD_B,
    GRAD_DW,
    GRAD_DBIAS,
    GRAD_DA,
    GRAD_DB,
    GRAD_N
};

peft_status pf_head_ce(pf_graph *g, const char *name, pf_value *h, pf_value *w, pf_value *bias,
                       pf_value *a, pf_value *b, const pf_head_ce_args *args, pf_value **nll,
                       pf_value **correct, peft_error *err) {
    const pf_head_ce_args none = {.scale = 1};
    pf_value *in[N_IN] = {h, w, bias, a, b};
    pf_node *n;
    PF_TRY(pf_graph_emit(g, "head_ce", name, args != NULL ? args : &none, in, N_IN, &n, err));
    *nll = n->out[0];
    *correct = n->out[1];
    return PEFT_OK;
}

static peft_status check(const pf_value *h, const pf_value *w, const pf_value *bias,
                         const pf_value *a, const pf_value *b, peft_error *err) {
    if (h->space != PF_SPACE_LABELS || h->cols != w->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "hidden rows have %lld columns, the head has %lld",
                       (long long)h->cols, (long long)w->cols);
    }
    if (bias != NULL && bias->cols != w->rows) {
        return PF_FAIL(err, PEFT_E_SHAPE, "the bias has %lld numbers, the head has %lld rows",
                       (long long)bias->cols, (long long)w->rows);
    }
    if ((a == NULL) != (b == NULL) ||
        (a != NULL && (a->cols != h->cols || b->rows != w->rows || a->rows != b->cols))) {
        return PF_FAIL(err, PEFT_E_SHAPE, "A and B do not fit a head of %lld x %lld",
                       (long long)w->rows, (long long)w->cols);
    }
    return PEFT_OK;
}

static bool head_is_trained(const pf_node *n) {
    return pf_grad_wanted(n->in[IN_W]) || pf_grad_wanted(n->in[IN_BIAS]) ||
           pf_grad_wanted(n->in[IN_A]) || pf_grad_wanted(n->in[IN_B]);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[IN_H], n->in[IN_W], n->in[IN_BIAS], n->in[IN_A], n->in[IN_B], err));
    pf_graph_out(g, n, PF_SPACE_LABELS, 0, 1);
    pf_value *correct = pf_graph_out(g, n, PF_SPACE_LABELS, 0, 1);
    if (correct != NULL) correct->needs_grad = false; /* a count has no gradient */
    if (g->params != NULL && pf_grad_wanted(n->in[IN_H]) && !head_is_trained(n)) {
        pf_value *unit = pf_graph_out(g, n, PF_SPACE_LABELS, 0, n->in[IN_H]->cols);
        if (unit != NULL) unit->needs_grad = false;
    }
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_graph *g = pf_grad_graph(ad);
    pf_value *coef = pf_grad_of(ad, n->out[0]);
    if (coef == NULL) return PEFT_OK;
    if (n->n_out == 3) {
        pf_value *unit;
        PF_TRY(pf_op_need(ad, n->out[2], &unit, err));
        pf_value *in[2] = {unit, coef}, *dh;
        PF_TRY(pf_op_emit(g, "scale_rows", n->name, NULL, in, 2, &dh, err));
        return pf_grad_give(ad, n->in[IN_H], dh, err);
    }
    pf_value *in[GRAD_N] = {[GRAD_COEF] = coef,
                            [GRAD_W] = n->in[IN_W],
                            [GRAD_BIAS] = n->in[IN_BIAS],
                            [GRAD_A] = n->in[IN_A],
                            [GRAD_B] = n->in[IN_B]};
    PF_TRY(pf_op_need(ad, n->in[IN_H], &in[GRAD_H], err));
    for (int i = IN_W; i < N_IN; i++) {
        if (pf_grad_wanted(n->in[i])) in[GRAD_DW + i - IN_W] = pf_grad_sink(ad, n->in[i]);
    }
    pf_node *grad;
    PF_TRY(pf_graph_emit(g, "head_ce_grad", n->name, n->args, in, GRAD_N, &grad, err));
    return pf_grad_give(ad, n->in[IN_H], grad->out[0], err);
}

static pf_head_chunk chunk_of(const pf_node *n, int first, const pf_exec *x) {
    return (pf_head_chunk){.x = x,
                           .args = n->args,
                           .h = n->in[first],
                           .w = n->in[first + 1],
                           .bias = n->in[first + 2],
                           .a = n->in[first + 3],
                           .b = n->in[first + 4]};
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    pf_head_chunk c = chunk_of(n, IN_H, NULL);
    return pf_head_chunk_workspace(&c, capacity[PF_SPACE_LABELS], n_workers);
}

static int64_t grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    pf_head_chunk c = chunk_of(n, GRAD_H, NULL);
    return pf_head_chunk_workspace(&c, capacity[PF_SPACE_LABELS], n_workers);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    double per_row = 2.0 * (double)n->in[IN_W]->rows * (double)n->in[IN_W]->cols;
    if (n->in[IN_A] != NULL) {
        per_row +=
            2.0 * (double)n->in[IN_A]->rows * (double)(n->in[IN_W]->rows + n->in[IN_W]->cols);
    }
    return (pf_cost){.flops = (double)rows[PF_SPACE_LABELS] * per_row * (n->n_out == 3 ? 2 : 1)};
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    double product = 2.0 * (double)n->in[GRAD_W]->rows * (double)n->in[GRAD_W]->cols;
    int products = 2 + (n->in[GRAD_DW] != NULL); /* logits again, dh, dW */
    return (pf_cost){.flops = (double)rows[PF_SPACE_LABELS] * product * products};
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    pf_head_chunk c = chunk_of(n, IN_H, x);
    PF_TRY(pf_head_chunk_begin(&c, x->workspace, err));
    pf_real *nll = pf_exec_data(x, n->out[0]), *correct = pf_exec_data(x, n->out[1]);
    pf_real *unit = n->n_out == 3 ? pf_exec_data(x, n->out[2]) : NULL;
    for (int64_t e = 0; e < x->batch->n_labels; e += c.size) {
        pf_head_chunk_logits(&c, e);
        pf_head_chunk_losses(&c, nll + e, correct + e, unit != NULL);
        if (unit != NULL) pf_head_chunk_dh(&c, unit + e * n->in[IN_H]->cols);
    }
    return PEFT_OK;
}

/* --- head_ce_grad ------------------------------------------------------------------------------
 */

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(
        check(n->in[GRAD_H], n->in[GRAD_W], n->in[GRAD_BIAS], n->in[GRAD_A], n->in[GRAD_B], err));
    pf_op_out_like(g, n, n->in[GRAD_H]);
    return PEFT_OK;
}

static peft_status grad_run(pf_exec *x, const pf_node *n, peft_error *err) {
    pf_head_chunk c = chunk_of(n, GRAD_H, x);
    PF_TRY(pf_head_chunk_begin(&c, x->workspace, err));
    const pf_real *coef = pf_exec_data(x, n->in[GRAD_COEF]);
    pf_real *dh = pf_exec_data(x, n->out[0]);
    const pf_head_sinks sinks = {.w = pf_exec_data(x, n->in[GRAD_DW]),
                                 .bias = pf_exec_data(x, n->in[GRAD_DBIAS]),
                                 .a = pf_exec_data(x, n->in[GRAD_DA]),
                                 .b = pf_exec_data(x, n->in[GRAD_DB])};
    for (int64_t e = 0; e < x->batch->n_labels; e += c.size) {
        pf_head_chunk_logits(&c, e);
        pf_head_chunk_losses(&c, NULL, NULL, true);
        pf_head_chunk_scale(&c, coef + e);
        pf_head_chunk_grads(&c, &sinks, dh + e * n->in[GRAD_H]->cols);
    }
    return PEFT_OK;
}

const pf_op pf_op_head_ce = {
    .name = "head_ce",
    .what = "nll[e] = logsumexp(z) - z[target], z = h Wᵀ (+ b) (+ scale (h Aᵀ) Bᵀ), in chunks of "
            "entries",
    .args_size = sizeof(pf_head_ce_args),
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .kernels = (const pf_kernel_row[]){{.backend = "cpu", .name = "chunks", .run = run}, {0}},
};

const pf_op pf_op_head_ce_grad = {
    .name = "head_ce_grad",
    .what = "dz = coef (softmax(z) - onehot), logits recomputed; dh, and += into dW, db, dA, dB",
    .args_size = sizeof(pf_head_ce_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = grad_workspace,
    .cost = grad_cost,
    .kernels = (const pf_kernel_row[]){{.backend = "cpu", .name = "chunks", .run = grad_run}, {0}},
};
