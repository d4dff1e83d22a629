/* norm_cases.h - cases of rms_norm, layer_norm and their fusions with a sum, for test_norm_ops.c
 * and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/embed/embed.h"
#include "ops/norm/layer_norm.h"
#include "ops/norm/rms_norm.h"

typedef struct norm_case {
    int64_t cols, group;
    pf_dtype frozen; /* type of a frozen weight; NONE: a trained one */
    bool fixed_x;    /* only the weight is trained */
    double offset;   /* added to the weight */
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
    return pf_rms_norm_of(op_graph(f), "norm", x, w, &(pf_rms_norm_args){1e-5, a->group, a->offset},
                          root, err);
}

/* a residual stream: s = a + b, y = norm(s), result s + y, so that s has two readers */
static peft_status build_add_norm(op_fixture *f, pf_value **root, peft_error *err) {
    const norm_case *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *s, *y, *w = norm_weight(f, a);
    PF_TRY(pf_add(g, "s", op_rows(f, "a", a->cols, 0, 2), op_rows(f, "b", a->cols, 0, 1), &s, err));
    PF_TRY(
        pf_rms_norm_of(g, "norm", s, w, &(pf_rms_norm_args){1e-5, a->group, a->offset}, &y, err));
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
            root[r * group + c] = (pf_real)((double)x[r * group + c] / sqrt(mean + 1e-5) *
                                            (a->offset + (double)w[c]));
        }
    }
}

/* ---- layer_norm ------------------------------------------------------------------------------ */

typedef struct layer_norm_case {
    int64_t cols, group;
    pf_dtype frozen; /* type of frozen vectors; NONE: trained ones */
    bool no_weight, no_bias;
    bool fixed_x; /* only the vectors are trained */
} layer_norm_case;

static pf_value *layer_vector(op_fixture *f, const char *name, bool missing, double mean) {
    const layer_norm_case *a = op_args(f);
    int64_t n = a->group > 0 ? a->group : a->cols;
    if (missing) return NULL;
    return a->frozen == PF_DTYPE_NONE ? op_param(f, name, 1, n, mean, 0.3)
                                      : op_weight(f, name, 1, n, a->frozen, mean, 0.3);
}

static peft_status build_layer_norm(op_fixture *f, pf_value **root, peft_error *err) {
    const layer_norm_case *a = op_args(f);
    pf_value *x, *w = layer_vector(f, "w", a->no_weight, 1), *b;
    b = layer_vector(f, "b", a->no_bias, 0.5);
    if (a->fixed_x) {
        x = op_weight(f, "x", op_batch(f)->n_tokens, a->cols, PF_DTYPE_F32, 1, 2);
        PF_TRY(pf_embed(op_graph(f), "x", x, &x, err));
    } else {
        x = op_rows(f, "x", a->cols, 1, 2);
    }
    return pf_layer_norm(op_graph(f), "norm", x, w, b, 1e-5, a->group, root, err);
}

static peft_status build_add_layer_norm(op_fixture *f, pf_value **root, peft_error *err) {
    const layer_norm_case *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *s, *y, *w = layer_vector(f, "w", a->no_weight, 1), *b;
    b = layer_vector(f, "b", a->no_bias, 0.5);
    PF_TRY(pf_add(g, "s", op_rows(f, "a", a->cols, 0, 2), op_rows(f, "c", a->cols, 1, 1), &s, err));
    PF_TRY(pf_layer_norm(g, "norm", s, w, b, 1e-5, a->group, &y, err));
    PF_TRY(pf_mul(g, "y2", y, y, &y, err));
    return pf_add(g, "out", s, y, root, err);
}

/* y = (x - mean) / sqrt(var + eps) * w + b, straight from the paper */
static void layer_norm_oracle(const op_fixture *f, pf_real *root) {
    const layer_norm_case *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *w = op_numbers(f, "w"), *b = op_numbers(f, "b");
    int64_t n = a->group > 0 ? a->group : a->cols;
    for (int64_t r = 0; r < op_batch(f)->n_tokens * a->cols / n; r++, x += n, root += n) {
        double mean = 0, var = 0;
        for (int64_t c = 0; c < n; c++) mean += (double)x[c] / (double)n;
        for (int64_t c = 0; c < n; c++) var += pow((double)x[c] - mean, 2) / (double)n;
        for (int64_t c = 0; c < n; c++) {
            double y = ((double)x[c] - mean) / sqrt(var + 1e-5);
            if (w != NULL) y *= (double)w[c];
            root[c] = (pf_real)(b != NULL ? y + (double)b[c] : y);
        }
    }
}

