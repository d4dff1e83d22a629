/* activation_cases.h - cases of add, mul, the activations and swiglu, for test_activation_ops.c and
 * its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/activation/scale_cols.h"

static int64_t width(const op_fixture *f) {
    return *(const int64_t *)op_args(f);
}

static peft_status build_add(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_add(op_graph(f), "add", op_rows(f, "a", width(f), 0, 1),
                  op_rows(f, "b", width(f), 0, 1), root, err);
}

static peft_status build_mul(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_mul(op_graph(f), "mul", op_rows(f, "a", width(f), 0, 1),
                  op_rows(f, "b", width(f), 0, 1), root, err);
}

static peft_status build_square(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *a = op_rows(f, "a", width(f), 0, 1);
    return pf_mul(op_graph(f), "square", a, a, root, err);
}

static peft_status build_silu(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_silu(op_graph(f), "silu", op_rows(f, "x", width(f), 0, 4), root, err);
}

static peft_status build_gelu(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_activation(op_graph(f), &pf_op_gelu, "gelu", op_rows(f, "x", width(f), 0, 3), root,
                         err);
}

static peft_status build_gelu_tanh(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_activation(op_graph(f), &pf_op_gelu_tanh, "gelu", op_rows(f, "x", width(f), 0, 3),
                         root, err);
}

static peft_status build_relu(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_activation(op_graph(f), &pf_op_relu, "relu", op_rows(f, "x", width(f), 0, 3), root,
                         err);
}

/* By the names of configurations, all in one sum: each has its own input. */
static const char *const plain_names[] = {"tanh", "leakyrelu", "sigmoid", "quick_gelu",
                                          "mish", "relu6",     "relu2",   "linear"};

static peft_status build_plain(op_fixture *f, pf_value **root, peft_error *err) {
    *root = NULL;
    for (size_t i = 0; i < PF_COUNT(plain_names); i++) {
        pf_value *y;
        PF_TRY(pf_activation(op_graph(f), pf_activation_find(plain_names[i]), plain_names[i],
                             op_rows(f, plain_names[i], width(f), 0.7, 3), &y, err));
        if (*root == NULL) {
            *root = y;
        } else {
            PF_TRY(pf_add(op_graph(f), "sum", *root, y, root, err));
        }
    }
    return PEFT_OK;
}

static double plain_value(size_t i, double x) {
    switch (i) {
    case 0:
        return (exp(x) - exp(-x)) / (exp(x) + exp(-x));
    case 1:
        return fmax(x, 0.01 * x);
    case 2:
        return 1 / (1 + exp(-x));
    case 3:
        return x / (1 + exp(-1.702 * x));
    case 4:
        return x * tanh(log(1 + exp(x)));
    case 5:
        return fmin(fmax(x, 0), 6);
    case 6:
        return fmax(x, 0) * fmax(x, 0);
    default:
        return x;
    }
}

static void plain_oracle(const op_fixture *f, pf_real *root) {
    for (int64_t k = 0; k < op_batch(f)->n_tokens * width(f); k++) {
        double sum = 0;
        for (size_t i = 0; i < PF_COUNT(plain_names); i++)
            sum += plain_value(i, (double)op_numbers(f, plain_names[i])[k]);
        root[k] = (pf_real)sum;
    }
}

static peft_status build_swiglu(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *gate = op_rows(f, "gate", width(f), 0, 3), *up = op_rows(f, "up", width(f), 0, 1);
    PF_TRY(pf_silu(op_graph(f), "silu", gate, &gate, err));
    return pf_mul(op_graph(f), "mul", gate, up, root, err);
}

static peft_status build_swiglu_turned(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *gate = op_rows(f, "gate", width(f), 0, 3), *up = op_rows(f, "up", width(f), 0, 1);
    PF_TRY(pf_silu(op_graph(f), "silu", gate, &gate, err));
    return pf_mul(op_graph(f), "mul", up, gate, root, err);
}

/* silu has a second reader: nothing may be fused */
static peft_status build_not_swiglu(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *gate = op_rows(f, "gate", width(f), 0, 3), *up = op_rows(f, "up", width(f), 0, 1), *y;
    PF_TRY(pf_silu(op_graph(f), "silu", gate, &gate, err));
    PF_TRY(pf_mul(op_graph(f), "mul", gate, up, &y, err));
    return pf_add(op_graph(f), "add", y, gate, root, err);
}

