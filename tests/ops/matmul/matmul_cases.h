/* matmul_cases.h - cases of linear, add_bias and lowrank with their gradients, for
 * test_matmul_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/matmul/dropout.h"
#include "ops/matmul/linear.h"
#include "ops/matmul/lowrank.h"

typedef struct linear_case {
    int64_t in, out;
    pf_dtype frozen; /* type of a frozen weight; NONE: a trained one */
    pf_dtype bias;   /* BOOL: a trained bias; NONE: none; else a frozen one of that type */
    bool twice;      /* two products of one x: the second adds to the gradient of the first */
} linear_case;

static pf_value *matrix(op_fixture *f, const char *name, int64_t rows, int64_t cols,
                        pf_dtype frozen) {
    return frozen == PF_DTYPE_NONE ? op_param(f, name, rows, cols, 0, 0.2)
                                   : op_weight(f, name, rows, cols, frozen, 0, 0.2);
}

static peft_status build_linear(op_fixture *f, pf_value **root, peft_error *err) {
    const linear_case *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *w = matrix(f, "w", a->out, a->in, a->frozen);
    PF_TRY(pf_linear(op_graph(f), "linear", x, w, NULL, root, err));
    if (a->bias != PF_DTYPE_NONE) {
        pf_value *b = a->bias == PF_DTYPE_BOOL ? op_param(f, "bias", 1, a->out, 0, 1)
                                               : op_weight(f, "bias", 1, a->out, a->bias, 0, 1);
        PF_TRY(pf_add_bias(op_graph(f), "bias", *root, b, root, err));
    }
    if (!a->twice) return PEFT_OK;
    pf_value *w2 = matrix(f, "w2", a->out, a->out, a->frozen);
    pf_value *w3 = matrix(f, "w3", a->out, a->in, a->frozen), *again;
    PF_TRY(pf_linear(op_graph(f), "again", *root, w2, NULL, root, err));
    PF_TRY(pf_linear(op_graph(f), "third", x, w3, NULL, &again, err));
    return pf_lowrank(op_graph(f), "sum", *root, again, op_param(f, "a", 2, a->out, 0, 0.3),
                      op_param(f, "b", a->out, 2, 0, 0.3), &(pf_lowrank_args){.scale = 0.5}, root,
                      err);
}

/* The matrix is a product itself, and two rows of products share it. */
static peft_status build_made(op_fixture *f, pf_value **root, peft_error *err) {
    const linear_case *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *w, *y;
    pf_value *p = op_param(f, "p", a->out, a->in, 0, 0.5);
    PF_TRY(pf_mul(g, "square", p, p, &w, err));
    PF_TRY(pf_mul(g, "cube", w, p, &w, err));
    PF_TRY(pf_linear(g, "linear", x, w, NULL, root, err));
    PF_TRY(pf_mul(g, "other", x, x, &y, err));
    PF_TRY(pf_linear(g, "again", y, w, NULL, &y, err));
    return pf_add(g, "sum", *root, y, root, err);
}

static void linear_oracle(const op_fixture *f, pf_real *root) {
    const linear_case *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *w = op_numbers(f, "w"), *b = op_numbers(f, "bias");
    for (int32_t i = 0; i < op_batch(f)->n_tokens; i++) {
        for (int64_t j = 0; j < a->out; j++) {
            double sum = b != NULL ? (double)b[j] : 0;
            for (int64_t k = 0; k < a->in; k++)
                sum += (double)x[i * a->in + k] * (double)w[j * a->in + k];
            root[i * a->out + j] = (pf_real)sum;
        }
    }
}

typedef struct lowrank_case {
    int64_t in, out, r;
    double dropout;
    int32_t adapter; /* rows whose number modulo 3 is this take part; -1: all */
    bool fixed_x;
} lowrank_case;

enum { MOST_ROWS = 4096 };

static const int32_t *adapter_of_row(void) {
    static int32_t table[MOST_ROWS];
    for (int32_t i = 0; i < MOST_ROWS; i++) table[i] = i / 5 % 3;
    return table;
}

static const int32_t *row_table;

static pf_lowrank_args args_of(const lowrank_case *a) {
    row_table = adapter_of_row();
    return (pf_lowrank_args){.scale = 1.5,
                             .dropout = a->dropout,
                             .seed = 11,
                             .mask_key = 3,
                             .adapter = a->adapter >= 0 ? &row_table : NULL,
                             .adapter_id = a->adapter};
}

