/* kron_sum.c - the ops kron_sum and kron_sum_grad; see made.h.
 *
 * A_i is (d, d), W_i (p, q). H = sum of A_i ⊗ W_i is (d p, d q): H[a p + u, b q + v] = sum of
 * A_i[a, b] W_i[u, v]. The op gives M = Hᵀ, (d q, d p), as linear wants a weight. Backward
 *
 *   dA_i[a, b] = sum over u, v of dH[a p + u, b q + v] W_i[u, v]
 *   dW_i[u, v] = sum over a, b of dH[a p + u, b q + v] A_i[a, b] */
#include "ops/made/made.h"
#include "ops/op_util.h"

typedef struct sizes {
    int64_t n, d, p, q;
} sizes;

peft_status pf_kron_sum(pf_graph *g, const char *name, pf_value *a, pf_value *w, pf_value **m,
                        peft_error *err) {
    pf_value *in[2] = {a, w};
    return pf_op_emit(g, "kron_sum", name, NULL, in, 2, m, err);
}

static sizes sizes_of(const pf_value *a, const pf_value *w) {
    const int64_t n = a->rows / a->cols;
    return (sizes){n, a->cols, w->rows / n, w->cols};
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *a = n->in[0], *w = n->in[1];
    if (a->space != PF_SPACE_NONE || w->space != PF_SPACE_NONE || a->rows % a->cols != 0 ||
        w->rows % (a->rows / a->cols) != 0) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld x %lld and %lld x %lld are no stacks of one height",
                       (long long)a->rows, (long long)a->cols, (long long)w->rows,
                       (long long)w->cols);
    }
    const sizes s = sizes_of(a, w);
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, s.d * s.q, s.d * s.p), err);
    return PEFT_OK;
}

/* dm, a, w -> da, dw */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1]), err);
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[2]), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[3] = {pf_grad_of(ad, n->out[0])};
    pf_node *grad;
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    PF_TRY(pf_op_need(ad, n->in[1], &in[2], err));
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "kron_sum_grad", n->name, NULL, in, 3, &grad, err));
    PF_TRY(pf_grad_give(ad, n->in[0], grad->out[0], err));
    return pf_grad_give(ad, n->in[1], grad->out[1], err);
}

typedef struct job {
    sizes s;
    const pf_real *a, *w, *dm;
    pf_real *m, *da, *dw;
} job;

/* A task is a row of M: b and v. */
static void row_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const sizes s = j->s;
    const int64_t b = task / s.q, v = task % s.q;
    pf_real *row = j->m + (int64_t)task * s.d * s.p;
    for (int64_t a = 0; a < s.d; a++) {
        for (int64_t u = 0; u < s.p; u++) {
            double sum = 0;
            for (int64_t i = 0; i < s.n; i++) {
                sum +=
                    (double)j->a[(i * s.d + a) * s.d + b] * (double)j->w[(i * s.p + u) * s.q + v];
            }
            row[a * s.p + u] = (pf_real)sum;
        }
    }
}

/* A task is one number of the A's. */
static void da_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const sizes s = j->s;
    const int64_t i = task / (s.d * s.d), a = task / s.d % s.d, b = task % s.d;
    double sum = 0;
    for (int64_t v = 0; v < s.q; v++) {
        const pf_real *dm = j->dm + (b * s.q + v) * s.d * s.p + a * s.p;
        for (int64_t u = 0; u < s.p; u++)
            sum += (double)dm[u] * (double)j->w[(i * s.p + u) * s.q + v];
    }
    j->da[task] = (pf_real)sum;
}

/* A task is a row of the W's. */
static void dw_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const sizes s = j->s;
    const int64_t i = task / s.p, u = task % s.p;
    for (int64_t v = 0; v < s.q; v++) {
        double sum = 0;
        for (int64_t a = 0; a < s.d; a++) {
            for (int64_t b = 0; b < s.d; b++) {
                sum += (double)j->dm[(b * s.q + v) * s.d * s.p + a * s.p + u] *
                       (double)j->a[(i * s.d + a) * s.d + b];
            }
        }
        j->dw[(int64_t)task * s.q + v] = (pf_real)sum;
    }
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.s = sizes_of(n->in[0], n->in[1]),
             .a = pf_exec_data(x, n->in[0]),
             .w = pf_exec_data(x, n->in[1]),
             .m = pf_exec_data(x, n->out[0])};
    pf_pool_run(pf_exec_pool(x), (int)(j.s.d * j.s.q), row_task, &j);
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.s = sizes_of(n->in[1], n->in[2]),
             .dm = pf_exec_data(x, n->in[0]),
             .a = pf_exec_data(x, n->in[1]),
             .w = pf_exec_data(x, n->in[2]),
             .da = pf_exec_data(x, n->out[0]),
             .dw = pf_exec_data(x, n->out[1])};
    pf_pool_run(pf_exec_pool(x), (int)(j.s.n * j.s.d * j.s.d), da_task, &j);
    pf_pool_run(pf_exec_pool(x), (int)(j.s.n * j.s.p), dw_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 2 * (double)sizes_of(n->in[0], n->in[1]).n);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    const sizes s = sizes_of(n->in[1], n->in[2]);
    return (pf_cost){.flops = 4 * (double)s.n * (double)(s.d * s.p) * (double)(s.d * s.q),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad},
    {0},
};

extern const pf_op pf_op_kron_sum, pf_op_kron_sum_grad;

const pf_op pf_op_kron_sum = {
    .name = "kron_sum",
    .what = "M = (sum over i of A_i kron W_i)^T",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_kron_sum_grad = {
    .name = "kron_sum_grad",
    .what = "dA_i and dW_i of kron_sum",
    .shape = grad_shape,
    .cost = grad_cost,
    .kernels = grad_kernels,
};
