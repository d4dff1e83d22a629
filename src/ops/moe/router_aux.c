/* router_aux.c - the ops router_aux and router_aux_grad; see router_aux.h. Inputs are nll (or its
 * gradient), then choice and probs of each layer. */
#include "ops/moe/router_aux.h"

#include "ops/op_util.h"

#include <string.h>

typedef struct aux_args {
    int n, top_k, n_layers;
    double coef;
} aux_args;

peft_status pf_router_aux(pf_graph *g, const char *name, pf_value *nll, const pf_routes *routes,
                          int n_layers, double coef, pf_value **y, peft_error *err) {
    const aux_args args = {routes[0].args.n, routes[0].args.top_k, n_layers, coef};
    pf_value **in = PF_NEW_ARRAY(&g->arena, pf_value *, 1 + 2 * n_layers);
    PF_CHECK_ALLOC(in, err);
    in[0] = nll;
    for (int l = 0; l < n_layers; l++) {
        in[1 + 2 * l] = routes[l].choice;
        in[2 + 2 * l] = routes[l].probs;
    }
    return pf_op_emit(g, "router_aux", name, &args, in, 1 + 2 * n_layers, y, err);
}

static peft_status check(const pf_node *n, peft_error *err) {
    const aux_args *a = n->args;
    for (int l = 0; l < a->n_layers; l++) {
        if (n->in[1 + 2 * l]->cols == a->top_k && n->in[2 + 2 * l]->cols == a->n) continue;
        return PF_FAIL(err, PEFT_E_SHAPE, "layer %d has another number of experts", l);
    }
    if (n->in[0]->cols == 1) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "the loss has to have one number per label");
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n, err));
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[0]), err);
    return PEFT_OK;
}

/* -> dprobs, the same for every layer */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n, err));
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[2]), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const aux_args *a = n->args;
    pf_value **in = PF_NEW_ARRAY(&pf_grad_graph(ad)->arena, pf_value *, n->n_in);
    PF_CHECK_ALLOC(in, err);
    in[0] = pf_grad_of(ad, n->out[0]);
    bool any = false;
    for (int i = 1; i < n->n_in; i++) {
        PF_TRY(pf_op_need(ad, n->in[i], &in[i], err));
        any |= pf_grad_wanted(n->in[i]);
    }
    PF_TRY(pf_grad_give(ad, n->in[0], in[0], err));
    if (!any) return PEFT_OK;
    pf_value *dprobs;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "router_aux_grad", n->name, a, in, n->n_in, &dprobs, err));
    for (int l = 0; l < a->n_layers; l++) PF_TRY(pf_grad_give(ad, n->in[2 + 2 * l], dprobs, err));
    return PEFT_OK;
}

/* f of every expert, in double: these are counts */
static void shares(const pf_exec *x, const pf_node *n, double *f) {
    const aux_args *a = n->args;
    const int64_t T = x->batch->n_tokens, k = a->top_k;
    memset(f, 0, (size_t)a->n * sizeof *f);
    for (int l = 0; l < a->n_layers; l++) {
        const pf_real *choice = pf_exec_data(x, n->in[1 + 2 * l]);
        for (int64_t c = 0; c < T * k; c++) f[(int)choice[c]] += 1;
    }
    for (int e = 0; e < a->n; e++) f[e] /= (double)a->n_layers * (double)T;
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const aux_args *a = n->args;
    const int64_t T = x->batch->n_tokens, E = pf_exec_rows(x, n->in[0]);
    double *f = (double *)(void *)x->workspace, aux = 0;
    shares(x, n, f);
    for (int l = 0; l < a->n_layers; l++) {
        const pf_real *p = pf_exec_data(x, n->in[2 + 2 * l]);
        for (int64_t t = 0; t < T; t++) {
            for (int e = 0; e < a->n; e++) aux += f[e] * (double)p[t * a->n + e];
        }
    }
    aux *= a->coef * a->n / ((double)a->n_layers * (double)T);
    const pf_real *nll = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < E; i++) y[i] = nll[i] + (pf_real)aux;
    return PEFT_OK;
}

/* dp[t, e] = coef n f_e / (L T) times the sum of dy */
static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const aux_args *a = n->args;
    const int64_t T = x->batch->n_tokens, E = pf_exec_rows(x, n->in[0]);
    double *f = (double *)(void *)x->workspace, sum = 0;
    const pf_real *dy = pf_exec_data(x, n->in[0]);
    pf_real *d = pf_exec_data(x, n->out[0]);
    shares(x, n, f);
    for (int64_t i = 0; i < E; i++) sum += (double)dy[i];
    sum *= a->coef * a->n / ((double)a->n_layers * (double)T);
    for (int64_t t = 0; t < T; t++) {
        for (int e = 0; e < a->n; e++) d[t * a->n + e] = (pf_real)(sum * f[e]);
    }
    return PEFT_OK;
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    (void)n_workers;
    return ((const aux_args *)n->args)->n * (int64_t)sizeof(double);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 2 * pf_op_elements(n, rows),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run, .workspace = workspace}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad, .workspace = workspace}, {0}};

extern const pf_op pf_op_router_aux, pf_op_router_aux_grad;

const pf_op pf_op_router_aux = {
    .name = "router_aux",
    .what = "y = nll + coef n sum_e f_e P_e over the routers of all layers",
    .args_size = sizeof(aux_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_router_aux_grad = {
    .name = "router_aux_grad",
    .what = "dprobs[t, e] = coef n f_e / (L T) sum of dy",
    .args_size = sizeof(aux_args),
    .shape = grad_shape,
    .cost = cost,
    .kernels = grad_kernels,
};
