/* norm_cases.h - cases of rms_norm and add_rms_norm, for test_norm_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/embed/embed.h"
#include "ops/norm/rms_norm.h"

typedef struct norm_case {
    int64_t cols, group;
    pf_dtype frozen; /* type of a frozen weight; NONE: a trained one */
    bool fixed_x;    /* only the weight is trained */
} norm_case;

static pf_value *norm_weight(op_fixture *f, const norm_case *a) {
    int64_t n = a->group > 0 ? a->group : a->cols;
    return a->frozen == PF_DTYPE_NONE ? op_param(f, "w", 1, n, 1, 0.3)
                                      : op_weight(f, "w", 1, n, a->frozen, 1, 0.3);
}

static peft_status build_norm(op_fixture *f, pf_value **root, peft_error *err) {
    const norm_case *a = op_args(f);
    pf_value *x, *w = norm_weight(f, a);
    if (a->fixed_x) {
        x = op_weight(f, "x", op_batch(f)->n_tokens, a->cols, PF_DTYPE_F32, 0.1, 2);
        PF_TRY(pf_embed(op_graph(f), "x", x, &x, err));
    } else {
        x = op_rows(f, "x", a->cols, 0.1, 2);
    }
    return pf_rms_norm(op_graph(f), "norm", x, w, 1e-5, a->group, root, err);
}

/* a residual stream: s = a + b, y = norm(s), result s + y, so that s has two readers */
static peft_status build_add_norm(op_fixture *f, pf_value **root, peft_error *err) {
    const norm_case *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *s, *y, *w = norm_weight(f, a);
    PF_TRY(pf_add(g, "s", op_rows(f, "a", a->cols, 0, 2), op_rows(f, "b", a->cols, 0, 1), &s, err));
    PF_TRY(pf_rms_norm(g, "norm", s, w, 1e-5, a->group, &y, err));
    PF_TRY(pf_mul(g, "y2", y, y, &y, err));
    return pf_add(g, "out", s, y, root, err);
}

/* y = x / sqrt(mean(x^2) + eps) * w, straight from the paper */
static void norm_oracle(const op_fixture *f, pf_real *root) {
    const norm_case *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *w = op_numbers(f, "w");
    int64_t group = a->group > 0 ? a->group : a->cols;
    for (int64_t r = 0; r < op_batch(f)->n_tokens * a->cols / group; r++) {
        double mean = 0;
        for (int64_t c = 0; c < group; c++)
            mean += pow((double)x[r * group + c], 2) / (double)group;
        for (int64_t c = 0; c < group; c++) {
            root[r * group + c] =
                (pf_real)((double)x[r * group + c] / sqrt(mean + 1e-5) * (double)w[c]);
        }
    }
}

static const norm_case norm_576 = {.cols = 576}, norm_odd = {.cols = 37}, norm_one = {.cols = 1},
                       norm_heads = {.cols = 5 * 12, .group = 12},
                       norm_bf16 = {.cols = 96, .frozen = PF_DTYPE_BF16},
                       norm_f32 = {.cols = 48, .frozen = PF_DTYPE_F32},
                       norm_w = {.cols = 40, .fixed_x = true};

static const op_case norm_cases[] = {
    {OP_CASE("rms_norm/576", &op_batch_plain, build_norm, &norm_576), .oracle = norm_oracle},
    {OP_CASE("rms_norm/odd_width", &op_batch_plain, build_norm, &norm_odd), .oracle = norm_oracle},
    {OP_CASE("rms_norm/heads", &op_batch_tree, build_norm, &norm_heads), .oracle = norm_oracle},
    {OP_CASE("rms_norm/bf16_weight", &op_batch_plain, build_norm, &norm_bf16),
     .oracle = norm_oracle},
    {OP_CASE("rms_norm/f32_weight", &op_batch_plain, build_norm, &norm_f32), .oracle = norm_oracle},
    {OP_CASE("rms_norm/only_weight_trained", &op_batch_plain, build_norm, &norm_w),
     .oracle = norm_oracle},
    {OP_CASE("rms_norm/width_1", &op_batch_plain, build_norm, &norm_one), .oracle = norm_oracle,
     .tol = 1e-4},
    {OP_CASE("add_rms_norm/576", &op_batch_plain, build_add_norm, &norm_576), .n_fused = 1},
    {OP_CASE("add_rms_norm/odd_width", &op_batch_plain, build_add_norm, &norm_odd), .n_fused = 1},
    {OP_CASE("add_rms_norm/bf16_weight", &op_batch_plain, build_add_norm, &norm_bf16),
     .n_fused = 1},
    {OP_CASE("rms_norm/bench_2048x576", &op_batch_2048, build_norm, &norm_576), .only_bench = true},
    {OP_CASE("add_rms_norm/bench_2048x576", &op_batch_2048, build_add_norm, &norm_576),
     .only_bench = true},
};
