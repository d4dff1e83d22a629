/* layer_norm.c - the ops layer_norm, add_layer_norm and layer_norm_grad: shapes, gradients, costs,
 * and the fusion of a residual addition with the norm that follows it. The formula is in
 * layer_norm.h, the arithmetic in layer_norm_cpu.c and layer_norm_simd.h.
 *
 * As with rms_norm the backward pass recomputes outputs from x, which is saved anyway;
 * add_layer_norm saves its sum. */
#include "ops/norm/layer_norm.h"

#include "graph/autodiff.h"
#include "graph/fusion.h"
#include "ops/activation/activation.h"
#include "ops/norm/layer_norm_kernels.h"
#include "ops/op_util.h"

peft_status pf_layer_norm(pf_graph *g, const char *name, pf_value *x, pf_value *w, pf_value *b,
                          double eps, int64_t group, pf_value **y, peft_error *err) {
    pf_layer_norm_args args = {.eps = eps, .group = group};
    pf_value *in[3] = {x, w, b};
    return pf_op_emit(g, "layer_norm", name, &args, in, 3, y, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static peft_status check_vector(const pf_value *x, const pf_value *v, const char *what,
                                int64_t group, peft_error *err) {
    const int64_t want = group > 0 ? group : x->cols;
    if (v == NULL || (v->rows * v->cols == want && v->space == PF_SPACE_NONE)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "the mean is over %lld columns, the %s has %lld numbers",
                   (long long)want, what, (long long)(v->rows * v->cols));
}

static peft_status check(const pf_value *x, const pf_value *w, const pf_value *b, int64_t group,
                         peft_error *err) {
    if (group < 0 || x->cols % (group > 0 ? group : x->cols) != 0) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, which groups of %lld do not divide",
                       (long long)x->cols, (long long)group);
    }
    PF_TRY(check_vector(x, w, "weight", group, err));
    return check_vector(x, b, "bias", group, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_layer_norm_args *args = n->args;
    PF_TRY(check(n->in[0], n->in[1], n->in[2], args->group, err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status add_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_layer_norm_args *args = n->args;
    pf_value *a = n->in[0], *b = n->in[1];
    PF_TRY(pf_op_check_same(a, "a", b, "b", err));
    PF_TRY(check(a, n->in[2], n->in[3], args->group, err));
    pf_op_out_like(g, n, a); /* sum */
    pf_op_out_like(g, n, a); /* y */
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_layer_norm_grad_args *args = n->args;
    pf_value *x = n->in[PF_LN_X], *acc = n->in[PF_LN_ACC];
    PF_TRY(pf_op_check_same(n->in[PF_LN_DY], "dy", x, "x", err));
    PF_TRY(check(x, n->in[PF_LN_W], NULL, args->group, err));
    if (acc != NULL) PF_TRY(pf_op_check_same(acc, "acc", x, "x", err));
    PF_TRY(check_vector(x, n->in[PF_LN_DW], "weight's gradient", args->group, err));
    PF_TRY(check_vector(x, n->in[PF_LN_DB], "bias's gradient", args->group, err));
    if (args->want_dx) pf_op_out_like(g, n, x);
    return PEFT_OK;
}

/* --- gradients -------------------------------------------------------------------------------- */

static pf_value *sink_of(pf_autodiff *ad, pf_value *v) {
    return v != NULL && pf_grad_wanted(v) ? pf_grad_sink(ad, v) : NULL;
}

/* Emits layer_norm_grad for y = norm(x) w + b with dL/dy = dy. `acc` is what the gradient of x has
 * gathered so far, or NULL; the sum of both is returned in *dx, or NULL when x has no use for it.
 */
static peft_status emit_grad(pf_autodiff *ad, pf_node *n, pf_value *dy, pf_value *x, pf_value *w,
                             pf_value *b, pf_value *acc, bool want_dx, pf_value **dx,
                             peft_error *err) {
    const pf_layer_norm_args *fwd = n->args;
    pf_layer_norm_grad_args args = {.eps = fwd->eps, .group = fwd->group, .want_dx = want_dx};
    pf_value *in[PF_LN_GRAD_INPUTS] = {[PF_LN_DY] = dy,
                                       [PF_LN_W] = w,
                                       [PF_LN_ACC] = acc,
                                       [PF_LN_DW] = sink_of(ad, w),
                                       [PF_LN_DB] = sink_of(ad, b)};
    PF_TRY(pf_op_need(ad, x, &in[PF_LN_X], err));
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "layer_norm_grad", n->name, &args, in,
                         PF_LN_GRAD_INPUTS, &grad, err));
    *dx = want_dx ? grad->out[0] : NULL;
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *x = n->in[0], *dx;
    bool want_dx = pf_grad_wanted(x);
    pf_value *acc = want_dx ? pf_grad_take(ad, x) : NULL;
    PF_TRY(
        emit_grad(ad, n, pf_grad_of(ad, n->out[0]), x, n->in[1], n->in[2], acc, want_dx, &dx, err));
    return want_dx ? pf_grad_give(ad, x, dx, err) : PEFT_OK;
}

static peft_status add_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *a = n->in[0], *b = n->in[1], *sum = n->out[0];
    pf_value *dsum = pf_grad_of(ad, sum), *dy = pf_grad_of(ad, n->out[1]);
    bool want_dx = pf_grad_wanted(a) || pf_grad_wanted(b);
    if (dy != NULL) {
        PF_TRY(emit_grad(ad, n, dy, sum, n->in[2], n->in[3], want_dx ? dsum : NULL, want_dx, &dsum,
                         err));
    }
    if (dsum == NULL) return PEFT_OK;
    PF_TRY(pf_grad_give(ad, a, dsum, err));
    return pf_grad_give(ad, b, dsum, err);
}

