/* mix.c - the ops mix_scores and mix_values and their gradients; see mix.h. With p = softmax(s) and
 * g[k] = dy · V[k]: dV[k] = p[k] dy, ds[k] = p[k] (g[k] - sum over j of p[j] g[j]). */
#include "ops/attention/mix.h"

#include "ops/op_util.h"

peft_status pf_mix_scores(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value **s,
                          peft_error *err) {
    pf_value *in[2] = {q, k};
    return pf_op_emit(g, "mix_scores", name, NULL, in, 2, s, err);
}

peft_status pf_mix_values(pf_graph *g, const char *name, pf_value *s, pf_value *v, pf_value **y,
                          peft_error *err) {
    pf_value *in[2] = {s, v};
    return pf_op_emit(g, "mix_values", name, NULL, in, 2, y, err);
}

/* ---- shapes ---------------------------------------------------------------------------------- */

/* Rows of `one` vector and of n of them. */
static peft_status check(const pf_value *one, const pf_value *many, int64_t n, peft_error *err) {
    if (one->space == many->space && one->rows == many->rows && n >= 1 && n <= PF_MIX_MOST &&
        many->cols == n * one->cols)
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "%lld columns are not %lld vectors of %lld",
                   (long long)many->cols, (long long)n, (long long)one->cols);
}

static peft_status scores_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *q = n->in[0], *k = n->in[1];
    const int64_t count = k->cols / q->cols;
    PF_TRY(check(q, k, count, err));
    PF_CHECK_ALLOC(pf_graph_out(g, n, q->space, q->rows, count), err);
    return PEFT_OK;
}

static peft_status values_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *s = n->in[0], *v = n->in[1];
    const pf_value y = {.space = v->space, .rows = v->rows, .cols = v->cols / s->cols};
    PF_TRY(check(&y, v, s->cols, err));
    PF_CHECK_ALLOC(pf_graph_out(g, n, y.space, y.rows, y.cols), err);
    return PEFT_OK;
}

/* d of the output, then the two inputs -> their gradients */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    for (int i = 0; i < 2; i++) PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1 + i]), err);
    return PEFT_OK;
}

static peft_status scores_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    return pf_op_pair_vjp(ad, n, "mix_scores_grad", err);
}

static peft_status values_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    return pf_op_pair_vjp(ad, n, "mix_values_grad", err);
}

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct job job;
struct job {
    int64_t R, C, n, task_rows;
    void (*row)(const job *j, int64_t i);
    const pf_real *d, *one, *many, *s; /* one: q, or y's shape; many: K or V */
    pf_real *out, *d_many;
};

static pf_real dot(const pf_real *a, const pf_real *b, int64_t n) {
    pf_real sum = 0;
    for (int64_t c = 0; c < n; c++) sum += a[c] * b[c];
    return sum;
}

static void softmax(const pf_real *s, int64_t n, pf_real *p) {
    pf_real most = s[0], sum = 0;
    for (int64_t k = 1; k < n; k++) most = s[k] > most ? s[k] : most;
    for (int64_t k = 0; k < n; k++) sum += p[k] = pf_rexp(s[k] - most);
    for (int64_t k = 0; k < n; k++) p[k] /= sum;
}

static void scores_row(const job *j, int64_t i) {
    for (int64_t k = 0; k < j->n; k++)
        j->out[i * j->n + k] = dot(j->one + i * j->C, j->many + (i * j->n + k) * j->C, j->C);
}

static void scores_grad_row(const job *j, int64_t i) {
    const pf_real *q = j->one + i * j->C, *ds = j->d + i * j->n;
    pf_real *dq = j->out + i * j->C;
    for (int64_t c = 0; c < j->C; c++) dq[c] = 0;
    for (int64_t k = 0; k < j->n; k++) {
        const pf_real *key = j->many + (i * j->n + k) * j->C;
        pf_real *dk = j->d_many + (i * j->n + k) * j->C;
        for (int64_t c = 0; c < j->C; c++) {
            dq[c] += ds[k] * key[c];
            dk[c] = ds[k] * q[c];
        }
    }
}

static void values_row(const job *j, int64_t i) {
    pf_real p[PF_MIX_MOST], *y = j->out + i * j->C;
    softmax(j->s + i * j->n, j->n, p);
    for (int64_t c = 0; c < j->C; c++) y[c] = 0;
    for (int64_t k = 0; k < j->n; k++) {
        const pf_real *v = j->many + (i * j->n + k) * j->C;
        for (int64_t c = 0; c < j->C; c++) y[c] += p[k] * v[c];
    }
}

