/* prompt_rows.c - the ops prompt_rows and prompt_rows_grad; see prompt_rows.h. They work in place:
 * but for the prompt's own rows nothing is moved. */
#include "ops/embed/prompt_rows.h"

#include "ops/op_util.h"

#include <string.h>

peft_status pf_prompt_rows(pf_graph *g, const char *name, pf_value *x, pf_value *prompt,
                           pf_value **y, peft_error *err) {
    pf_value *in[2] = {x, prompt};
    return pf_op_emit(g, "prompt_rows", name, NULL, in, 2, y, err);
}

static peft_status check(const pf_value *x, const pf_value *prompt, peft_error *err) {
    if (x->space == PF_SPACE_TOKENS && prompt->space == PF_SPACE_NONE && x->cols == prompt->cols)
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "token rows have %lld columns, the prompt's %lld",
                   (long long)x->cols, (long long)prompt->cols);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

/* dy, sink of the prompt or NULL -> dx */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[1] != NULL) PF_TRY(check(n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])}, *dx;
    if (pf_grad_wanted(n->in[1])) in[1] = pf_grad_sink(ad, n->in[1]);
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "prompt_rows_grad", n->name, NULL, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status check_batch(const pf_exec *x, const pf_value *prompt, peft_error *err) {
    const int32_t n = x->batch->n_prompt;
    if (n == 0 || (n == prompt->rows && n <= x->batch->n_tokens)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_STATE, "the batch has %d rows of a learned prompt, which has %lld",
                   (int)n, (long long)prompt->rows);
}

/* The rows from the prompt's on, where they are not there already. */
static void keep_rest(const pf_exec *x, const pf_value *from, const pf_value *to) {
    const int64_t first = x->batch->n_prompt * from->cols;
    const pf_real *src = pf_exec_data(x, from) + first;
    pf_real *dst = pf_exec_data(x, to) + first;
    const size_t n = (size_t)(x->batch->n_tokens * from->cols - first);
    if (src != dst) memcpy(dst, src, n * sizeof *dst);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    PF_TRY(check_batch(x, n->in[1], err));
    keep_rest(x, n->in[0], n->out[0]);
    const size_t count = (size_t)(x->batch->n_prompt * n->in[1]->cols);
    if (count > 0) {
        pf_real *y = pf_exec_data(x, n->out[0]);
        memcpy(y, pf_exec_data(x, n->in[1]), count * sizeof *y);
    }
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    if (n->in[1] != NULL) PF_TRY(check_batch(x, n->in[1], err));
    const int64_t count = x->batch->n_prompt * n->in[0]->cols;
    const pf_real *dy = pf_exec_data(x, n->in[0]);
    pf_real *sink = pf_exec_data(x, n->in[1]), *dx = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; sink != NULL && i < count; i++) sink[i] += dy[i];
    keep_rest(x, n->in[0], n->out[0]);
    if (count > 0) memset(dx, 0, (size_t)count * sizeof *dx);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    (void)rows;
    const double numbers = n->in[1] == NULL ? 0 : (double)n->in[1]->rows * (double)n->in[1]->cols;
    return (pf_cost){.flops = numbers, .bytes = 2 * numbers * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

const pf_op pf_op_prompt_rows = {
    .name = "prompt_rows",
    .what = "y[i] = prompt[i] for the rows of a learned prompt, x[i] for the others",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_prompt_rows_grad = {
    .name = "prompt_rows_grad",
    .what = "dprompt[i] += dy[i] for the rows of a learned prompt; dx is dy, 0 there",
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = cost,
    .in_place = 1,
    .kernels = grad_kernels,
};
