/* attention.c - the ops attention and attention_grad: shapes, gradient, cost; see attention.h. */
#include "ops/attention/attention.h"

#include "ops/attention/attention_kernels.h"
#include "ops/op_util.h"

peft_status pf_attention(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v,
                         pf_value *ext_k, pf_value *ext_v, const pf_attention_args *args,
                         pf_value **o, peft_error *err) {
    pf_value *in[5] = {q, k, v, ext_k, ext_v};
    return pf_op_emit(g, "attention", name, args, in, 5, o, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static peft_status check_rows(const pf_value *v, const char *what, int64_t heads, int64_t head_dim,
                              peft_error *err) {
    if (v->space == PF_SPACE_TOKENS && v->cols == heads * head_dim) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE,
                   "%s has %lld columns, expected %lld heads of %lld for every token", what,
                   (long long)v->cols, (long long)heads, (long long)head_dim);
}

static peft_status check_operands(const pf_attention_args *a, pf_value *const *qkv,
                                  const pf_value *ext_k, const pf_value *ext_v, peft_error *err) {
    if (a->n_kv_heads < 1 || a->n_heads < a->n_kv_heads || a->n_heads % a->n_kv_heads != 0 ||
        a->head_dim < 1) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld heads of %lld cannot share %lld key heads",
                       (long long)a->n_heads, (long long)a->head_dim, (long long)a->n_kv_heads);
    }
    if (!(a->scale > 0) || a->window < 0) {
        return PF_FAIL(
            err, PEFT_E_SHAPE,
            "scale %g and window %lld: the scale has to be positive, the window too or 0", a->scale,
            (long long)a->window);
    }
    if (a->bidirectional && a->window > 0)
        return PF_FAIL(err, PEFT_E_SHAPE, "a window of %lld keys in bidirectional attention",
                       (long long)a->window);
    if (!(a->softcap >= 0))
        return PF_FAIL(err, PEFT_E_SHAPE, "softcap %g has to be positive, or 0", a->softcap);
    PF_TRY(check_rows(qkv[0], "q", a->n_heads, a->head_dim, err));
    PF_TRY(check_rows(qkv[1], "k", a->n_kv_heads, a->head_dim, err));
    PF_TRY(check_rows(qkv[2], "v", a->n_kv_heads, a->head_dim, err));
    if ((ext_k == NULL) != (ext_v == NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "external keys without values");
    if (ext_k == NULL) return PEFT_OK;
    const pf_value *ext[2] = {ext_k, ext_v};
    for (int i = 0; i < 2; i++) {
        if ((ext[i]->kind != PF_VALUE_STATE && ext[i]->kind != PF_VALUE_PARAM) ||
            ext[i]->kind != ext_k->kind) {
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "external keys and values are two states or two parameters");
        }
        if (ext[i]->cols != qkv[1]->cols || ext[i]->rows != ext_k->rows) {
            return PF_FAIL(
                err, PEFT_E_SHAPE, "external rows are %lld x %lld, keys have %lld columns",
                (long long)ext[i]->rows, (long long)ext[i]->cols, (long long)qkv[1]->cols);
        }
    }
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_attention_args *a = n->args;
    PF_TRY(check_operands(a, n->in, n->in[3], n->in[4], err));
    pf_op_out_like(g, n, n->in[0]);                     /* o */
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, a->n_heads); /* lse */
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_attention_args *a = n->args;
    PF_TRY(check_operands(a, n->in + PF_ATT_Q, n->in[PF_ATT_XK], n->in[PF_ATT_XV], err));
    PF_TRY(check_rows(n->in[PF_ATT_DO], "do", a->n_heads, a->head_dim, err));
    PF_TRY(check_rows(n->in[PF_ATT_O], "o", a->n_heads, a->head_dim, err));
    for (int i = 0; i < 3; i++) pf_op_out_like(g, n, n->in[PF_ATT_Q + i]); /* dq, dk, dv */
    return PEFT_OK;
}

/* --- gradient --------------------------------------------------------------------------------- */

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[PF_ATT_GRAD_INPUTS] = {[PF_ATT_DO] = pf_grad_of(ad, n->out[0])};
    if (in[PF_ATT_DO] == NULL) return PF_FAIL(err, PEFT_E_UNSUPPORTED, "lse is not differentiable");
    for (int i = 0; i < 3; i++) PF_TRY(pf_op_need(ad, n->in[i], &in[PF_ATT_Q + i], err));
    for (int i = 0; i < 2; i++) {
        pf_value *ext = n->in[3 + i];
        PF_TRY(pf_op_need(ad, n->out[i], &in[PF_ATT_O + i], err));
        in[PF_ATT_XK + i] = ext;
        if (pf_grad_wanted(ext)) in[PF_ATT_DXK + i] = pf_grad_sink(ad, ext);
    }
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "attention_grad", n->name, n->args, in,
                         PF_ATT_GRAD_INPUTS, &grad, err));
    for (int i = 0; i < 3; i++) PF_TRY(pf_grad_give(ad, n->in[i], grad->out[i], err));
    return PEFT_OK;
}

/* --- cost, descriptors ------------------------------------------------------------------------ */

/* Who sees whom is the batch's business; this is one sample of all rows. Two products forward. */
static pf_cost pair_cost(const pf_node *n, const int64_t *rows, double products) {
    const pf_attention_args *a = n->args;
    double T = (double)rows[PF_SPACE_TOKENS];
    return (pf_cost){
        .flops = products * (a->bidirectional ? 2 : 1) * T * (T + 1) *
                 (double)(a->n_heads * a->head_dim),
        .bytes = pf_op_elements(n, rows) * sizeof(pf_real),
    };
}

/* Pairs of a row and a key that it sees, of those of one causal sample (about the same share of
 * a bidirectional one); windows are not looked at. */
static double share_of_cost(const pf_batch *b) {
    double pairs = 0;
    for (int32_t i = 0; i < b->n_tokens; i++) pairs += b->end[i] - i;
    for (int32_t i = 0; i < b->n_ext_runs; i++) {
        const pf_ext_run *r = &b->ext_runs[i];
        pairs += (double)r->length * (r->row_end - r->row_begin);
    }
    return pairs / ((double)b->n_tokens * (b->n_tokens + 1) / 2);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pair_cost(n, rows, 2);
}
/* scores, dP, dV, dK, dQ; where tiles of keys and tiles of queries each make scores and dP, that is
 * not counted */
static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return pair_cost(n, rows, 5);
}

const pf_op pf_op_attention = {
    .name = "attention",
    .what =
        "softmax(scale q k^T + mask) v over the segment tree, grouped heads, external keys first",
    .args_size = sizeof(pf_attention_args),
    .exact_outs = 1u << 1, /* a rounded log of sums would scale whole rows */
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .share_of_cost = share_of_cost,
    .kernels = pf_attention_kernel_rows,
};

const pf_op pf_op_attention_grad = {
    .name = "attention_grad",
    .what = "dq, dk, dv (and += for learned external rows) from the saved o and lse",
    .args_size = sizeof(pf_attention_args),
    .shape = grad_shape,
    .cost = grad_cost,
    .share_of_cost = share_of_cost,
    .in_place = PF_ATT_DO + 1,
    .kernels = pf_attention_grad_kernel_rows,
};
