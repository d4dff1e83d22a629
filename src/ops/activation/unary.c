/* unary.c - activation functions: y = f(x), element by element, and dx = dy f'(x) from the saved x.
 *
 *   silu       x s(x), s the logistic function (Elfwing et al. 2017, arXiv 1702.03118)
 *   gelu       x Φ(x), Φ the normal distribution (Hendrycks & Gimpel 2016, arXiv 1606.08415)
 *   gelu_tanh  its approximation x s(2u), u = sqrt(2/π) (x + 0.044715 x³): the same as
 *              x (1 + tanh u) / 2
 *   relu       max(x, 0)
 *
 * To add one: its two kernels (elementwise.h, elementwise_cpu.c, elementwise_simd.h), the rows
 * below, in ops.def, and in `names` where a config.json has a name for it. */
#include "ops/activation/activation.h"
#include "ops/activation/elementwise.h"
#include "ops/op_util.h"

#include "base/str.h"

#include <stdio.h>

peft_status pf_activation(pf_graph *g, const pf_op *op, const char *name, pf_value *x, pf_value **y,
                          peft_error *err) {
    return pf_op_emit(g, op->name, name, NULL, &x, 1, y, err);
}

peft_status pf_silu(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err) {
    return pf_activation(g, &pf_op_silu, name, x, y, err);
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

/* The two descriptors of an activation; the numbers are operations per element. */
#define ACTIVATION(f, text, flops, grad_text, grad_flops)                                          \
    static pf_cost f##_cost(const pf_node *n, const int64_t *rows) {                               \
        return pf_op_elementwise_cost(n, rows, flops);                                             \
    }                                                                                              \
    static pf_cost f##_grad_cost(const pf_node *n, const int64_t *rows) {                          \
        return pf_op_elementwise_cost(n, rows, grad_flops);                                        \
    }                                                                                              \
    const pf_op pf_op_##f = {                                                                      \
        .name = #f,                                                                                \
        .what = text,                                                                              \
        .flags = PF_OP_CHEAP,                                                                      \
        .shape = shape,                                                                            \
        .vjp = vjp,                                                                                \
        .cost = f##_cost,                                                                          \
        .in_place = 1,                                                                             \
        .kernels = pf_##f##_kernels,                                                               \
    };                                                                                             \
    extern const pf_op pf_op_##f##_grad;                                                           \
    const pf_op pf_op_##f##_grad = {                                                               \
        .name = #f "_grad",                                                                        \
        .what = grad_text,                                                                         \
        .shape = grad_shape,                                                                       \
        .cost = f##_grad_cost,                                                                     \
        .in_place = 1,                                                                             \
        .kernels = pf_##f##_grad_kernels,                                                          \
    };

// clang-format off
ACTIVATION(silu, "y = x / (1 + exp(-x))", 16, "dx = dy s (1 + x (1 - s)), s = 1 / (1 + exp(-x))", 20)
ACTIVATION(gelu, "y = x Phi(x) = x (1 + erf(x / sqrt(2))) / 2", 24, "dx = dy (Phi(x) + x phi(x))", 40)
ACTIVATION(gelu_tanh, "y = x s(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)", 20,
           "dx = dy (s + 2 x s (1 - s) u'), s = s(2 u)", 28)
ACTIVATION(relu, "y = max(x, 0)", 1, "dx = dy where x > 0", 1)

/* hidden_act and activation_function of config.json, as transformers' ACT2FN has them */
static const struct { const char *name; const pf_op *op; } names[] = {
    {"silu", &pf_op_silu},           {"swish", &pf_op_silu},
    {"gelu", &pf_op_gelu},           {"gelu_python", &pf_op_gelu},
    {"gelu_new", &pf_op_gelu_tanh},  {"gelu_pytorch_tanh", &pf_op_gelu_tanh},
    {"gelu_fast", &pf_op_gelu_tanh}, {"gelu_python_tanh", &pf_op_gelu_tanh},
    {"gelu_accurate", &pf_op_gelu_tanh},
    {"relu", &pf_op_relu},           {"tanh", &pf_op_tanh},
    {"leaky_relu", &pf_op_leaky_relu}, {"leakyrelu", &pf_op_leaky_relu}, /* AdapterHub's */
    {"sigmoid", &pf_op_sigmoid},     {"quick_gelu", &pf_op_quick_gelu},
    {"mish", &pf_op_mish},           {"relu6", &pf_op_relu6},
    {"relu2", &pf_op_relu2},         {"linear", &pf_op_identity},
};
// clang-format on

const pf_op *pf_activation_find(const char *name) {
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_streq(names[i].name, name)) return names[i].op;
    }
    return NULL;
}
