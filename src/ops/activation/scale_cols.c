/* scale_cols.c - the ops scale_cols and scale_cols_grad: shapes, gradient, launchers; see
 * scale_cols.h.
 *
 * dx[i,c] = dy[i,c] v[c] and dv[c] = sum over i of dy[i,c] x[i,c], in one pass over dy. A task of
 * the backward pass owns columns, so that the sum goes in the order of the rows. */
#include "ops/activation/scale_cols.h"

#include "ops/op_util.h"

#include <string.h>

typedef struct grad_args {
    bool dx, dv_out; /* is dx wanted; is dv a value of its own (v is no parameter) */
} grad_args;

peft_status pf_scale_cols(pf_graph *g, const char *name, pf_value *x, pf_value *v, pf_value **y,
                          peft_error *err) {
    pf_value *in[2] = {x, v};
    return pf_op_emit(g, "scale_cols", name, NULL, in, 2, y, err);
}

static peft_status check_factors(const pf_value *x, const pf_value *v, peft_error *err) {
    if (v->space == PF_SPACE_NONE && (v->rows == 1 || v->cols == 1) &&
        v->rows * v->cols == x->cols) {
        return PEFT_OK;
    }
    return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, the factors are %lld x %lld",
                   (long long)x->cols, (long long)v->rows, (long long)v->cols);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check_factors(n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

/* dy, x or NULL, v, sink of dv or NULL -> dx, dv (each if wanted) */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const grad_args *a = n->args;
    PF_TRY(check_factors(n->in[0], n->in[2], err));
    if (n->in[1] != NULL) PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "x", err));
    if (a->dx) pf_op_out_like(g, n, n->in[0]);
    if (a->dv_out) pf_op_out_like(g, n, n->in[2]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *x = n->in[0], *v = n->in[1], *in[4] = {pf_grad_of(ad, n->out[0])};
    const bool dv = pf_grad_wanted(v);
    const grad_args args = {.dx = pf_grad_wanted(x), .dv_out = dv && v->kind == PF_VALUE_ACT};
    pf_node *grad;
    if (dv) PF_TRY(pf_op_need(ad, x, &in[1], err));
    PF_TRY(pf_op_need(ad, v, &in[2], err));
    if (dv && !args.dv_out) in[3] = pf_grad_sink(ad, v);
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "scale_cols_grad", n->name, &args, in, 4, &grad, err));
    if (args.dx) PF_TRY(pf_grad_give(ad, x, grad->out[0], err));
    return args.dv_out ? pf_grad_give(ad, v, grad->out[args.dx ? 1 : 0], err) : PEFT_OK;
}

/* ---- reference ------------------------------------------------------------------------------- */

void pf_scale_cols_cpu(const pf_scale_cols_call *c) {
    for (int64_t i = 0; i < c->rows; i++) {
        const pf_real *x = c->x + i * c->stride;
        pf_real *y = c->y + i * c->stride;
        for (int64_t k = 0; k < c->n; k++) y[k] = x[k] * c->v[k];
    }
}

void pf_scale_cols_grad_cpu(const pf_scale_cols_call *c) {
    pf_real sum[PF_SCALE_STRIP] = {0};
    for (int64_t i = 0; i < c->rows; i++) {
        const int64_t at = i * c->stride;
        for (int64_t k = 0; k < c->n; k++) {
            const pf_real dy = c->x[at + k];
            if (c->from != NULL) sum[k] += dy * c->from[at + k];
            if (c->y != NULL) c->y[at + k] = dy * c->v[k];
        }
    }
    for (int64_t k = 0; c->from != NULL && k < c->n; k++) c->dv[k] += sum[k];
}

/* ---- launchers ------------------------------------------------------------------------------- */

typedef struct job {
    pf_scale_cols_call call;
    int64_t task_rows;
    void (*fn)(const pf_scale_cols_call *c);
} job;

static void row_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_scale_cols_call c = j->call;
    const int64_t first = task * j->task_rows;
    c.rows = pf_min_i64(j->task_rows, c.rows - first);
    c.x += first * c.stride;
    c.y += first * c.stride;
    j->fn(&c);
}

static void strip_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_scale_cols_call c = j->call;
    const int64_t first = (int64_t)task * PF_SCALE_STRIP;
    c.n = pf_min_i64(PF_SCALE_STRIP, c.stride - first);
    c.x += first;
    c.v += first;
    if (c.y != NULL) c.y += first;
    if (c.from != NULL) c.from += first, c.dv += first;
    j->fn(&c);
}

static peft_status run_with(pf_exec *x, const pf_node *n, void (*fn)(const pf_scale_cols_call *)) {
    job j = {.fn = fn};
    j.call.x = pf_exec_data(x, n->in[0]);
    j.call.v = pf_op_vector(x, n->in[1], (pf_real *)(void *)x->workspace);
    j.call.y = pf_exec_data(x, n->out[0]);
    j.call.rows = pf_exec_rows(x, n->in[0]);
    j.call.n = j.call.stride = n->in[0]->cols;
    j.task_rows = pf_op_rows_per_task(j.call.n);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.call.rows, j.task_rows), row_task, &j);
    return PEFT_OK;
}

static peft_status run_grad_with(pf_exec *x, const pf_node *n,
                                 void (*fn)(const pf_scale_cols_call *)) {
    const grad_args *a = n->args;
    job j = {.fn = fn};
    j.call.x = pf_exec_data(x, n->in[0]);
    j.call.from = pf_exec_data(x, n->in[1]);
    j.call.v = pf_op_vector(x, n->in[2], (pf_real *)(void *)x->workspace);
    j.call.y = a->dx ? pf_exec_data(x, n->out[0]) : NULL;
    j.call.dv = pf_exec_data(x, a->dv_out ? n->out[a->dx ? 1 : 0] : n->in[3]);
    j.call.rows = pf_exec_rows(x, n->in[0]);
    j.call.stride = n->in[0]->cols;
    if (a->dv_out) memset(j.call.dv, 0, (size_t)j.call.stride * sizeof *j.call.dv);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.call.stride, PF_SCALE_STRIP), strip_task, &j);
    return PEFT_OK;
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    return pf_op_vector_scratch(n->in[1]);
}

static int64_t grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    return pf_op_vector_scratch(n->in[2]);
}

#define RUN(isa)                                                                                   \
    static peft_status run_##isa(pf_exec *x, const pf_node *n, peft_error *err) {                  \
        (void)err;                                                                                 \
        return run_with(x, n, pf_scale_cols_##isa);                                                \
    }                                                                                              \
    static peft_status run_grad_##isa(pf_exec *x, const pf_node *n, peft_error *err) {             \
        (void)err;                                                                                 \
        return run_grad_with(x, n, pf_scale_cols_grad_##isa);                                      \
    }
RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
static const pf_kernel_row kernels[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    const double numbers = (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols;
    return (pf_cost){.flops = 3 * numbers, .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

const pf_op pf_op_scale_cols = {
    .name = "scale_cols",
    .what = "y[i,c] = x[i,c] v[c]",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_scale_cols_grad = {
    .name = "scale_cols_grad",
    .what = "dx[i,c] = dy[i,c] v[c]; dv[c] += sum of dy[i,c] x[i,c], rows in order",
    .args_size = sizeof(grad_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = grad_workspace,
    .cost = grad_cost,
    .kernels = grad_kernels,
};
