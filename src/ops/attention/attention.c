/* attention.c - the ops attention and attention_grad: shapes, gradient, cost; see attention.h. */
#include "ops/attention/attention.h"

#include "ops/attention/attention_kernels.h"
#include "ops/op_util.h"

peft_status pf_attention(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v,
                         pf_value *ext_k, pf_value *ext_v, const pf_attention_args *args,
                         pf_value **o, peft_error *err) {
    return pf_attention_biased(g, name, q, k, v, ext_k, ext_v, NULL, args, o, err);
}

peft_status pf_attention_biased(pf_graph *g, const char *name, pf_value *q, pf_value *k,
                                pf_value *v, pf_value *ext_k, pf_value *ext_v, pf_value *bias,
                                const pf_attention_args *args, pf_value **o, peft_error *err) {
    pf_value *in[6] = {q, k, v, ext_k, ext_v, bias};
    return pf_op_emit(g, "attention", name, args, in, 6, o, err);
}

peft_status pf_attention_cross(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v,
                               const pf_attention_args *args, pf_value **o, peft_error *err) {
    pf_value *in[6] = {q, NULL, NULL, k, v, NULL};
    return pf_op_emit(g, "attention", name, args, in, 6, o, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static peft_status check_rows(const pf_value *v, const char *what, int space, int64_t heads,
                              int64_t head_dim, peft_error *err) {
    if (v->space == space && v->cols == heads * head_dim) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE,
                   "%s has %lld columns, expected %lld heads of %lld for every %s", what,
                   (long long)v->cols, (long long)heads, (long long)head_dim,
                   space == PF_SPACE_SOURCE ? "token of the source" : "token");
}

static peft_status check_external(const pf_attention_args *a, const pf_value *const *ext,
                                  peft_error *err) {
    const bool state = ext[0]->kind == PF_VALUE_STATE || ext[0]->kind == PF_VALUE_PARAM;
    for (int i = 0; i < 2; i++) {
        if (ext[i]->kind != ext[0]->kind ||
            (!state && (!a->cross || ext[i]->space != PF_SPACE_SOURCE))) {
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "external keys and values are two states or two parameters%s",
                           a->cross ? ", or rows of the source" : "");
        }
        if (ext[i]->cols != a->n_kv_heads * a->head_dim || ext[i]->rows != ext[0]->rows) {
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "external rows are %lld x %lld, keys have %lld columns",
                           (long long)ext[i]->rows, (long long)ext[i]->cols,
                           (long long)(a->n_kv_heads * a->head_dim));
        }
    }
    return PEFT_OK;
}

static peft_status check_bias(const pf_attention_args *a, const pf_value *bias, peft_error *err) {
    if ((bias != NULL) != (a->bias_buckets > 0) || (bias != NULL && a->slopes != NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "a table of biases has buckets, and goes without slopes");
    if (a->cross && (bias != NULL || a->slopes != NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "rows of the source are at no distance");
    if (bias == NULL) return PEFT_OK;
    const int64_t single = a->bias_buckets / (a->bidirectional ? 4 : 2);
    if (single < 1 || a->bias_buckets > 4096 || a->bias_max_distance <= single)
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld buckets up to a distance of %lld",
                       (long long)a->bias_buckets, (long long)a->bias_max_distance);
    if (bias->space != PF_SPACE_NONE || bias->rows != a->bias_buckets || bias->cols != a->n_heads)
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "the table of biases is %lld x %lld, expected %lld buckets of %lld heads",
                       (long long)bias->rows, (long long)bias->cols, (long long)a->bias_buckets,
                       (long long)a->n_heads);
    return PEFT_OK;
}