/* y again, from the saved sum. Where the sum is not saved either, asking for it has cloned the
 * whole node. */
static peft_status add_recompute(pf_autodiff *ad, pf_node *n, int k, pf_value **out,
                                 peft_error *err) {
    *out = NULL;
    if (k == 0) return PEFT_OK;
    pf_value *sum, *w, *b;
    PF_TRY(pf_op_need(ad, n->out[0], &sum, err));
    if (sum->producer->op == n->op && sum != n->out[0]) { /* not only widened */
        *out = sum->producer->out[1];
        return PEFT_OK;
    }
    const pf_layer_norm_args *args = n->args;
    PF_TRY(pf_op_need(ad, n->in[2], &w, err));
    PF_TRY(pf_op_need(ad, n->in[3], &b, err));
    return pf_layer_norm(pf_grad_graph(ad), n->name, sum, w, b, args->eps, args->group, out, err);
}

/* --- costs, descriptors ----------------------------------------------------------------------- */

static pf_cost cost_of(const pf_node *n, const int64_t *rows, int in, double per_column) {
    const double columns = (double)pf_value_rows(n->in[in], rows) * (double)n->in[in]->cols;
    return (pf_cost){.flops = per_column * columns,
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n, rows, 0, 7);
}

static pf_cost add_cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n, rows, 0, 8);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n, rows, PF_LN_X, 18);
}

const pf_op pf_op_layer_norm = {
    .name = "layer_norm",
    .what = "y = (x - mean(x)) / sqrt(var(x) + eps) * w + b, mean and variance over groups",
    .args_size = sizeof(pf_layer_norm_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_layer_norm_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_layer_norm_kernel_rows,
};

const pf_op pf_op_add_layer_norm = {
    .name = "add_layer_norm",
    .what = "sum = a + b, y = layer_norm(sum)",
    .args_size = sizeof(pf_layer_norm_args),
    .flags = PF_OP_CHEAP,
    .saved_outs = 1u << 0,
    .recompute = add_recompute,
    .shape = add_shape,
    .vjp = add_vjp,
    .workspace = pf_layer_norm_workspace,
    .cost = add_cost,
    .in_place = 1,
    .kernels = pf_layer_norm_kernel_rows,
};

const pf_op pf_op_layer_norm_grad = {
    .name = "layer_norm_grad",
    .what =
        "dx = r (g - mean(g) - n mean(g n)) + acc, dw += dy n, db += dy; g = dy w, n = normed x",
    .args_size = sizeof(pf_layer_norm_grad_args),
    .shape = grad_shape,
    .workspace = pf_layer_norm_grad_workspace,
    .cost = grad_cost,
    .in_place = 1,
    .kernels = pf_layer_norm_grad_kernel_rows,
};

/* --- fusion ----------------------------------------------------------------------------------- */

/* s = add(a, b); y = layer_norm(s, w, b). The sum has other readers, which must come after the
 * norm, for the fused node stands there. */
static peft_status fuse(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *add = g->nodes[i];
    if (add->op != &pf_op_add) return PEFT_OK;
    pf_value *sum = add->out[0];
    pf_node *norm = pf_fusion_next_use(sum, add);
    if (norm == NULL || norm->op != &pf_op_layer_norm || norm->in[0] != sum) return PEFT_OK;

    pf_value *in[4] = {add->in[0], add->in[1], norm->in[1], norm->in[2]};
    pf_value *out[2] = {sum, norm->out[0]};
    pf_node *old[2] = {add, norm};
    *done = true;
    return pf_fusion_replace(g, "add_layer_norm", norm->args, in, 4, out, 2, old, 2, norm, err);
}

const pf_fusion_rule pf_fusion_add_layer_norm = {.name = "add_layer_norm", .apply = fuse};
