/* split.c - the ops split and join; see split.h. Each is the other's gradient; both are copies. */
#include "ops/shape/split.h"

#include "ops/op_util.h"

#include <string.h>

peft_status pf_split(pf_graph *g, const char *name, pf_value *x, const pf_split_args *args,
                     pf_value **ys, peft_error *err) {
    pf_node *n;
    PF_TRY(pf_graph_emit(g, "split", name, args, &x, 1, &n, err));
    for (int i = 0; i < args->n; i++) ys[i] = n->out[i];
    return PEFT_OK;
}

peft_status pf_join(pf_graph *g, const char *name, pf_value *const *xs, const pf_split_args *args,
                    pf_value **y, peft_error *err) {
    return pf_op_emit(g, "join", name, args, xs, args->n, y, err);
}

/* --- shapes ----------------------------------------------------------------------------------- */

/* Columns of a period; fails for widths that cannot be. */
static peft_status period_of(const pf_split_args *a, int64_t *period, peft_error *err) {
    *period = 0;
    bool good = a->periods > 0 && a->n > 0 && a->n <= PF_SPLIT_MAX;
    for (int i = 0; good && i < a->n; i++) {
        good = a->width[i] > 0;
        *period += a->width[i];
    }
    if (good) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "%lld periods of %d parts cannot be", (long long)a->periods,
                   a->n);
}

static peft_status split_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_split_args *a = n->args;
    const pf_value *x = n->in[0];
    int64_t period;
    PF_TRY(period_of(a, &period, err));
    if (x->cols != a->periods * period) {
        return PF_FAIL(err, PEFT_E_SHAPE, "x has %lld columns, not %lld x %lld", (long long)x->cols,
                       (long long)a->periods, (long long)period);
    }
    for (int i = 0; i < a->n; i++) pf_graph_out(g, n, x->space, x->rows, a->periods * a->width[i]);
    return PEFT_OK;
}

static peft_status join_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_split_args *a = n->args;
    const pf_value *first = NULL;
    int64_t period;
    PF_TRY(period_of(a, &period, err));
    for (int i = 0; i < n->n_in; i++) {
        const pf_value *x = n->in[i];
        if (x == NULL) continue;
        if (first == NULL) first = x;
        if (x->cols != a->periods * a->width[i] || x->space != first->space ||
            (x->space == PF_SPACE_NONE && x->rows != first->rows)) {
            return PF_FAIL(err, PEFT_E_SHAPE, "part %d has %lld columns, not %lld x %lld", i,
                           (long long)x->cols, (long long)a->periods, (long long)a->width[i]);
        }
    }
    if (first == NULL || n->n_in != a->n)
        return PF_FAIL(err, PEFT_E_SHAPE, "%d of %d parts", n->n_in, a->n);
    pf_graph_out(g, n, first->space, first->rows, a->periods * period);
    return PEFT_OK;
}

/* --- gradients -------------------------------------------------------------------------------- */

static peft_status split_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_split_args *a = n->args;
    pf_value *dys[PF_SPLIT_MAX], *dx;
    for (int i = 0; i < a->n; i++) dys[i] = pf_grad_of(ad, n->out[i]);
    PF_TRY(pf_join(pf_grad_graph(ad), n->name, dys, a, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status join_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_split_args *a = n->args;
    pf_value *dxs[PF_SPLIT_MAX];
    PF_TRY(pf_split(pf_grad_graph(ad), n->name, pf_grad_of(ad, n->out[0]), a, dxs, err));
    for (int i = 0; i < a->n; i++) {
        if (n->in[i] != NULL) PF_TRY(pf_grad_give(ad, n->in[i], dxs[i], err));
    }
    return PEFT_OK;
}

/* --- kernel ----------------------------------------------------------------------------------- */

typedef struct job {
    const pf_split_args *a;
    bool join;
    pf_real *whole;              /* (R, cols) */
    pf_real *part[PF_SPLIT_MAX]; /* (R, periods · width), NULL: zeros */
    int64_t R, cols, task_rows;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_split_args *a = j->a;
    const int64_t from = task * j->task_rows, to = pf_min_i64(j->R, from + j->task_rows);
    for (int64_t r = from; r < to; r++) {
        pf_real *whole = j->whole + r * j->cols;
        for (int64_t p = 0; p < a->periods; p++) {
            for (int i = 0; i < a->n; i++) {
                const size_t bytes = (size_t)a->width[i] * sizeof *whole;
                pf_real *part =
                    j->part[i] == NULL ? NULL : j->part[i] + (r * a->periods + p) * a->width[i];
                if (!j->join) {
                    memcpy(part, whole, bytes);
                } else if (part != NULL) {
                    memcpy(whole, part, bytes);
                } else {
                    memset(whole, 0, bytes);
                }
                whole += a->width[i];
            }
        }
    }
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.a = n->args, .join = n->op == &pf_op_join};
    const pf_value *whole = j.join ? n->out[0] : n->in[0];
    j.whole = pf_exec_data(x, whole);
    j.R = pf_exec_rows(x, whole);
    j.cols = whole->cols;
    for (int i = 0; i < j.a->n; i++) j.part[i] = pf_exec_data(x, j.join ? n->in[i] : n->out[i]);
    j.task_rows = pf_op_rows_per_task(2 * j.cols);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), run_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};

const pf_op pf_op_split = {
    .name = "split",
    .what = "columns dealt out: part i of every period goes to result i",
    .args_size = sizeof(pf_split_args),
    .shape = split_shape,
    .vjp = split_vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_join = {
    .name = "join",
    .what = "the inverse of split; a missing part is zeros",
    .args_size = sizeof(pf_split_args),
    .shape = join_shape,
    .vjp = join_vjp,
    .cost = cost,
    .kernels = kernels,
};