/* qkv: q, k, v, ext_k, ext_v, bias */
static peft_status check_operands(const pf_attention_args *a, pf_value *const *qkv,
                                  const pf_value *ext_k, const pf_value *ext_v,
                                  const pf_value *bias, peft_error *err) {
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
    if ((a->bidirectional || a->cross) && a->window > 0)
        return PF_FAIL(err, PEFT_E_SHAPE, "a window of %lld keys in %s attention",
                       (long long)a->window, a->cross ? "cross" : "bidirectional");
    if (!(a->softcap >= 0))
        return PF_FAIL(err, PEFT_E_SHAPE, "softcap %g has to be positive, or 0", a->softcap);
    if (!(a->dropout >= 0 && a->dropout < 1) ||
        (a->dropout > 0 && (a->mask_key % 65536 != 0 || a->n_heads > 65536)))
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout %g of %lld heads under the key %u", a->dropout,
                       (long long)a->n_heads, (unsigned)a->mask_key);
    if (a->softcap > 0 && (bias != NULL || a->slopes != NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "capped scores have no biases");
    const int space = qkv[0]->space == PF_SPACE_SOURCE ? PF_SPACE_SOURCE : PF_SPACE_TOKENS;
    PF_TRY(check_rows(qkv[0], "q", space, a->n_heads, a->head_dim, err));
    PF_TRY(check_bias(a, bias, err));
    if ((ext_k == NULL) != (ext_v == NULL))
        return PF_FAIL(err, PEFT_E_SHAPE, "external keys without values");
    if (ext_k != NULL) PF_TRY(check_external(a, (const pf_value *[2]){ext_k, ext_v}, err));
    if (a->cross) {
        if (qkv[1] == NULL && qkv[2] == NULL && ext_k != NULL && space == PF_SPACE_TOKENS)
            return PEFT_OK;
        return PF_FAIL(err, PEFT_E_SHAPE, "tokens see rows of the source, and no others");
    }
    PF_TRY(check_rows(qkv[1], "k", space, a->n_kv_heads, a->head_dim, err));
    return check_rows(qkv[2], "v", space, a->n_kv_heads, a->head_dim, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_attention_args *a = n->args;
    PF_TRY(check_operands(a, n->in, n->in[3], n->in[4], n->in[5], err));
    pf_op_out_like(g, n, n->in[0]);                     /* o */
    pf_graph_out(g, n, n->in[0]->space, 0, a->n_heads); /* lse */
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_attention_args *a = n->args;
    const int space = n->in[PF_ATT_Q]->space;
    PF_TRY(check_operands(a, n->in + PF_ATT_Q, n->in[PF_ATT_XK], n->in[PF_ATT_XV],
                          n->in[PF_ATT_BIAS], err));
    PF_TRY(check_rows(n->in[PF_ATT_DO], "do", space, a->n_heads, a->head_dim, err));
    PF_TRY(check_rows(n->in[PF_ATT_O], "o", space, a->n_heads, a->head_dim, err));
    const int keys = a->cross ? PF_ATT_XK : PF_ATT_K;
    pf_op_out_like(g, n, n->in[PF_ATT_Q]); /* dq */
    pf_op_out_like(g, n, n->in[keys]);     /* dk, of the source's rows in cross attention */
    pf_op_out_like(g, n, n->in[keys]);     /* dv */
    return PEFT_OK;
}

/* --- gradient --------------------------------------------------------------------------------- */

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_attention_args *a = n->args;
    pf_value *in[PF_ATT_GRAD_INPUTS] = {[PF_ATT_DO] = pf_grad_of(ad, n->out[0])};
    if (in[PF_ATT_DO] == NULL) return PF_FAIL(err, PEFT_E_UNSUPPORTED, "lse is not differentiable");
    if (a->cross && n->in[3]->space != PF_SPACE_SOURCE)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "a cached source is not differentiable");
    for (int i = 0; i < 3; i++) PF_TRY(pf_op_need(ad, n->in[i], &in[PF_ATT_Q + i], err));
    for (int i = 0; i < 2; i++) {
        pf_value *ext = n->in[3 + i];
        PF_TRY(pf_op_need(ad, n->out[i], &in[PF_ATT_O + i], err));
        in[PF_ATT_XK + i] = ext;
        if (a->cross)
            PF_TRY(pf_op_need(ad, ext, &in[PF_ATT_XK + i], err));
        else if (pf_grad_wanted(ext))
            in[PF_ATT_DXK + i] = pf_grad_sink(ad, ext);
    }
    in[PF_ATT_BIAS] = n->in[5];
    if (pf_grad_wanted(n->in[5])) in[PF_ATT_DBIAS] = pf_grad_sink(ad, n->in[5]);
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "attention_grad", n->name, n->args, in,
                         PF_ATT_GRAD_INPUTS, &grad, err));
    PF_TRY(pf_grad_give(ad, n->in[0], grad->out[0], err));
    for (int i = 1; i < 3; i++)
        PF_TRY(pf_grad_give(ad, n->in[a->cross ? 2 + i : i], grad->out[i], err));
    return PEFT_OK;
}

/* --- cost, descriptors ------------------------------------------------------------------------ */

/* Who sees whom is the batch's business; this is one sample of all rows. Two products forward. */
static pf_cost pair_cost(const pf_node *n, const int64_t *rows, double products) {
    const pf_attention_args *a = n->args;
    const bool back = n->n_in == PF_ATT_GRAD_INPUTS;
    const double T = (double)pf_value_rows(n->in[back ? PF_ATT_Q : 0], rows);
    const pf_value *ext = n->in[back ? PF_ATT_XK : 3];
    double pairs = T * (T + 1) / 2;
    if (a->bidirectional) pairs = T * (T + 1);
    if (a->cross) pairs = T * (double)pf_value_rows(ext, rows);
    return (pf_cost){
        .flops = products * 2 * pairs * (double)(a->n_heads * a->head_dim),
        .bytes = pf_op_elements(n, rows) * sizeof(pf_real),
    };
}

static double run_pairs(const pf_ext_run *runs, int32_t n) {
    double pairs = 0;
    for (int32_t i = 0; i < n; i++)
        pairs += (double)runs[i].length * (runs[i].row_end - runs[i].row_begin);
    return pairs;
}

/* Pairs of a row and a key that it sees, of those of one sample of all rows; windows are not looked
 * at, and a bidirectional sample has about twice the pairs in both. */
static double share_of_cost(const pf_node *n, const pf_batch *batch) {
    const pf_attention_args *a = n->args;
    const bool back = n->n_in == PF_ATT_GRAD_INPUTS;
    const pf_batch *b = pf_batch_of_space(batch, n->in[back ? PF_ATT_Q : 0]->space);
    const pf_value *ext = n->in[back ? PF_ATT_XK : 3];
    const double T = (double)b->n_tokens;
    if (a->cross) {
        const double S = ext->space != PF_SPACE_SOURCE ? (double)ext->rows
                         : b->source != NULL           ? (double)b->source->n_tokens
                                                       : 1;
        return run_pairs(b->source_runs, b->n_source_runs) / (T * S);
    }
    double pairs = run_pairs(b->ext_runs, b->n_ext_runs);
    for (int32_t i = 0; i < b->n_tokens; i++) pairs += b->end[i] - i;
    return pairs / (T * (T + 1) / 2);
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
    .what = "drop(softmax(scale q k^T + bias + mask)) v over the segment tree, grouped heads, "
            "external keys first",
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
    .what = "dq, dk, dv (and += for learned external rows and biases) from the saved o and lse",
    .args_size = sizeof(pf_attention_args),
    .shape = grad_shape,
    .cost = grad_cost,
    .share_of_cost = share_of_cost,
    .in_place = PF_ATT_DO + 1,
    .kernels = pf_attention_grad_kernel_rows,
};