static void values_grad_row(const job *j, int64_t i) {
    pf_real p[PF_MIX_MOST], g[PF_MIX_MOST], mean = 0;
    const pf_real *dy = j->d + i * j->C;
    softmax(j->s + i * j->n, j->n, p);
    for (int64_t k = 0; k < j->n; k++) {
        g[k] = dot(dy, j->many + (i * j->n + k) * j->C, j->C);
        mean += p[k] * g[k];
    }
    for (int64_t k = 0; k < j->n; k++) {
        pf_real *dv = j->d_many + (i * j->n + k) * j->C;
        j->out[i * j->n + k] = p[k] * (g[k] - mean);
        for (int64_t c = 0; c < j->C; c++) dv[c] = p[k] * dy[c];
    }
}

static void task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * j->task_rows, to = pf_min_i64(from + j->task_rows, j->R);
    for (int64_t i = from; i < to; i++) j->row(j, i);
}

static peft_status launch(pf_exec *x, job *j, const pf_value *many) {
    j->R = pf_exec_rows(x, many);
    j->C = many->cols / j->n;
    j->many = pf_exec_data(x, many);
    j->task_rows = pf_op_rows_per_task(many->cols);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j->R, j->task_rows), task, j);
    return PEFT_OK;
}

static peft_status run_scores(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.row = scores_row,
             .n = n->out[0]->cols,
             .one = pf_exec_data(x, n->in[0]),
             .out = pf_exec_data(x, n->out[0])};
    return launch(x, &j, n->in[1]);
}

static peft_status run_scores_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.row = scores_grad_row,
             .n = n->in[0]->cols,
             .d = pf_exec_data(x, n->in[0]),
             .one = pf_exec_data(x, n->in[1]),
             .out = pf_exec_data(x, n->out[0]),
             .d_many = pf_exec_data(x, n->out[1])};
    return launch(x, &j, n->in[2]);
}

static peft_status run_values(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.row = values_row,
             .n = n->in[0]->cols,
             .s = pf_exec_data(x, n->in[0]),
             .out = pf_exec_data(x, n->out[0])};
    return launch(x, &j, n->in[1]);
}

static peft_status run_values_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.row = values_grad_row,
             .n = n->in[1]->cols,
             .d = pf_exec_data(x, n->in[0]),
             .s = pf_exec_data(x, n->in[1]),
             .out = pf_exec_data(x, n->out[0]),
             .d_many = pf_exec_data(x, n->out[1])};
    return launch(x, &j, n->in[2]);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const pf_value *many = n->in[n->n_in - 1];
    const double numbers = (double)pf_value_rows(many, rows) * (double)many->cols;
    return (pf_cost){.flops = (n->n_in == 3 ? 4 : 2) * numbers,
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

#define ROWS(fn)                                                                                   \
    (const pf_kernel_row[]) {                                                                      \
        {.backend = "cpu", .name = "reference", .run = fn}, {                                      \
            0                                                                                      \
        }                                                                                          \
    }

extern const pf_op pf_op_mix_scores, pf_op_mix_scores_grad, pf_op_mix_values, pf_op_mix_values_grad;

const pf_op pf_op_mix_scores = {
    .name = "mix_scores",
    .what = "s[i,k] = q[i] . K[i,k]",
    .shape = scores_shape,
    .vjp = scores_vjp,
    .cost = cost,
    .kernels = ROWS(run_scores),
};

const pf_op pf_op_mix_scores_grad = {
    .name = "mix_scores_grad",
    .what = "dq[i] = sum of ds[k] K[k], dK[k] = ds[k] q",
    .shape = grad_shape,
    .cost = cost,
    .kernels = ROWS(run_scores_grad),
};

const pf_op pf_op_mix_values = {
    .name = "mix_values",
    .what = "y[i] = sum over k of softmax(s[i])[k] V[i,k]",
    .shape = values_shape,
    .vjp = values_vjp,
    .cost = cost,
    .kernels = ROWS(run_values),
};

const pf_op pf_op_mix_values_grad = {
    .name = "mix_values_grad",
    .what = "dV[k] = p[k] dy, ds[k] = p[k] (dy . V[k] - its mean)",
    .shape = grad_shape,
    .cost = cost,
    .kernels = ROWS(run_values_grad),
};
