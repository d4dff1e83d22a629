/* route.c - the ops route and route_grad; see moe.h. The gradient goes through the weights and,
 * where routers have a loss of their own (router_aux.h), the probabilities: which experts are
 * chosen is no differentiable thing. */
#include "ops/moe/moe.h"

#include "ops/op_util.h"

enum { TASK_ROWS = 64, MOST_EXPERTS = 4096 };

peft_status pf_route(pf_graph *g, const char *name, pf_value *logits, const pf_route_args *args,
                     pf_routes *out, peft_error *err) {
    pf_node *n;
    *out = (pf_routes){.args = *args};
    out->args.first = pf_graph_add_routed(g, args->n, args->top_k);
    if (out->args.first < 0) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    PF_TRY(pf_graph_emit(g, "route", name, &out->args, &logits, 1, &n, err));
    out->weights = n->out[0];
    out->choice = n->out[1];
    out->probs = n->out[2];
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    const pf_value *logits = n->in[0];
    if (logits->space != PF_SPACE_TOKENS || logits->cols != a->n || a->n < 1 ||
        a->n > MOST_EXPERTS || a->top_k < 1 || a->top_k > a->n) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "%lld columns of logits for %d experts, of which a row has %d",
                       (long long)logits->cols, a->n, a->top_k);
    }
    const int64_t cols[3] = {a->top_k, a->top_k, a->n};
    for (int i = 0; i < 3; i++) {
        pf_value *v = pf_graph_out(g, n, PF_SPACE_TOKENS, 0, cols[i]);
        PF_CHECK_ALLOC(v, err);
        if (i == 1) v->needs_grad = false;
    }
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[5] = {pf_grad_of(ad, n->out[0]), pf_grad_of(ad, n->out[2])}, *dx;
    if (in[0] == NULL && in[1] == NULL) return PEFT_OK;
    for (int i = 0; i < 3; i++) PF_TRY(pf_op_need(ad, n->out[i], &in[2 + i], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "route_grad", n->name, n->args, in, 5, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

/* dweights or NULL, dprobs or NULL, weights, choice, probs -> dlogits */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0] != NULL) PF_TRY(pf_op_check_same(n->in[0], "dweights", n->in[2], "weights", err));
    if (n->in[1] != NULL) PF_TRY(pf_op_check_same(n->in[1], "dprobs", n->in[4], "probs", err));
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[4]), err);
    return PEFT_OK;
}

/* --- on the CPU ------------------------------------------------------------------------------- */

typedef struct job {
    const pf_route_args *a;
    int64_t T;
    const pf_real *logits, *dweights, *dprobs;
    pf_real *weights, *choice, *probs, *dlogits;
    int32_t *expert;
} job;

static void softmax(const pf_real *z, int n, pf_real *p) {
    pf_real most = z[0], sum = 0;
    for (int e = 1; e < n; e++) most = z[e] > most ? z[e] : most;
    for (int e = 0; e < n; e++) sum += p[e] = pf_rexp(z[e] - most);
    for (int e = 0; e < n; e++) p[e] /= sum;
}

static void route_row(const job *j, int64_t t) {
    const pf_route_args *a = j->a;
    pf_real *p = j->probs + t * a->n, *w = j->weights + t * a->top_k, sum = 0;
    softmax(j->logits + t * a->n, a->n, p);
    for (int k = 0; k < a->top_k; k++) { /* few: the largest that is not taken yet */
        int best = -1;
        for (int e = 0; e < a->n; e++) {
            bool taken = false;
            for (int i = 0; i < k; i++) taken |= j->expert[t * a->top_k + i] == e;
            if (!taken && (best < 0 || p[e] > p[best])) best = e;
        }
        j->expert[t * a->top_k + k] = best;
        j->choice[t * a->top_k + k] = (pf_real)best;
        sum += w[k] = p[best];
    }
    for (int k = 0; k < a->top_k && a->normalize; k++) w[k] /= sum;
}

static void route_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, j->T);
    for (int64_t t = from; t < to; t++) route_row(j, t);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.a = n->args,
             .T = pf_exec_rows(x, n->in[0]),
             .logits = pf_exec_data(x, n->in[0]),
             .weights = pf_exec_data(x, n->out[0]),
             .choice = pf_exec_data(x, n->out[1]),
             .probs = pf_exec_data(x, n->out[2]),
             .expert = (int32_t *)(void *)x->workspace};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.T, TASK_ROWS), route_task, &j);
    pf_exec_route(x, j.a->first, j.expert);
    return PEFT_OK;
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n_workers;
    const pf_route_args *a = n->args;
    return capacity[PF_SPACE_TOKENS] * a->top_k * (int64_t)sizeof(int32_t);
}

/* With S = sum of the chosen p (or 1): dp_j += (dw_j - sum dw w) / S for a chosen one; then dz_e =
 * p_e (dp_e - sum p dp). */
static void grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_route_args *a = j->a;
    const int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, j->T);
    for (int64_t t = from; t < to; t++) {
        const pf_real *p = j->probs + t * a->n, *w = j->weights + t * a->top_k,
                      *dw = j->dweights != NULL ? j->dweights + t * a->top_k : NULL,
                      *choice = j->choice + t * a->top_k;
        pf_real *dz = j->dlogits + t * a->n, sum = 0, mean = 0, inner = 0;
        for (int e = 0; e < a->n; e++) dz[e] = j->dprobs != NULL ? j->dprobs[t * a->n + e] : 0;
        for (int k = 0; k < a->top_k && dw != NULL; k++) {
            sum += p[(int)choice[k]];
            mean += dw[k] * w[k];
        }
        for (int k = 0; k < a->top_k && dw != NULL; k++)
            dz[(int)choice[k]] += a->normalize ? (dw[k] - mean) / sum : dw[k];
        for (int e = 0; e < a->n; e++) inner += p[e] * dz[e];
        for (int e = 0; e < a->n; e++) dz[e] = p[e] * (dz[e] - inner);
    }
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.a = n->args,
             .T = pf_exec_rows(x, n->in[2]),
             .dweights = pf_exec_data(x, n->in[0]),
             .dprobs = pf_exec_data(x, n->in[1]),
             .weights = pf_exec_data(x, n->in[2]),
             .choice = pf_exec_data(x, n->in[3]),
             .probs = pf_exec_data(x, n->in[4]),
             .dlogits = pf_exec_data(x, n->out[0])};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.T, TASK_ROWS), grad_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const pf_route_args *a = n->args;
    return (pf_cost){.flops = (double)rows[PF_SPACE_TOKENS] * a->n * (20 + a->top_k),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run, .workspace = workspace}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

const pf_op pf_op_route = {
    .name = "route",
    .what = "weights and experts of a row: the top k of softmax(logits), normalized or not",
    .args_size = sizeof(pf_route_args),
    .flags = PF_OP_ALWAYS_SAVED | PF_OP_SIDE_EFFECT,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_route_grad = {
    .name = "route_grad",
    .what = "dlogits from the gradient of the weights of the chosen experts",
    .args_size = sizeof(pf_route_args),
    .shape = grad_shape,
    .cost = cost,
    .kernels = grad_kernels,
};
