/* add_grad.c - g += d: the gradient of a trained matrix that a node gives whole (pf_grad_give),
 * added to the matrix's block. Products with rows of a batch add their own part there instead
 * (linear_grad_w). */
#include "ops/activation/activation.h"
#include "ops/op_util.h"

enum { TASK_ELEMENTS = 16384 };

/* d, g of one shape */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    return pf_op_check_same(n->in[0], "the gradient", n->in[1], "its parameter", err);
}

typedef struct job {
    const pf_real *d;
    pf_real *g;
    int64_t n;
} job;

static void add_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * TASK_ELEMENTS, to = pf_min_i64(j->n, from + TASK_ELEMENTS);
    for (int64_t i = from; i < to; i++) j->g[i] += j->d[i];
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = {.d = pf_exec_data(x, n->in[0]),
             .g = pf_exec_data(x, n->in[1]),
             .n = pf_exec_rows(x, n->in[1]) * n->in[1]->cols};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n, TASK_ELEMENTS), add_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const double numbers = (double)pf_value_rows(n->in[1], rows) * (double)n->in[1]->cols;
    return (pf_cost){.flops = numbers, .bytes = 3 * numbers * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};

const pf_op pf_op_add_grad = {
    .name = "add_grad",
    .what = "g += d, d the whole gradient of a trained matrix",
    .flags = PF_OP_SIDE_EFFECT,
    .shape = shape,
    .cost = cost,
    .kernels = kernels,
};