static peft_status build_lowrank(op_fixture *f, pf_value **root, peft_error *err) {
    const lowrank_case *a = op_args(f);
    const pf_lowrank_args args = args_of(a);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *base = op_rows(f, "base", a->out, 0, 1);
    pf_value *low_a = op_param(f, "a", a->r, a->in, 0, 0.3);
    pf_value *low_b = op_param(f, "b", a->out, a->r, 0, 0.3);
    return pf_lowrank(op_graph(f), "lowrank", base, x, low_a, low_b, &args, root, err);
}

/* Two updates that share x and mask: the second one's dx is added in place. */
static peft_status build_group(op_fixture *f, pf_value **root, peft_error *err) {
    const lowrank_case *a = op_args(f);
    const pf_lowrank_args args = args_of(a);
    PF_TRY(build_lowrank(f, root, err));
    pf_value *x = op_rows(f, "x2", a->in, 0, 1);
    for (int k = 0; k < 2; k++) {
        pf_value *low_a = op_param(f, k == 0 ? "a0" : "a1", a->r, a->in, 0, 0.3);
        pf_value *low_b = op_param(f, k == 0 ? "b0" : "b1", a->out, a->r, 0, 0.3);
        PF_TRY(pf_lowrank(op_graph(f), "more", *root, x, low_a, low_b, &args, root, err));
    }
    return PEFT_OK;
}

static void lowrank_oracle(const op_fixture *f, pf_real *root) {
    const lowrank_case *c = op_args(f);
    const pf_batch *batch = op_batch(f);
    const pf_real *x = op_numbers(f, "x"), *base = op_numbers(f, "base");
    const pf_real *a = op_numbers(f, "a"), *b = op_numbers(f, "b");
    const pf_dropout d = pf_dropout_make(c->dropout, 11, batch->step, 3);
    static uint8_t bits[4096];
    for (int32_t i = 0; i < batch->n_tokens; i++) {
        const bool takes_part = c->adapter < 0 || adapter_of_row()[i] == c->adapter;
        pf_dropout_bits_cpu(&d, (uint32_t)batch->sample[i], (uint32_t)batch->pos[i], c->in, bits);
        for (int64_t j = 0; j < c->out; j++) {
            double sum = 0;
            for (int64_t r = 0; takes_part && r < c->r; r++) {
                double s = 0;
                for (int64_t k = 0; k < c->in; k++) {
                    if (bits[k / 8] >> k % 8 & 1)
                        s += d.scale * (double)x[i * c->in + k] * (double)a[r * c->in + k];
                }
                sum += s * (double)b[j * c->r + r];
            }
            root[i * c->out + j] = (pf_real)((double)base[i * c->out + j] + 1.5 * sum);
        }
    }
}

static const linear_case
    linear_param = {.in = 40, .out = 24},
    linear_f32 = {.in = 72, .out = 50, .frozen = PF_DTYPE_F32},
    linear_bf16 = {.in = 65, .out = 33, .frozen = PF_DTYPE_BF16, .bias = PF_DTYPE_BF16},
    linear_f16 = {.in = 31, .out = 17, .frozen = PF_DTYPE_F16, .bias = PF_DTYPE_F32},
    linear_bias = {.in = 16, .out = 70, .bias = PF_DTYPE_BOOL},
    linear_deep = {.in = 400, .out = 9, .frozen = PF_DTYPE_BF16}, linear_one = {.in = 1, .out = 1},
    linear_made = {.in = 21, .out = 13}, linear_twice = {.in = 20, .out = 12, .twice = true},
    linear_twice_frozen = {.in = 20, .out = 12, .frozen = PF_DTYPE_F32, .twice = true},
    linear_576 = {.in = 576, .out = 576, .frozen = PF_DTYPE_BF16},
    linear_1536 = {.in = 576, .out = 1536, .frozen = PF_DTYPE_BF16};
static const lowrank_case low_8 = {.in = 72, .out = 40, .r = 8, .adapter = -1},
                          low_1 = {.in = 33, .out = 17, .r = 1, .adapter = -1},
                          low_13 = {.in = 50, .out = 7, .r = 13, .dropout = 0.25, .adapter = -1},
                          low_64 = {.in = 130, .out = 100, .r = 64, .dropout = 0.5, .adapter = -1},
                          low_wide = {.in = 600, .out = 20, .r = 5, .dropout = 0.1, .adapter = -1},
                          low_some = {.in = 30, .out = 26, .r = 6, .dropout = 0.1, .adapter = 1},
                          low_group = {.in = 30, .out = 26, .r = 6, .dropout = 0.3, .adapter = -1},
                          low_16_576 = {.in = 576, .out = 576, .r = 16, .adapter = -1},
                          low_4_1536 = {.in = 576, .out = 1536, .r = 4, .adapter = -1},
                          low_16_1536 = {.in = 576, .out = 1536, .r = 16, .adapter = -1},
                          low_64_1536 = {.in = 576, .out = 1536, .r = 64, .adapter = -1},
                          low_256_1536 = {.in = 576, .out = 1536, .r = 256, .adapter = -1},
                          low_16_drop = {
                              .in = 576, .out = 1536, .r = 16, .dropout = 0.05, .adapter = -1};

