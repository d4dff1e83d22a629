/* rms_norm.c - the ops rms_norm, add_rms_norm and rms_norm_grad: shapes, gradients, costs, and the
 * fusion of a residual addition with the norm that follows it. The formula is in rms_norm.h, the
 * arithmetic in rms_norm_cpu.c and rms_norm_simd.h.
 *
 * Outputs of a norm are cheap: the backward pass recomputes them from x, which is saved anyway.
 * add_rms_norm saves its sum and recomputes its second output from it. */
#include "ops/norm/rms_norm.h"

#include "graph/autodiff.h"
#include "graph/fusion.h"
#include "ops/activation/activation.h"
#include "ops/norm/rms_norm_kernels.h"
#include "ops/op_util.h"

peft_status pf_rms_norm(pf_graph *g, const char *name, pf_value *x, pf_value *w, double eps,
                        int64_t group, pf_value **y, peft_error *err) {
    return pf_rms_norm_of(g, name, x, w, &(pf_rms_norm_args){.eps = eps, .group = group}, y, err);
}

peft_status pf_rms_norm_of(pf_graph *g, const char *name, pf_value *x, pf_value *w,
                           const pf_rms_norm_args *args, pf_value **y, peft_error *err) {
    pf_value *in[2] = {x, w};
    return pf_op_emit(g, "rms_norm", name, args, in, 2, y, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

static peft_status check_weight(const pf_value *x, const pf_value *w, int64_t group,
                                peft_error *err) {
    if (group < 0 || x->cols % (group > 0 ? group : x->cols) != 0) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, which groups of %lld do not divide",
                       (long long)x->cols, (long long)group);
    }
    int64_t want = group > 0 ? group : x->cols;
    if (w->rows * w->cols != want || w->space != PF_SPACE_NONE) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "the mean is over %lld columns, the weight has %lld numbers",
                       (long long)want, (long long)(w->rows * w->cols));
    }
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_rms_norm_args *args = n->args;
    pf_value *x = n->in[0], *w = n->in[1];
    PF_TRY(check_weight(x, w, args->group, err));
    pf_op_out_like(g, n, x);
    return PEFT_OK;
}

static peft_status add_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_rms_norm_args *args = n->args;
    pf_value *a = n->in[0], *b = n->in[1], *w = n->in[2];
    PF_TRY(pf_op_check_same(a, "a", b, "b", err));
    PF_TRY(check_weight(a, w, args->group, err));
    pf_op_out_like(g, n, a); /* sum */
    pf_op_out_like(g, n, a); /* y */
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_rms_norm_grad_args *args = n->args;
    pf_value *dy = n->in[0], *x = n->in[1], *w = n->in[2], *acc = n->in[3], *dw = n->in[4];
    PF_TRY(pf_op_check_same(dy, "dy", x, "x", err));
    PF_TRY(check_weight(x, w, args->group, err));
    if (acc != NULL) PF_TRY(pf_op_check_same(acc, "acc", x, "x", err));
    if (dw != NULL) PF_TRY(pf_op_check_same(dw, "dw", w, "w", err));
    if (args->want_dx) pf_op_out_like(g, n, x);
    return PEFT_OK;
}

/* --- gradients -------------------------------------------------------------------------------- */

/* Emits rms_norm_grad for y = norm(x) w with dL/dy = dy. `acc` is what the gradient of x has
 * gathered so far, or NULL; the sum of both is returned in *dx, or NULL when x has no use for it.
 */
static peft_status emit_grad(pf_autodiff *ad, pf_node *n, pf_value *dy, pf_value *x, pf_value *w,
                             pf_value *acc, bool want_dx, pf_value **dx, peft_error *err) {
    const pf_rms_norm_args *fwd = n->args;
    pf_rms_norm_grad_args args = {fwd->eps, fwd->group, fwd->offset, want_dx};
    pf_value *in[5] = {dy, NULL, w, acc, pf_grad_wanted(w) ? pf_grad_sink(ad, w) : NULL};
    PF_TRY(pf_op_need(ad, x, &in[1], err));
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "rms_norm_grad", n->name, &args, in, 5, &grad, err));
    *dx = want_dx ? grad->out[0] : NULL;
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *x = n->in[0], *w = n->in[1], *dx;
    bool want_dx = pf_grad_wanted(x);
    pf_value *acc = want_dx ? pf_grad_take(ad, x) : NULL;
    PF_TRY(emit_grad(ad, n, pf_grad_of(ad, n->out[0]), x, w, acc, want_dx, &dx, err));
    return want_dx ? pf_grad_give(ad, x, dx, err) : PEFT_OK;
}

