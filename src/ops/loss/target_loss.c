/* target_loss.c - the ops target_loss and target_loss_grad; see target_loss.h. Rows are a few
 * numbers long, so plain loops are all there is. */
#include "ops/loss/target_loss.h"

#include "ops/op_util.h"

typedef struct target_args {
    pf_problem problem;
} target_args;

peft_status pf_target_loss(pf_graph *g, const char *name, pf_problem problem, pf_value *z,
                           pf_value *y, pf_value **nll, pf_value **correct, peft_error *err) {
    const target_args args = {problem};
    pf_value *in[2] = {z, y};
    pf_node *n;
    *nll = *correct = NULL;
    PF_TRY(pf_graph_emit(g, "target_loss", name, &args, in, 2, &n, err));
    *nll = n->out[0];
    *correct = n->out[1];
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "z", n->in[1], "y", err));
    for (int i = 0; i < 2; i++) {
        pf_value *v = pf_graph_out(g, n, n->in[0]->space, n->in[0]->rows, 1);
        PF_CHECK_ALLOC(v, err);
        if (i == 1) v->needs_grad = false; /* only the loss is differentiated */
    }
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    if (pf_grad_wanted(n->in[1]))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "the targets of target_loss cannot be trained");
    pf_value *dz, *in[3] = {NULL, NULL, pf_grad_of(ad, n->out[0])};
    if (in[2] == NULL) return PEFT_OK; /* nothing depends on the loss itself */
    PF_TRY(pf_op_need(ad, n->in[0], &in[0], err));
    PF_TRY(pf_op_need(ad, n->in[1], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "target_loss_grad", n->name, n->args, in, 3, &dz, err));
    return pf_grad_give(ad, n->in[0], dz, err);
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "z", n->in[1], "y", err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 6 * pf_op_elements(n, rows),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

/* ---- one row --------------------------------------------------------------------------------- */

static int64_t largest(const pf_real *v, int64_t K) {
    int64_t best = 0;
    for (int64_t k = 1; k < K; k++)
        if (v[k] > v[best]) best = k;
    return best;
}

static pf_real log_sum_exp(const pf_real *z, int64_t K) {
    const pf_real m = z[largest(z, K)];
    pf_real sum = 0;
    for (int64_t k = 0; k < K; k++) sum += pf_rexp(z[k] - m);
    return m + pf_rlog(sum);
}

static pf_real single(const pf_real *z, const pf_real *y, int64_t K, pf_real *dz, pf_real c) {
    const pf_real lse = log_sum_exp(z, K);
    pf_real loss = 0, sum = 0;
    for (int64_t k = 0; k < K; k++) {
        loss += y[k] * (lse - z[k]);
        sum += y[k];
    }
    for (int64_t k = 0; k < K && dz != NULL; k++) dz[k] = c * (sum * pf_rexp(z[k] - lse) - y[k]);
    return loss;
}

static pf_real multi(const pf_real *z, const pf_real *y, int64_t K, pf_real *dz, pf_real c) {
    pf_real loss = 0;
    for (int64_t k = 0; k < K; k++) {
        const pf_real e = pf_rexp(z[k] < 0 ? z[k] : -z[k]); /* at most 1 */
        const pf_real p = (z[k] < 0 ? e : 1) / (1 + e);
        loss += (z[k] > 0 ? z[k] : 0) - z[k] * y[k] + pf_rlog(1 + e);
        if (dz != NULL) dz[k] = c * (p - y[k]) / (pf_real)K;
    }
    return loss / (pf_real)K;
}

static pf_real regression(const pf_real *z, const pf_real *y, int64_t K, pf_real *dz, pf_real c) {
    pf_real loss = 0;
    for (int64_t k = 0; k < K; k++) {
        const pf_real d = z[k] - y[k];
        loss += d * d;
        if (dz != NULL) dz[k] = c * 2 * d / (pf_real)K;
    }
    return loss / (pf_real)K;
}

typedef pf_real (*row_fn)(const pf_real *z, const pf_real *y, int64_t K, pf_real *dz, pf_real c);

static row_fn row_of(pf_problem p) {
    return p == PF_PROBLEM_MULTI ? multi : p == PF_PROBLEM_REGRESSION ? regression : single;
}

static bool is_correct(pf_problem p, const pf_real *z, const pf_real *y, int64_t K) {
    if (p == PF_PROBLEM_REGRESSION) return false;
    if (p != PF_PROBLEM_MULTI) return largest(z, K) == largest(y, K);
    for (int64_t k = 0; k < K; k++)
        if ((z[k] > 0) != (y[k] > (pf_real)0.5)) return false;
    return true;
}

/* ---- kernels --------------------------------------------------------------------------------- */

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_problem p = ((const target_args *)n->args)->problem;
    const int64_t E = pf_exec_rows(x, n->in[0]), K = n->in[0]->cols;
    const pf_real *z = pf_exec_data(x, n->in[0]), *y = pf_exec_data(x, n->in[1]);
    pf_real *nll = pf_exec_data(x, n->out[0]), *correct = pf_exec_data(x, n->out[1]);
    for (int64_t e = 0; e < E; e++, z += K, y += K) {
        nll[e] = row_of(p)(z, y, K, NULL, 0);
        correct[e] = is_correct(p, z, y, K);
    }
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const row_fn row = row_of(((const target_args *)n->args)->problem);
    const int64_t E = pf_exec_rows(x, n->in[0]), K = n->in[0]->cols;
    const pf_real *z = pf_exec_data(x, n->in[0]), *y = pf_exec_data(x, n->in[1]);
    const pf_real *c = pf_exec_data(x, n->in[2]);
    pf_real *dz = pf_exec_data(x, n->out[0]);
    for (int64_t e = 0; e < E; e++) row(z + e * K, y + e * K, K, dz + e * K, c[e]);
    return PEFT_OK;
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

extern const pf_op pf_op_target_loss, pf_op_target_loss_grad;

const pf_op pf_op_target_loss = {
    .name = "target_loss",
    .what = "cross-entropy, binary cross-entropy or squared difference of a row's logits and "
            "targets",
    .args_size = sizeof(target_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_target_loss_grad = {
    .name = "target_loss_grad",
    .what = "dz = dnll times the slope of the loss in each logit",
    .args_size = sizeof(target_args),
    .shape = grad_shape,
    .cost = cost,
    .kernels = grad_kernels,
};
