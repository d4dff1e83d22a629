/* unary_plain.c - activation functions that stand in narrow places (bottlenecks, interventions) and
 * need no fast kernels: y = f(x), dx = dy f'(x), from one scalar function each for f and f'.
 *
 *   tanh        leaky_relu  x or 0.01 x        sigmoid     s(x)
 *   quick_gelu  x s(1.702 x)                   mish        x tanh(log(1 + exp(x)))
 *               (Misra 2019, arXiv 1908.08681)
 *   relu6       min(max(x, 0), 6)              relu2       max(x, 0)²
 *   identity    x */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

#include <math.h>
#include <stdio.h>

static double logistic(double x) {
    return 1 / (1 + exp(-x));
}

static double tanh_slope(double x) {
    const double t = tanh(x);
    return 1 - t * t;
}

static double leaky_relu(double x) {
    return x > 0 ? x : 0.01 * x;
}
static double leaky_relu_slope(double x) {
    return x > 0 ? 1 : 0.01;
}

static double sigmoid_slope(double x) {
    const double s = logistic(x);
    return s * (1 - s);
}

static double quick_gelu(double x) {
    return x * logistic(1.702 * x);
}
static double quick_gelu_slope(double x) {
    const double s = logistic(1.702 * x);
    return s + 1.702 * x * s * (1 - s);
}

static double softplus(double x) {
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}
static double mish(double x) {
    return x * tanh(softplus(x));
}
static double mish_slope(double x) {
    const double t = tanh(softplus(x));
    return t + x * (1 - t * t) * logistic(x);
}

static double relu6(double x) {
    return x < 0 ? 0 : x > 6 ? 6 : x;
}
static double relu6_slope(double x) {
    return x > 0 && x < 6 ? 1 : 0;
}

static double relu2(double x) {
    return x > 0 ? x * x : 0;
}
static double relu2_slope(double x) {
    return x > 0 ? 2 * x : 0;
}

static double same(double x) {
    return x;
}
static double same_slope(double x) {
    (void)x;
    return 1;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "x", err));
    pf_op_out_like(g, n, n->in[1]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[2] = {pf_grad_of(ad, n->out[0])}, *dx;
    char grad[32];
    snprintf(grad, sizeof grad, "%s_grad", n->op->name);
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), grad, n->name, NULL, in, 2, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 20);
}

/* The kernels and the two descriptors of a function. */
#define ACTIVATION(f, value, slope, text)                                                          \
    static void f##_elements(const pf_real *const *in, pf_real *const *out, int64_t n) {           \
        for (int64_t i = 0; i < n; i++) out[0][i] = (pf_real)value((double)in[0][i]);              \
    }                                                                                              \
    static void f##_grad_elements(const pf_real *const *in, pf_real *const *out, int64_t n) {      \
        for (int64_t i = 0; i < n; i++)                                                            \
            out[0][i] = (pf_real)((double)in[0][i] * slope((double)in[1][i]));                     \
    }                                                                                              \
    static peft_status run_##f(pf_exec *x, const pf_node *n, peft_error *err) {                    \
        (void)err;                                                                                 \
        return pf_elementwise_run(x, n, f##_elements);                                             \
    }                                                                                              \
    static peft_status run_##f##_grad(pf_exec *x, const pf_node *n, peft_error *err) {             \
        (void)err;                                                                                 \
        return pf_elementwise_run(x, n, f##_grad_elements);                                        \
    }                                                                                              \
    static const pf_kernel_row f##_kernels[] = {                                                   \
        {.backend = "cpu", .name = "reference", .run = run_##f}, {0}};                             \
    static const pf_kernel_row f##_grad_kernels[] = {                                              \
        {.backend = "cpu", .name = "reference", .run = run_##f##_grad}, {0}};                      \
    const pf_op pf_op_##f = {                                                                      \
        .name = #f,                                                                                \
        .what = text,                                                                              \
        .flags = PF_OP_CHEAP,                                                                      \
        .shape = shape,                                                                            \
        .vjp = vjp,                                                                                \
        .cost = cost,                                                                              \
        .in_place = 1,                                                                             \
        .kernels = f##_kernels,                                                                    \
    };                                                                                             \
    extern const pf_op pf_op_##f##_grad;                                                           \
    const pf_op pf_op_##f##_grad = {                                                               \
        .name = #f "_grad",                                                                        \
        .what = "dx = dy f'(x), f: " text,                                                         \
        .shape = grad_shape,                                                                       \
        .cost = cost,                                                                              \
        .in_place = 1,                                                                             \
        .kernels = f##_grad_kernels,                                                               \
    };

// clang-format off
ACTIVATION(tanh, tanh, tanh_slope, "y = tanh(x)")
ACTIVATION(leaky_relu, leaky_relu, leaky_relu_slope, "y = x where x > 0, else 0.01 x")
ACTIVATION(sigmoid, logistic, sigmoid_slope, "y = 1 / (1 + exp(-x))")
ACTIVATION(quick_gelu, quick_gelu, quick_gelu_slope, "y = x s(1.702 x)")
ACTIVATION(mish, mish, mish_slope, "y = x tanh(log(1 + exp(x)))")
ACTIVATION(relu6, relu6, relu6_slope, "y = min(max(x, 0), 6)")
ACTIVATION(relu2, relu2, relu2_slope, "y = max(x, 0)^2")
ACTIVATION(identity, same, same_slope, "y = x")
// clang-format on