static const op_case matmul_cases[] = {
    {OP_CASE("linear/trained", &op_batch_plain, build_linear, &linear_param),
     .oracle = linear_oracle},
    {OP_CASE("linear/f32", &op_batch_tree, build_linear, &linear_f32), .oracle = linear_oracle},
    {OP_CASE("linear/bf16_and_bias", &op_batch_plain, build_linear, &linear_bf16),
     .oracle = linear_oracle, .n_fused = 1},
    {OP_CASE("linear/f16_and_bias", &op_batch_plain, build_linear, &linear_f16),
     .oracle = linear_oracle, .n_fused = 1},
    {OP_CASE("linear/trained_bias", &op_batch_plain, build_linear, &linear_bias),
     .oracle = linear_oracle, .n_fused = 1},
    {OP_CASE("linear/two_blocks", &op_batch_plain, build_linear, &linear_deep),
     .oracle = linear_oracle},
    {OP_CASE("linear/1x1", &op_batch_plain, build_linear, &linear_one), .oracle = linear_oracle},
    {OP_CASE("linear/made", &op_batch_tree, build_made, &linear_made)},
    {OP_CASE("linear/twice", &op_batch_plain, build_linear, &linear_twice)},
    {OP_CASE("linear/in_bf16", &op_batch_tree, build_linear, &linear_deep), .oracle = linear_oracle,
     .tol = 1e-2, .compute = PF_COMPUTE_BF16},
    {OP_CASE("linear/in_bf16_and_bias", &op_batch_plain, build_linear, &linear_bf16),
     .oracle = linear_oracle, .n_fused = 1, .tol = 1e-2, .compute = PF_COMPUTE_BF16},
    {OP_CASE("linear/in_int8", &op_batch_tree, build_linear, &linear_deep), .oracle = linear_oracle,
     .tol = 2e-2, .compute = PF_COMPUTE_INT8},
    {OP_CASE("linear/in_int8_and_bias", &op_batch_plain, build_linear, &linear_bf16),
     .oracle = linear_oracle, .n_fused = 1, .tol = 2e-2, .compute = PF_COMPUTE_INT8},
    {OP_CASE("linear/group", &op_batch_plain, build_linear, &linear_twice_frozen), .n_fused = 1},
    {OP_CASE("linear/in_int8_group", &op_batch_plain, build_linear, &linear_twice_frozen),
     .n_fused = 1, .tol = 2e-2, .compute = PF_COMPUTE_INT8},
    {OP_CASE("lowrank/r8", &op_batch_plain, build_lowrank, &low_8), .oracle = lowrank_oracle},
    {OP_CASE("lowrank/r1", &op_batch_tree, build_lowrank, &low_1), .oracle = lowrank_oracle},
    {OP_CASE("lowrank/r13_dropout", &op_batch_plain, build_lowrank, &low_13),
     .oracle = lowrank_oracle},
    {OP_CASE("lowrank/r64_dropout", &op_batch_plain, build_lowrank, &low_64),
     .oracle = lowrank_oracle},
    {OP_CASE("lowrank/wide_dropout", &op_batch_plain, build_lowrank, &low_wide),
     .oracle = lowrank_oracle},
    {OP_CASE("lowrank/group", &op_batch_plain, build_group, &low_group), .n_fused = 1},
    {OP_CASE("linear/bench_2048x576x576", &op_batch_2048, build_linear, &linear_576),
     .only_bench = true},
    {OP_CASE("linear/bench_2048x576x1536", &op_batch_2048, build_linear, &linear_1536),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x576_r16", &op_batch_2048, build_lowrank, &low_16_576),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x1536_r4", &op_batch_2048, build_lowrank, &low_4_1536),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x1536_r16", &op_batch_2048, build_lowrank, &low_16_1536),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x1536_r64", &op_batch_2048, build_lowrank, &low_64_1536),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x1536_r256", &op_batch_2048, build_lowrank, &low_256_1536),
     .only_bench = true},
    {OP_CASE("lowrank/bench_2048x576x1536_r16_dropout", &op_batch_2048, build_lowrank,
             &low_16_drop),
     .only_bench = true},
};
