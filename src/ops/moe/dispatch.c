/* dispatch.c - the ops dispatch, dispatch_grad, combine and combine_grad; see moe.h. One node
 * serves all experts of a layer; a task takes some tokens, and each token finds its rows in the
 * routing (graph/routed.h). Sums over a token's experts are in the order of its choices. */
#include "ops/moe/moe.h"

#include "ops/op_util.h"

#include <string.h>

/* --- emitting --------------------------------------------------------------------------------- */

/* `before`, then the n values of the experts, as inputs of one node. */
static pf_value **inputs(pf_graph *g, pf_value *const *before, int n_before, pf_value *const *rows,
                         int n) {
    pf_value **in = PF_NEW_ARRAY(&g->arena, pf_value *, n_before + n);
    if (in == NULL) return NULL;
    memcpy(in, before, (size_t)n_before * sizeof(pf_value *));
    if (rows != NULL) memcpy(in + n_before, rows, (size_t)n * sizeof(pf_value *));
    return in;
}

peft_status pf_dispatch(pf_graph *g, const char *name, const pf_routes *r, pf_value *x,
                        pf_value **rows, peft_error *err) {
    pf_node *n;
    pf_value *in[2] = {x, r->choice};
    PF_TRY(pf_graph_emit(g, "dispatch", name, &r->args, in, 2, &n, err));
    memcpy(rows, n->out, (size_t)r->args.n * sizeof(pf_value *));
    return PEFT_OK;
}

peft_status pf_combine(pf_graph *g, const char *name, const pf_routes *r, pf_value *const *rows,
                       pf_value **y, peft_error *err) {
    pf_value **in = inputs(g, (pf_value *[]){r->weights, r->choice}, 2, rows, r->args.n);
    PF_CHECK_ALLOC(in, err);
    return pf_op_emit(g, "combine", name, &r->args, in, 2 + r->args.n, y, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

/* The rows of all experts have these columns and stand in their spaces. */
static peft_status check_rows(const pf_route_args *a, pf_value *const *rows, int64_t cols,
                              peft_error *err) {
    for (int e = 0; e < a->n; e++) {
        if (rows[e] == NULL || (rows[e]->space == a->first + e && rows[e]->cols == cols)) continue;
        return PF_FAIL(err, PEFT_E_SHAPE, "rows of expert %d have %lld columns, expected %lld", e,
                       (long long)rows[e]->cols, (long long)cols);
    }
    return PEFT_OK;
}

static peft_status dispatch_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    if (n->in[0]->space != PF_SPACE_TOKENS)
        return PF_FAIL(err, PEFT_E_SHAPE, "x has to be rows of tokens");
    for (int e = 0; e < a->n; e++)
        PF_CHECK_ALLOC(pf_graph_out(g, n, a->first + e, 0, n->in[0]->cols), err);
    return PEFT_OK;
}

/* choice, acc or NULL, gradients of the experts' rows (NULL: none) -> dx */
static peft_status dispatch_grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    const pf_value *any = NULL;
    for (int e = 0; e < a->n; e++) any = n->in[2 + e] != NULL ? n->in[2 + e] : any;
    if (any == NULL) return PF_FAIL(err, PEFT_E_SHAPE, "no expert has a gradient");
    PF_TRY(check_rows(a, n->in + 2, any->cols, err));
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_TOKENS, 0, any->cols), err);
    return PEFT_OK;
}

static peft_status combine_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    PF_TRY(check_rows(a, n->in + 2, n->in[2]->cols, err));
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_TOKENS, 0, n->in[2]->cols), err);
    return PEFT_OK;
}

/* dy, weights, choice, and for dweights the experts' rows -> gradients of those, then dweights */
static peft_status combine_grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    const int64_t cols = n->in[0]->cols;
    PF_TRY(check_rows(a, n->in + 3, cols, err));
    for (int e = 0; e < a->n; e++) PF_CHECK_ALLOC(pf_graph_out(g, n, a->first + e, 0, cols), err);
    if (n->in[3] != NULL) PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1]), err);
    return PEFT_OK;
}

/* --- gradients -------------------------------------------------------------------------------- */

