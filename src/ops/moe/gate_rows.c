/* gate_rows.c - the ops gate_rows and gate_rows_grad: y = sigmoid(z) x, one z per row; see moe.h.
 */
#include "ops/moe/moe.h"
#include "ops/op_util.h"

peft_status pf_gate_rows(pf_graph *g, const char *name, pf_value *x, pf_value *z, pf_value **y,
                         peft_error *err) {
    pf_value *in[2] = {x, z};
    return pf_op_emit(g, "gate_rows", name, NULL, in, 2, y, err);
}

static peft_status check(const pf_value *x, const pf_value *z, peft_error *err) {
    if (z->cols == 1 && z->space == x->space) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "z has to have one number per row of x");
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[0], n->in[1], err));
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[0]), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    return pf_op_pair_vjp(ad, n, "gate_rows_grad", err);
}

/* dy, x, z -> dx, dz */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "x", err));
    PF_TRY(check(n->in[1], n->in[2], err));
    for (int i = 0; i < 2; i++) PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1 + i]), err);
    return PEFT_OK;
}

typedef struct job {
    int64_t R, C, task_rows;
    const pf_real *x, *z, *dy;
    pf_real *y, *dz;
} job;

static pf_real sigmoid(pf_real z) {
    return 1 / (1 + pf_rexp(-z));
}

static void task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * j->task_rows, to = pf_min_i64(from + j->task_rows, j->R);
    for (int64_t i = from; i < to; i++) {
        const pf_real s = sigmoid(j->z[i]), *x = j->x + i * j->C;
        pf_real *y = j->y + i * j->C, dot = 0;
        for (int64_t c = 0; j->dy != NULL && c < j->C; c++) dot += j->dy[i * j->C + c] * x[c];
        const pf_real *from_row = j->dy != NULL ? j->dy + i * j->C : x;
        for (int64_t c = 0; c < j->C; c++) y[c] = s * from_row[c];
        if (j->dz != NULL) j->dz[i] = dot * s * (1 - s);
    }
}

static peft_status launch(pf_exec *x, const pf_node *n, int first, bool back) {
    job j = {.R = pf_exec_rows(x, n->in[first]),
             .C = n->in[first]->cols,
             .x = pf_exec_data(x, n->in[first]),
             .z = pf_exec_data(x, n->in[first + 1]),
             .dy = back ? pf_exec_data(x, n->in[0]) : NULL,
             .y = pf_exec_data(x, n->out[0]),
             .dz = back ? pf_exec_data(x, n->out[1]) : NULL};
    j.task_rows = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), task, &j);
    return PEFT_OK;
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    return launch(x, n, 0, false);
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    return launch(x, n, 1, true);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 3);
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

extern const pf_op pf_op_gate_rows, pf_op_gate_rows_grad;

const pf_op pf_op_gate_rows = {
    .name = "gate_rows",
    .what = "y = sigmoid(z) x, one z per row",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_gate_rows_grad = {
    .name = "gate_rows_grad",
    .what = "dx = sigmoid(z) dy, dz = (dy . x) s (1 - s)",
    .shape = grad_shape,
    .cost = cost,
    .in_place = 1,
    .kernels = grad_kernels,
};
