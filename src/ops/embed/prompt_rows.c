/* prompt_rows.c - the ops prompt_rows and prompt_rows_grad; see prompt_rows.h. They work in place:
 * but for the prompt's own rows nothing is moved. */
#include "ops/embed/prompt_rows.h"

#include "ops/op_util.h"

#include <string.h>

peft_status pf_prompt_rows(pf_graph *g, const char *name, pf_value *x, pf_value *prompt, int32_t n,
                           pf_value **y, peft_error *err) {
    const pf_prompt_rows_args args = {.n = n};
    pf_value *in[2] = {x, prompt};
    return pf_op_emit(g, "prompt_rows", name, &args, in, 2, y, err);
}

static peft_status check(const pf_node *n, const pf_value *x, const pf_value *prompt,
                         peft_error *err) {
    const int32_t rows = ((const pf_prompt_rows_args *)n->args)->n;
    const bool has_ids = x->space == PF_SPACE_TOKENS || x->space == PF_SPACE_SOURCE;
    if (has_ids && prompt->space == PF_SPACE_NONE && x->cols == prompt->cols && rows > 0 &&
        rows <= prompt->rows)
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "rows have %lld columns, the prompt %lld x %lld, of which %d",
                   (long long)x->cols, (long long)prompt->rows, (long long)prompt->cols, (int)rows);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n, n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

/* dy, sink of the prompt or NULL -> dx */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[1] != NULL) PF_TRY(check(n, n->in[0], n->in[1], err));
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])}, *dx;
    if (pf_grad_wanted(n->in[1])) in[1] = pf_grad_sink(ad, n->in[1]);
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "prompt_rows_grad", n->name, n->args, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status check_batch(const pf_node *n, const pf_batch *b, peft_error *err) {
    const int32_t rows = ((const pf_prompt_rows_args *)n->args)->n,
                  has = b->n_prompt + b->prompt_each;
    if (has == 0 || (has == rows && b->n_prompt <= b->n_tokens)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_STATE, "the batch has %d rows of a learned prompt, which has %d",
                   (int)has, (int)rows);
}

/* Does this segment begin with the prompt? */
static bool has_prompt(const pf_batch *b, int32_t segment) {
    return b->prompt_each > 0 ? b->segments[segment].parent < 0 : b->n_prompt > 0 && segment == 0;
}

static void copy_all(const pf_exec *x, const pf_batch *b, const pf_value *from,
                     const pf_value *to) {
    const pf_real *src = pf_exec_data(x, from);
    pf_real *dst = pf_exec_data(x, to);
    if (src != dst) memcpy(dst, src, (size_t)(b->n_tokens * from->cols) * sizeof *dst);
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_batch *b = pf_batch_of_space(x->batch, n->out[0]->space);
    const int64_t C = n->in[1]->cols;
    const pf_real *prompt = pf_exec_data(x, n->in[1]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    PF_TRY(check_batch(n, b, err));
    copy_all(x, b, n->in[0], n->out[0]);
    const size_t count = (size_t)((b->n_prompt + b->prompt_each) * C);
    for (int32_t i = 0; i < b->n_segments; i++) {
        if (has_prompt(b, i)) memcpy(y + b->segments[i].start * C, prompt, count * sizeof *y);
    }
    return PEFT_OK;
}

/* In the order of the samples: one sum whatever the threads. */
static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_batch *b = pf_batch_of_space(x->batch, n->out[0]->space);
    const int64_t C = n->in[0]->cols;
    const pf_real *dy = pf_exec_data(x, n->in[0]);
    pf_real *sink = pf_exec_data(x, n->in[1]), *dx = pf_exec_data(x, n->out[0]);
    PF_TRY(check_batch(n, b, err));
    const int64_t count = (b->n_prompt + b->prompt_each) * C;
    for (int32_t i = 0; sink != NULL && i < b->n_segments; i++) {
        const pf_real *from = dy + b->segments[i].start * C;
        for (int64_t k = 0; has_prompt(b, i) && k < count; k++) sink[k] += from[k];
    }
    copy_all(x, b, n->in[0], n->out[0]);
    for (int32_t i = 0; i < b->n_segments; i++) {
        if (has_prompt(b, i)) memset(dx + b->segments[i].start * C, 0, (size_t)count * sizeof *dx);
    }
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
    .what = "y[i] = prompt[k] for row k of a learned prompt, x[i] for the others",
    .args_size = sizeof(pf_prompt_rows_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_prompt_rows_grad = {
    .name = "prompt_rows_grad",
    .what = "dprompt[k] += dy[i] for the rows of a learned prompt; dx is dy, 0 there",
    .args_size = sizeof(pf_prompt_rows_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = cost,
    .in_place = 1,
    .kernels = grad_kernels,
};