static peft_status dispatch_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    if (!pf_grad_wanted(n->in[0])) return PEFT_OK;
    bool any = false;
    for (int e = 0; e < a->n; e++) any |= pf_grad_of(ad, n->out[e]) != NULL;
    if (!any) return PEFT_OK;
    pf_value *choice, *dx;
    PF_TRY(pf_op_need(ad, n->in[1], &choice, err));
    pf_value **in = inputs(pf_grad_graph(ad), (pf_value *[]){choice, pf_grad_take(ad, n->in[0])}, 2,
                           NULL, a->n);
    PF_CHECK_ALLOC(in, err);
    for (int e = 0; e < a->n; e++) in[2 + e] = pf_grad_of(ad, n->out[e]);
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "dispatch_grad", n->name, a, in, 2 + a->n, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status combine_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_route_args *a = n->args;
    pf_value *before[3] = {pf_grad_of(ad, n->out[0])};
    PF_TRY(pf_op_need(ad, n->in[0], &before[1], err));
    PF_TRY(pf_op_need(ad, n->in[1], &before[2], err));
    pf_value **in = inputs(pf_grad_graph(ad), before, 3, NULL, a->n);
    PF_CHECK_ALLOC(in, err);
    const bool want_weights = pf_grad_wanted(n->in[0]);
    for (int e = 0; e < a->n && want_weights; e++)
        PF_TRY(pf_op_need(ad, n->in[2 + e], &in[3 + e], err));
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "combine_grad", n->name, a, in, 3 + a->n, &grad, err));
    for (int e = 0; e < a->n; e++) PF_TRY(pf_grad_give(ad, n->in[2 + e], grad->out[e], err));
    return want_weights ? pf_grad_give(ad, n->in[0], grad->out[a->n], err) : PEFT_OK;
}

/* --- on the CPU ------------------------------------------------------------------------------- */

typedef struct job {
    const pf_exec *x;
    const pf_node *n;
    const pf_route_args *a;
    const pf_routing *r;
    int64_t T, C, task_rows;
    const pf_real *choice, *weights, *in;
    pf_real *out, *dweights;
    pf_value *const *rows;     /* read */
    pf_value *const *out_rows; /* written */
} job;

/* The row of a token's j-th choice in the matrix of its expert; NULL where that has none. */
static pf_real *row_of(const job *j, pf_value *const *rows, int64_t t, int k) {
    const int64_t c = t * j->a->top_k + k;
    const int e = (int)j->choice[c];
    pf_real *first = pf_exec_data(j->x, rows[e]);
    return first != NULL ? first + (j->r->at[c] - j->r->offset[e]) * j->C : NULL;
}

static void dispatch_token(const job *j, int64_t t) {
    for (int k = 0; k < j->a->top_k; k++)
        memcpy(row_of(j, j->out_rows, t, k), j->in + t * j->C, (size_t)j->C * sizeof *j->in);
}

/* out (= acc) + sum of w rows; without weights w is 1 */
static void gather_token(const job *j, int64_t t) {
    pf_real *y = j->out + t * j->C;
    const pf_real *acc = j->in != NULL ? j->in + t * j->C : NULL;
    if (acc == NULL) memset(y, 0, (size_t)j->C * sizeof *y);
    if (acc != NULL && acc != y) memcpy(y, acc, (size_t)j->C * sizeof *y);
    for (int k = 0; k < j->a->top_k; k++) {
        const pf_real *o = row_of(j, j->rows, t, k);
        if (o == NULL) continue;
        const pf_real w = j->weights != NULL ? j->weights[t * j->a->top_k + k] : 1;
        for (int64_t c = 0; c < j->C; c++) y[c] += w * o[c];
    }
}

static void combine_grad_token(const job *j, int64_t t) {
    const pf_real *dy = j->in + t * j->C;
    for (int k = 0; k < j->a->top_k; k++) {
        const pf_real w = j->weights[t * j->a->top_k + k];
        if (j->dweights != NULL) { /* before its room may be taken */
            const pf_real *o = row_of(j, j->rows, t, k);
            pf_real sum = 0;
            for (int64_t c = 0; c < j->C; c++) sum += dy[c] * o[c];
            j->dweights[t * j->a->top_k + k] = sum;
        }
        pf_real *d = row_of(j, j->out_rows, t, k);
        for (int64_t c = 0; c < j->C; c++) d[c] = w * dy[c];
    }
}

#define TASK(name)                                                                                 \
    static void name##_task(void *ctx, int task, int worker) {                                     \
        (void)worker;                                                                              \
        const job *j = ctx;                                                                        \
        const int64_t from = (int64_t)task * j->task_rows,                                         \
                      to = pf_min_i64(from + j->task_rows, j->T);                                  \
        for (int64_t t = from; t < to; t++) name##_token(j, t);                                    \
    }