static peft_status add_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *a = n->in[0], *b = n->in[1], *w = n->in[2], *sum = n->out[0];
    pf_value *dsum = pf_grad_of(ad, sum), *dy = pf_grad_of(ad, n->out[1]);
    bool want_dx = pf_grad_wanted(a) || pf_grad_wanted(b);
    if (dy != NULL)
        PF_TRY(emit_grad(ad, n, dy, sum, w, want_dx ? dsum : NULL, want_dx, &dsum, err));
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
    pf_value *sum, *w;
    PF_TRY(pf_op_need(ad, n->out[0], &sum, err));
    if (sum->producer->op == n->op && sum != n->out[0]) { /* not only widened */
        *out = sum->producer->out[1];
        return PEFT_OK;
    }
    PF_TRY(pf_op_need(ad, n->in[2], &w, err));
    return pf_rms_norm_of(pf_grad_graph(ad), n->name, sum, w, n->args, out, err);
}

/* --- costs, descriptors ----------------------------------------------------------------------- */

static double columns(const pf_node *n, const int64_t *rows, int in) {
    return (double)pf_value_rows(n->in[in], rows) * (double)n->in[in]->cols;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 4 * columns(n, rows, 0),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static pf_cost add_cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 5 * columns(n, rows, 0),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 12 * columns(n, rows, 1),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

const pf_op pf_op_rms_norm = {
    .name = "rms_norm",
    .what = "y = x / sqrt(mean(x^2) + eps) * (w + offset), the mean over groups of columns",
    .args_size = sizeof(pf_rms_norm_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .workspace = pf_rms_norm_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = pf_rms_norm_kernel_rows,
};

const pf_op pf_op_add_rms_norm = {
    .name = "add_rms_norm",
    .what = "sum = a + b, y = rms_norm(sum)",
    .args_size = sizeof(pf_rms_norm_args),
    .flags = PF_OP_CHEAP,
    .saved_outs = 1u << 0,
    .recompute = add_recompute,
    .shape = add_shape,
    .vjp = add_vjp,
    .workspace = pf_rms_norm_workspace,
    .cost = add_cost,
    .in_place = 1,
    .kernels = pf_rms_norm_kernel_rows,
};

const pf_op pf_op_rms_norm_grad = {
    .name = "rms_norm_grad",
    .what = "dx = r (dy w - x r^2 mean(dy w x)) + acc, dw += dy x r, r = 1 / sqrt(mean(x^2) + eps)",
    .args_size = sizeof(pf_rms_norm_grad_args),
    .shape = grad_shape,
    .workspace = pf_rms_norm_grad_workspace,
    .cost = grad_cost,
    .in_place = 1,
    .kernels = pf_rms_norm_grad_kernel_rows,
};

/* --- fusion ----------------------------------------------------------------------------------- */

/* s = add(a, b); y = rms_norm(s, w). The sum has other readers (the residual stream goes on from
 * it), which must come after the norm, for the fused node stands there. */
static peft_status fuse(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *add = g->nodes[i];
    if (add->op != &pf_op_add) return PEFT_OK;
    pf_value *sum = add->out[0];
    pf_node *norm = pf_fusion_next_use(sum, add);
    if (norm == NULL || norm->op != &pf_op_rms_norm || norm->in[0] != sum) return PEFT_OK;

    pf_value *in[3] = {add->in[0], add->in[1], norm->in[1]};
    pf_value *out[2] = {sum, norm->out[0]};
    pf_node *old[2] = {add, norm};
    *done = true;
    return pf_fusion_replace(g, "add_rms_norm", norm->args, in, 3, out, 2, old, 2, norm, err);
}

const pf_fusion_rule pf_fusion_add_rms_norm = {.name = "add_rms_norm", .apply = fuse};
