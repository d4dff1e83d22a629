/* lstm.c - the ops lstm and lstm_grad; see lstm.h.
 *
 * The forward pass keeps the gates behind their functions and the cells: the backward pass goes
 * through the rows the other way with them, and nothing is computed twice. */
#include "ops/recurrent/lstm.h"

#include "ops/op_util.h"

#include <math.h>
#include <string.h>

peft_status pf_lstm(pf_graph *g, const char *name, pf_value *gates, pf_value *w,
                    const pf_lstm_args *args, pf_value **h, peft_error *err) {
    pf_value *in[2] = {gates, w};
    return pf_op_emit(g, "lstm", name, args, in, 2, h, err);
}

static peft_status check(const pf_value *gates, const pf_value *w, peft_error *err) {
    if (gates->space == PF_SPACE_TOKENS && w->space == PF_SPACE_NONE && w->kind == PF_VALUE_PARAM &&
        w->rows == gates->cols && w->rows == 4 * w->cols)
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "gates of %lld columns and a matrix of %lld x %lld",
                   (long long)gates->cols, (long long)w->rows, (long long)w->cols);
}

/* -> h (T, H), c (T, H), the gates behind their functions (T, 4H) */
static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *w = n->in[1];
    PF_TRY(check(n->in[0], w, err));
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, w->cols);
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, w->cols);
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, w->rows);
    return PEFT_OK;
}

enum { DH, H_, C_, GATES, W, DW, GRAD_INPUTS };

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[GATES], n->in[W], err));
    pf_op_out_like(g, n, n->in[GATES]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[GRAD_INPUTS] = {[DH] = pf_grad_of(ad, n->out[0]), [W] = n->in[1]}, *dx;
    if (in[DH] == NULL) return PF_FAIL(err, PEFT_E_UNSUPPORTED, "cells are not differentiable");
    for (int k = 0; k < 3; k++) PF_TRY(pf_op_need(ad, n->out[k], &in[H_ + k], err));
    if (pf_grad_wanted(n->in[1])) in[DW] = pf_grad_sink(ad, n->in[1]);
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "lstm_grad", n->name, n->args, in, GRAD_INPUTS, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* Row t of the sequence stands in this row of the batch; the one before it, -1 for none. */
static int64_t row_at(const pf_lstm_args *a, int64_t t, int64_t T) {
    if (t < 0) return -1;
    return a->reverse ? T - 1 - t : t;
}

static double logistic(double x) {
    return 1 / (1 + exp(-x));
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_lstm_args *a = n->args;
    const int64_t T = x->batch->n_tokens, H = n->in[1]->cols;
    const pf_real *in = pf_exec_data(x, n->in[0]), *w = pf_exec_data(x, n->in[1]);
    pf_real *h = pf_exec_data(x, n->out[0]), *c = pf_exec_data(x, n->out[1]),
            *gates = pf_exec_data(x, n->out[2]);
    for (int64_t t = 0; t < T; t++) {
        const int64_t row = row_at(a, t, T), before = row_at(a, t - 1, T);
        for (int64_t k = 0; k < 4 * H; k++) {
            double sum = (double)in[row * 4 * H + k];
            for (int64_t i = 0; before >= 0 && i < H; i++)
                sum += (double)w[k * H + i] * (double)h[before * H + i];
            gates[row * 4 * H + k] = (pf_real)(k / H == 2 ? tanh(sum) : logistic(sum));
        }
        const pf_real *g = gates + row * 4 * H;
        for (int64_t i = 0; i < H; i++) {
            const double last = before >= 0 ? (double)c[before * H + i] : 0;
            const double cell = (double)g[H + i] * last + (double)g[i] * (double)g[2 * H + i];
            c[row * H + i] = (pf_real)cell;
            h[row * H + i] = (pf_real)((double)g[3 * H + i] * tanh(cell));
        }
    }
    return PEFT_OK;
}

typedef struct back {
    const pf_real *h, *c, *gates, *w; /* of the forward pass */
    double *dh, *dc;                  /* (H) what later rows say of this one's h and c */
    int64_t H;
} back;

/* Gradients of one row's gates before their functions, into d; dc becomes that of the cell before.
 */
static void row_grad(const back *b, const pf_real *dy, int64_t row, int64_t before, pf_real *d) {
    const int64_t H = b->H;
    const pf_real *g = b->gates + row * 4 * H;
    for (int64_t i = 0; i < H; i++) {
        const double in = (double)g[i], forget = (double)g[H + i], cell = (double)g[2 * H + i],
                     out = (double)g[3 * H + i];
        const double squashed = tanh((double)b->c[row * H + i]);
        const double dh = (double)dy[row * H + i] + b->dh[i];
        const double dc = b->dc[i] + dh * out * (1 - squashed * squashed);
        const double last = before >= 0 ? (double)b->c[before * H + i] : 0;
        d[i] = (pf_real)(dc * cell * in * (1 - in));
        d[H + i] = (pf_real)(dc * last * forget * (1 - forget));
        d[2 * H + i] = (pf_real)(dc * in * (1 - cell * cell));
        d[3 * H + i] = (pf_real)(dh * squashed * out * (1 - out));
        b->dc[i] = dc * forget;
    }
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_lstm_args *a = n->args;
    const int64_t T = x->batch->n_tokens, H = n->in[W]->cols;
    const pf_real *dy = pf_exec_data(x, n->in[DH]);
    pf_real *dw = pf_exec_data(x, n->in[DW]), *dx = pf_exec_data(x, n->out[0]);
    back b = {.h = pf_exec_data(x, n->in[H_]),
              .c = pf_exec_data(x, n->in[C_]),
              .gates = pf_exec_data(x, n->in[GATES]),
              .w = pf_exec_data(x, n->in[W]),
              .dh = (double *)(void *)x->workspace,
              .H = H};
    b.dc = b.dh + H;
    memset(b.dh, 0, (size_t)(2 * H) * sizeof *b.dh);
    for (int64_t t = T - 1; t >= 0; t--) {
        const int64_t row = row_at(a, t, T), before = row_at(a, t - 1, T);
        pf_real *d = dx + row * 4 * H;
        row_grad(&b, dy, row, before, d);
        memset(b.dh, 0, (size_t)H * sizeof *b.dh);
        for (int64_t k = 0; before >= 0 && k < 4 * H; k++) {
            for (int64_t i = 0; i < H; i++) {
                b.dh[i] += (double)d[k] * (double)b.w[k * H + i];
                if (dw != NULL) dw[k * H + i] += d[k] * b.h[before * H + i];
            }
        }
    }
    return PEFT_OK;
}

static int64_t grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    return 2 * n->in[W]->cols * (int64_t)sizeof(double);
}

static pf_cost cost_of(const pf_value *w, const int64_t *rows, double products) {
    const double T = (double)rows[PF_SPACE_TOKENS], numbers = (double)w->rows * (double)w->cols;
    return (pf_cost){.flops = products * 2 * T * numbers, .bytes = T * numbers * sizeof(pf_real)};
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n->in[1], rows, 1);
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n->in[W], rows, 2);
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

const pf_op pf_op_lstm = {
    .name = "lstm",
    .what = "h of a long short-term memory over all rows, gates i f g o from x W_ih + b given",
    .args_size = sizeof(pf_lstm_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_lstm_grad = {
    .name = "lstm_grad",
    .what = "gradient of the gates before their functions, dW_hh added",
    .args_size = sizeof(pf_lstm_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = grad_workspace,
    .cost = grad_cost,
    .kernels = grad_kernels,
};
