/* embed_cases.h - cases of embed, for test_embed_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/attention/attention.h"
#include "ops/embed/embed.h"
#include "ops/embed/prompt_rows.h"

typedef struct embed_case {
    int64_t cols;
    pf_dtype frozen;
} embed_case;

static peft_status build_embed(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_case *a = op_args(f);
    int64_t vocab = op_batch(f)->n_tokens;
    if (a->frozen == PF_DTYPE_NONE) {
        return pf_embed(op_graph(f), "embed", op_param(f, "w", vocab, a->cols, 0, 1), root, err);
    }
    /* a frozen table, and something trainable to differentiate */
    pf_value *y;
    PF_TRY(pf_embed(op_graph(f), "embed", op_weight(f, "w", vocab, a->cols, a->frozen, 0, 1), &y,
                    err));
    return pf_mul(op_graph(f), "mul", y, op_rows(f, "x", a->cols, 1, 0), root, err);
}

/* behind a table that is trained, or frozen */
static peft_status build_prompt(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_case *a = op_args(f);
    const int64_t vocab = op_batch(f)->n_tokens;
    pf_value *w = a->frozen == PF_DTYPE_NONE ? op_param(f, "w", vocab, a->cols, 0, 1)
                                             : op_weight(f, "w", vocab, a->cols, a->frozen, 0, 1);
    pf_value *prompt = op_param(f, "prompt", 5, a->cols, 0, 1), *y;
    PF_TRY(pf_embed(op_graph(f), "embed", w, &y, err));
    return pf_prompt_rows(op_graph(f), "prompt", y, prompt, 5, root, err);
}

/* before every sample, the first 5 of 8 rows of the prompt */
static peft_status build_prompt_each(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_case *a = op_args(f);
    pf_value *w = op_param(f, "w", op_batch(f)->n_tokens, a->cols, 0, 1);
    pf_value *prompt = op_param(f, "prompt", 8, a->cols, 0, 1), *y;
    PF_TRY(pf_embed(op_graph(f), "embed", w, &y, err));
    return pf_prompt_rows(op_graph(f), "prompt", y, prompt, 5, root, err);
}

/* before every source, as tokens see it */
static peft_status build_prompt_source(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_case *a = op_args(f);
    const pf_attention_args args = {
        .n_heads = 1, .n_kv_heads = 1, .head_dim = a->cols, .scale = 0.3, .cross = true};
    pf_value *w = op_param(f, "w", op_batch(f)->source->n_tokens, a->cols, 0, 1);
    pf_value *prompt = op_param(f, "prompt", 8, a->cols, 0, 1), *y;
    PF_TRY(pf_embed_rows(op_graph(f), "embed", w, PF_SPACE_SOURCE, &y, err));
    PF_TRY(pf_prompt_rows(op_graph(f), "prompt", y, prompt, 5, &y, err));
    return pf_attention_cross(op_graph(f), "cross", op_rows(f, "q", a->cols, 0, 1), y, y, &args,
                              root, err);
}

static void prompt_each_oracle(const op_fixture *f, pf_real *root) {
    const embed_case *a = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *w = op_numbers(f, "w"), *prompt = op_numbers(f, "prompt");
    for (int32_t i = 0; i < b->n_tokens; i++) {
        const pf_segment *s = &b->segments[b->seg[i]];
        const int32_t k = i - s->start;
        const pf_real *row =
            s->parent < 0 && k < b->prompt_each ? prompt + k * a->cols : w + b->ids[i] * a->cols;
        for (int64_t c = 0; c < a->cols; c++) root[i * a->cols + c] = row[c];
    }
}

static void prompt_oracle(const op_fixture *f, pf_real *root) {
    const embed_case *a = op_args(f);
    const pf_real *w = op_numbers(f, "w"), *prompt = op_numbers(f, "prompt");
    for (int64_t i = 0; i < op_batch(f)->n_tokens; i++) {
        const pf_real *row =
            i < op_batch(f)->n_prompt ? prompt + i * a->cols : w + op_batch(f)->ids[i] * a->cols;
        for (int64_t c = 0; c < a->cols; c++) root[i * a->cols + c] = row[c];
    }
}

/* Row position + 2 of a table that is trained. */
static peft_status build_positions(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_case *a = op_args(f);
    pf_value *w = op_param(f, "w", op_batch(f)->n_tokens + 2, a->cols, 0, 1);
    return pf_embed_positions(op_graph(f), "wpe", w, PF_SPACE_TOKENS, 2, root, err);
}

static void positions_oracle(const op_fixture *f, pf_real *root) {
    const embed_case *a = op_args(f);
    const pf_real *w = op_numbers(f, "w");
    for (int64_t i = 0; i < op_batch(f)->n_tokens; i++) {
        for (int64_t c = 0; c < a->cols; c++)
            root[i * a->cols + c] = w[(op_batch(f)->pos[i] + 2) * a->cols + c];
    }
}

static void embed_oracle(const op_fixture *f, pf_real *root) {
    const embed_case *a = op_args(f);
    const pf_real *w = op_numbers(f, "w");
    for (int64_t i = 0; i < op_batch(f)->n_tokens; i++) {
        for (int64_t c = 0; c < a->cols; c++)
            root[i * a->cols + c] = w[op_batch(f)->ids[i] * a->cols + c];
    }
}

static const embed_case embed_96 = {96, PF_DTYPE_NONE}, embed_odd = {7, PF_DTYPE_NONE},
                        embed_bf16 = {96, PF_DTYPE_BF16}, embed_f16 = {33, PF_DTYPE_F16},
                        embed_f32 = {96, PF_DTYPE_F32}, embed_576 = {576, PF_DTYPE_BF16},
                        embed_576p = {576, PF_DTYPE_NONE};

static const op_case embed_cases[] = {
    {OP_CASE("embed/trained", &op_batch_plain, build_embed, &embed_96), .oracle = embed_oracle},
    {OP_CASE("embed/trained_odd", &op_batch_tree, build_embed, &embed_odd), .oracle = embed_oracle},
    {OP_CASE("embed/bf16", &op_batch_plain, build_embed, &embed_bf16), .oracle = embed_oracle},
    {OP_CASE("embed/f16", &op_batch_plain, build_embed, &embed_f16), .oracle = embed_oracle},
    {OP_CASE("embed/f32", &op_batch_plain, build_embed, &embed_f32), .oracle = embed_oracle},
    {OP_CASE("prompt_rows/trained", &op_batch_prompt, build_prompt, &embed_odd),
     .oracle = prompt_oracle},
    {OP_CASE("prompt_rows/frozen", &op_batch_prompt, build_prompt, &embed_f32)},
    {OP_CASE("prompt_rows/each", &op_batch_each, build_prompt_each, &embed_odd),
     .oracle = prompt_each_oracle},
    {OP_CASE("prompt_rows/each_source", &op_batch_each_source, build_prompt_source, &embed_odd)},
    {OP_CASE("embed/positions", &op_batch_tree, build_positions, &embed_odd),
     .oracle = positions_oracle},
    {OP_CASE("embed/bench_bf16_2048x576", &op_batch_2048, build_embed, &embed_576),
     .only_bench = true},
    {OP_CASE("embed/bench_trained_2048x576", &op_batch_2048, build_embed, &embed_576p),
     .only_bench = true},
};