/* factors in a column, as (IA)3 stores those of an output; and factors that are not trained */
static peft_status build_scale(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *x = op_rows(f, "a", width(f), 0, 1), *v = op_param(f, "v", width(f), 1, 1, 0.3);
    return pf_scale_cols(op_graph(f), "scale", x, v, root, err);
}

static peft_status build_scale_frozen(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *x = op_rows(f, "a", width(f), 0, 1);
    pf_value *v = op_weight(f, "v", 1, width(f), PF_DTYPE_BF16, 1, 0.3);
    return pf_scale_cols(op_graph(f), "scale", x, v, root, err);
}

static void scale_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "a"), *v = op_numbers(f, "v");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++) root[i] = x[i] * v[i % width(f)];
}

static void silu_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++) {
        root[i] = (pf_real)((double)x[i] / (1 + exp(-(double)x[i])));
    }
}

static void gelu_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++)
        root[i] = (pf_real)((double)x[i] * 0.5 * (1 + erf((double)x[i] / sqrt(2))));
}

static void gelu_tanh_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *numbers = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++) {
        const double x = (double)numbers[i];
        root[i] =
            (pf_real)(x * 0.5 *
                      (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))));
    }
}

static void relu_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++) root[i] = x[i] > 0 ? x[i] : 0;
}

static void swiglu_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "gate"), *up = op_numbers(f, "up");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * width(f); i++) {
        root[i] = (pf_real)((double)x[i] / (1 + exp(-(double)x[i])) * (double)up[i]);
    }
}

static const int64_t w576 = 576, w37 = 37, w1 = 1, w1536 = 1536;

static const op_case activation_cases[] = {
    {OP_CASE("add", &op_batch_plain, build_add, &w576)},
    {OP_CASE("add/odd", &op_batch_plain, build_add, &w37)},
    {OP_CASE("mul", &op_batch_plain, build_mul, &w576)},
    {OP_CASE("mul/odd", &op_batch_plain, build_mul, &w37)},
    {OP_CASE("mul/square", &op_batch_plain, build_square, &w1)},
    {OP_CASE("silu", &op_batch_plain, build_silu, &w576), .oracle = silu_oracle},
    {OP_CASE("silu/odd", &op_batch_plain, build_silu, &w37), .oracle = silu_oracle},
    {OP_CASE("gelu", &op_batch_plain, build_gelu, &w576), .oracle = gelu_oracle},
    {OP_CASE("gelu/odd", &op_batch_plain, build_gelu, &w37), .oracle = gelu_oracle},
    {OP_CASE("gelu_tanh", &op_batch_plain, build_gelu_tanh, &w576), .oracle = gelu_tanh_oracle},
    {OP_CASE("gelu_tanh/odd", &op_batch_plain, build_gelu_tanh, &w37), .oracle = gelu_tanh_oracle},
    {OP_CASE("relu", &op_batch_plain, build_relu, &w37), .oracle = relu_oracle},
    {OP_CASE("plain", &op_batch_plain, build_plain, &w37), .oracle = plain_oracle},
    {OP_CASE("swiglu", &op_batch_plain, build_swiglu, &w576), .oracle = swiglu_oracle,
     .n_fused = 1},
    {OP_CASE("swiglu/odd", &op_batch_plain, build_swiglu_turned, &w37), .oracle = swiglu_oracle,
     .n_fused = 1},
    {OP_CASE("swiglu/two_readers", &op_batch_plain, build_not_swiglu, &w37)},
    {OP_CASE("scale_cols", &op_batch_plain, build_scale, &w576), .oracle = scale_oracle},
    {OP_CASE("scale_cols/odd", &op_batch_tree, build_scale, &w37), .oracle = scale_oracle},
    {OP_CASE("scale_cols/frozen", &op_batch_plain, build_scale_frozen, &w37)},
    {OP_CASE("scale_cols/bench_2048x1536", &op_batch_2048, build_scale, &w1536),
     .only_bench = true},
    {OP_CASE("add/bench_2048x576", &op_batch_2048, build_add, &w576), .only_bench = true},
    {OP_CASE("silu/bench_2048x1536", &op_batch_2048, build_silu, &w1536), .only_bench = true},
    {OP_CASE("gelu/bench_2048x1536", &op_batch_2048, build_gelu, &w1536), .only_bench = true},
    {OP_CASE("swiglu/bench_2048x1536", &op_batch_2048, build_swiglu, &w1536), .only_bench = true},
};