static const layer_norm_case ln_576 = {.cols = 576}, ln_odd = {.cols = 37},
                             ln_heads = {.cols = 5 * 12, .group = 12},
                             ln_bf16 = {.cols = 96, .frozen = PF_DTYPE_BF16},
                             ln_f32 = {.cols = 48, .frozen = PF_DTYPE_F32},
                             ln_plain = {.cols = 40, .no_weight = true, .no_bias = true},
                             ln_no_bias = {.cols = 33, .no_bias = true},
                             ln_only_bias = {.cols = 40, .no_weight = true},
                             ln_vectors = {.cols = 40, .fixed_x = true};

/* ---- all ------------------------------------------------------------------------------------- */

static const norm_case norm_576 = {.cols = 576}, norm_odd = {.cols = 37}, norm_one = {.cols = 1},
                       norm_heads = {.cols = 5 * 12, .group = 12},
                       norm_bf16 = {.cols = 96, .frozen = PF_DTYPE_BF16},
                       norm_f32 = {.cols = 48, .frozen = PF_DTYPE_F32},
                       norm_gemma = {.cols = 96, .frozen = PF_DTYPE_BF16, .offset = 1},
                       norm_gemma_f32 = {.cols = 48, .frozen = PF_DTYPE_F32, .offset = 1},
                       norm_gemma_heads = {.cols = 60, .group = 12, .offset = 1},
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
    {OP_CASE("rms_norm/one_plus_w", &op_batch_plain, build_norm, &norm_gemma),
     .oracle = norm_oracle},
    {OP_CASE("rms_norm/one_plus_w_f32", &op_batch_plain, build_norm, &norm_gemma_f32),
     .oracle = norm_oracle},
    {OP_CASE("rms_norm/one_plus_w_heads", &op_batch_tree, build_norm, &norm_gemma_heads),
     .oracle = norm_oracle},
    {OP_CASE("rms_norm/width_1", &op_batch_plain, build_norm, &norm_one), .oracle = norm_oracle,
     .tol = 1e-4},
    {OP_CASE("add_rms_norm/576", &op_batch_plain, build_add_norm, &norm_576), .n_fused = 1},
    {OP_CASE("add_rms_norm/odd_width", &op_batch_plain, build_add_norm, &norm_odd), .n_fused = 1},
    {OP_CASE("add_rms_norm/bf16_weight", &op_batch_plain, build_add_norm, &norm_bf16),
     .n_fused = 1},
    {OP_CASE("add_rms_norm/one_plus_w", &op_batch_plain, build_add_norm, &norm_gemma),
     .n_fused = 1},
    {OP_CASE("layer_norm/576", &op_batch_plain, build_layer_norm, &ln_576),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/odd_width", &op_batch_plain, build_layer_norm, &ln_odd),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/heads", &op_batch_tree, build_layer_norm, &ln_heads),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/bf16_weight", &op_batch_plain, build_layer_norm, &ln_bf16),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/f32_weight", &op_batch_plain, build_layer_norm, &ln_f32),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/no_vectors", &op_batch_plain, build_layer_norm, &ln_plain),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/no_bias", &op_batch_plain, build_layer_norm, &ln_no_bias),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/only_bias", &op_batch_plain, build_layer_norm, &ln_only_bias),
     .oracle = layer_norm_oracle},
    {OP_CASE("layer_norm/only_vectors_trained", &op_batch_plain, build_layer_norm, &ln_vectors),
     .oracle = layer_norm_oracle},
    {OP_CASE("add_layer_norm/576", &op_batch_plain, build_add_layer_norm, &ln_576), .n_fused = 1},
    {OP_CASE("add_layer_norm/odd_width", &op_batch_plain, build_add_layer_norm, &ln_odd),
     .n_fused = 1},
    {OP_CASE("add_layer_norm/no_vectors", &op_batch_plain, build_add_layer_norm, &ln_plain),
     .n_fused = 1},
    {OP_CASE("rms_norm/bench_2048x576", &op_batch_2048, build_norm, &norm_576), .only_bench = true},
    {OP_CASE("add_rms_norm/bench_2048x576", &op_batch_2048, build_add_norm, &norm_576),
     .only_bench = true},
    {OP_CASE("layer_norm/bench_2048x576", &op_batch_2048, build_layer_norm, &ln_576),
     .only_bench = true},
};