TASK(dispatch)
TASK(gather)
TASK(combine_grad)

static void spread(job *j, pf_exec *x, const pf_node *n, pf_task_fn fn) {
    j->x = x;
    j->n = n;
    j->a = n->args;
    j->r = pf_exec_routing(x, j->a->first);
    j->T = x->batch->n_tokens;
    j->task_rows = pf_op_rows_per_task(j->C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j->T, j->task_rows), fn, j);
}

static peft_status run_dispatch(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.C = n->in[0]->cols,
             .in = pf_exec_data(x, n->in[0]),
             .choice = pf_exec_data(x, n->in[1]),
             .out_rows = n->out};
    spread(&j, x, n, dispatch_task);
    return PEFT_OK;
}

static peft_status run_dispatch_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.C = n->out[0]->cols,
             .choice = pf_exec_data(x, n->in[0]),
             .in = pf_exec_data(x, n->in[1]),
             .rows = n->in + 2,
             .out = pf_exec_data(x, n->out[0])};
    spread(&j, x, n, gather_task);
    return PEFT_OK;
}

static peft_status run_combine(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.C = n->out[0]->cols,
             .weights = pf_exec_data(x, n->in[0]),
             .choice = pf_exec_data(x, n->in[1]),
             .rows = n->in + 2,
             .out = pf_exec_data(x, n->out[0])};
    spread(&j, x, n, gather_task);
    return PEFT_OK;
}

static peft_status run_combine_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_route_args *a = n->args;
    job j = {.C = n->in[0]->cols,
             .in = pf_exec_data(x, n->in[0]),
             .weights = pf_exec_data(x, n->in[1]),
             .choice = pf_exec_data(x, n->in[2]),
             .rows = n->in + 3,
             .out_rows = n->out,
             .dweights = n->n_out > a->n ? pf_exec_data(x, n->out[a->n]) : NULL};
    spread(&j, x, n, combine_grad_task);
    return PEFT_OK;
}

/* --- descriptors ------------------------------------------------------------------------------ */

/* All experts' rows are top_k times the tokens', whatever the count of nodes says. */
static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const pf_route_args *a = n->args;
    const pf_value *any = n->n_out == 1 ? n->out[0] : n->in[0];
    const double numbers = (double)rows[PF_SPACE_TOKENS] * a->top_k * (double)any->cols;
    return (pf_cost){.flops = 2 * numbers, .bytes = 3 * numbers * sizeof(pf_real)};
}

#define KERNELS(op)                                                                                \
    static const pf_kernel_row op##_kernels[] = {                                                  \
        {.backend = "cpu", .name = "reference", .run = run_##op}, {0}};
KERNELS(dispatch)
KERNELS(dispatch_grad)
KERNELS(combine)
KERNELS(combine_grad)

extern const pf_op pf_op_dispatch, pf_op_dispatch_grad, pf_op_combine, pf_op_combine_grad;

const pf_op pf_op_dispatch = {
    .name = "dispatch",
    .what = "the rows of x that chose each expert, in token order",
    .args_size = sizeof(pf_route_args),
    .flags = PF_OP_CHEAP,
    .shape = dispatch_shape,
    .vjp = dispatch_vjp,
    .cost = cost,
    .kernels = dispatch_kernels,
};

const pf_op pf_op_dispatch_grad = {
    .name = "dispatch_grad",
    .what = "dx[t] = sum of the gradients of t's rows at its experts (+ acc)",
    .args_size = sizeof(pf_route_args),
    .shape = dispatch_grad_shape,
    .cost = cost,
    .in_place = 2,
    .kernels = dispatch_grad_kernels,
};

const pf_op pf_op_combine = {
    .name = "combine",
    .what = "y[t] = sum over t's choices of weight o_expert[row of t]",
    .args_size = sizeof(pf_route_args),
    .shape = combine_shape,
    .vjp = combine_vjp,
    .cost = cost,
    .kernels = combine_kernels,
};

const pf_op pf_op_combine_grad = {
    .name = "combine_grad",
    .what = "do_e[row of t] = weight dy[t]; dweight = dy[t] . o_e[row of t]",
    .args_size = sizeof(pf_route_args),
    .shape = combine_grad_shape,
    .cost = cost,
    .kernels = combine_grad_kernels,
};
