/* attention_cases.h - cases of attention, rope and rope_table, for test_attention_ops.c and its
 * double twin. The oracle is a dense mask over every pair of rows, made from parents and positions
 * alone. */
#include "op_harness.h"

#include "ops/attention/attention.h"
#include "ops/attention/rope.h"
#include "base/rng.h"

#include <stdlib.h>

typedef struct att_case {
    int64_t H, KH, D, window;
    bool learned; /* external rows are a parameter */
    bool bidirectional;
    double softcap;        /* 0: none */
    int64_t buckets, most; /* of a table of biases */
    bool frozen;           /* the table is */
    const float *slopes;
    double dropout;
} att_case;

enum { DROP_SEED = 77, DROP_KEY = 5 << 16 };

/* What dropout makes of a probability, from the words of ops/matmul/dropout.h. */
static double oracle_kept(const op_fixture *f, int32_t row, int64_t head, int64_t key_pos) {
    const att_case *a = op_args(f);
    const pf_batch *b = op_batch(f);
    if (a->dropout == 0) return 1;
    const pf_rng_key key = pf_rng_make_key(DROP_SEED, PF_RNG_ATTENTION_DROPOUT, b->step);
    const pf_rng4 r = pf_philox(key, (uint32_t)(key_pos / 8), (uint32_t)b->pos[row],
                                (uint32_t)b->sample[row], DROP_KEY + (uint32_t)head);
    const int i = (int)(key_pos % 8);
    const uint32_t draw = r.v[i / 2] >> 16 * (i % 2) & 0xffff;
    return draw >= (uint32_t)(a->dropout * 65536 + 0.5) ? 1 / (1 - a->dropout) : 0;
}

static peft_status build_attention(op_fixture *f, pf_value **root, peft_error *err) {
    const att_case *a = op_args(f);
    int64_t X = op_batch(f)->n_ext_runs > 0 ? 100 : 0;
    pf_value *q = op_rows(f, "q", a->H * a->D, 0, 1.5),
             *k = op_rows(f, "k", a->KH * a->D, 0.1, 1.5);
    pf_value *v = op_rows(f, "v", a->KH * a->D, 0, 1), *ext_k = NULL, *ext_v = NULL;
    if (X > 0) {
        pf_value *(*make)(op_fixture *, const char *, int64_t, int64_t, double, double) =
            a->learned ? op_param : op_state;
        ext_k = make(f, "ext_k", X, a->KH * a->D, 0.1, 1.5);
        ext_v = make(f, "ext_v", X, a->KH * a->D, 0, 1);
    }
    pf_attention_args args = {.n_heads = a->H,
                              .n_kv_heads = a->KH,
                              .head_dim = a->D,
                              .scale = 1 / sqrt((double)a->D),
                              .window = a->window,
                              .bidirectional = a->bidirectional,
                              .softcap = a->softcap,
                              .bias_buckets = a->buckets,
                              .bias_max_distance = a->most,
                              .slopes = a->slopes,
                              .dropout = a->dropout,
                              .seed = DROP_SEED,
                              .mask_key = DROP_KEY};
    pf_value *bias = NULL;
    if (a->frozen)
        bias = op_weight(f, "bias", a->buckets, a->H, PF_DTYPE_F32, 0, 1);
    else if (a->buckets > 0)
        bias = op_param(f, "bias", a->buckets, a->H, 0, 1);
    return pf_attention_biased(op_graph(f), "att", q, k, v, ext_k, ext_v, bias, &args, root, err);
}

/* The buckets of T5 in whole numbers: a distance beyond the single ones is in the last bucket whose
 * lower border single · (most / single)^(k / wide) it reaches. */
static int64_t oracle_bucket(const att_case *a, int64_t d) {
    int64_t n = a->buckets, first = 0;
    if (a->bidirectional) {
        n /= 2;
        first = d > 0 ? n : 0;
    } else if (d > 0) {
        d = 0;
    }
    if (d < 0) d = -d;
    const int64_t single = n / 2, wide = n - single;
    if (d < single) return first + d;
    int64_t k = 0;
    while (k + 1 < wide && pow((double)d / (double)single, (double)wide) >
                               pow((double)a->most / (double)single, (double)(k + 1)) * (1 - 1e-9))
        k++;
    return first + single + k;
}

static double oracle_bias(const op_fixture *f, int64_t h, int64_t distance) {
    const att_case *a = op_args(f);
    if (a->slopes != NULL) return (double)a->slopes[h] * (double)distance;
    if (a->buckets == 0) return 0;
    return (double)op_numbers(f, "bias")[oracle_bucket(a, distance) * a->H + h];
}

/* --- rows of a source ------------------------------------------------------------------------- */

static peft_status build_cross(op_fixture *f, pf_value **root, peft_error *err) {
    const att_case *a = op_args(f);
    pf_value *q = op_rows(f, "q", a->H * a->D, 0, 1.5);
    pf_value *k = op_source_rows(f, "k", a->KH * a->D, 0.1, 1.5),
             *v = op_source_rows(f, "v", a->KH * a->D, 0, 1);
    const pf_attention_args args = {.n_heads = a->H,
                                    .n_kv_heads = a->KH,
                                    .head_dim = a->D,
                                    .scale = 0.3,
                                    .cross = true,
                                    .dropout = a->dropout,
                                    .seed = DROP_SEED,
                                    .mask_key = DROP_KEY};
    return pf_attention_cross(op_graph(f), "att", q, k, v, &args, root, err);
}

static void cross_oracle(const op_fixture *f, pf_real *root) {
    const att_case *a = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *q = op_numbers(f, "q"), *k = op_numbers(f, "k"), *v = op_numbers(f, "v");
    for (int32_t i = 0; i < b->n_tokens; i++) {
        const pf_ext_run *run = b->source_runs;
        while (i >= run->row_end) run++;
        for (int64_t h = 0; h < a->H; h++) {
            const int64_t kh = h * a->KH / a->H;
            const pf_real *qi = q + (b->ids[i] * a->H + h) * a->D;
            pf_real *o = root + (i * a->H + h) * a->D;
            double sum = 0;
            for (int pass = 0; pass < 2; pass++) {
                for (int64_t d = 0; d < a->D && pass == 0; d++) o[d] = 0;
                for (int32_t j = run->ext; j < run->ext + run->length; j++) {
                    double z = 0;
                    for (int64_t d = 0; d < a->D; d++)
                        z += (double)qi[d] * (double)k[(j * a->KH + kh) * a->D + d];
                    if (pass == 0) sum += exp(0.3 * z);
                    const double w = exp(0.3 * z) * oracle_kept(f, i, h, run->pos + j - run->ext);
                    for (int64_t d = 0; d < a->D && pass == 1; d++)
                        o[d] += (pf_real)(w / sum * (double)v[(j * a->KH + kh) * a->D + d]);
                }
            }
        }
    }
}

/* An encoder's own attention, and a decoder that looks at it: what the source's rows get comes from
 * cross attention alone. */
static peft_status build_encoder(op_fixture *f, pf_value **root, peft_error *err) {
    const att_case *a = op_args(f);
    const int64_t cols = a->H * a->D;
    pf_value *x[3], *o, *q = op_rows(f, "q", cols, 0, 1.5);
    static const char *const names[3] = {"eq", "ek", "ev"};
    for (int i = 0; i < 3; i++) x[i] = op_source_rows(f, names[i], cols, 0, 1);
    pf_attention_args args = {.n_heads = a->H,
                              .n_kv_heads = a->H,
                              .head_dim = a->D,
                              .scale = 1,
                              .bidirectional = true,
                              .bias_buckets = a->buckets,
                              .bias_max_distance = a->most,
                              .dropout = a->dropout,
                              .seed = DROP_SEED,
                              .mask_key = DROP_KEY};
    pf_value *bias = op_param(f, "bias", a->buckets, a->H, 0, 1);
    PF_TRY(pf_attention_biased(op_graph(f), "enc", x[0], x[1], x[2], NULL, NULL, bias, &args, &o,
                               err));
    args = (pf_attention_args){
        .n_heads = a->H, .n_kv_heads = a->H, .head_dim = a->D, .scale = 1, .cross = true};
    return pf_attention_cross(op_graph(f), "att", q, o, o, &args, root, err);
}

static bool sees(const pf_batch *b, int32_t i, int32_t j, const att_case *a) {
    if (a->window > 0 && b->pos[i] - b->pos[j] >= a->window) return false;
    if (b->seg[i] == b->seg[j]) return j <= i || a->bidirectional;
    for (int32_t s = b->segments[b->seg[i]].parent; s >= 0; s = b->segments[s].parent) {
        if (s == b->seg[j]) return true;
    }
    return false;
}

static double capped(const att_case *a, double z) {
    return a->softcap > 0 ? a->softcap * tanh(z / a->softcap) : z;
}

static void attention_oracle(const op_fixture *f, pf_real *root) {
    const att_case *a = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *q = op_numbers(f, "q"), *k = op_numbers(f, "k"), *v = op_numbers(f, "v");
    const pf_real *xk = op_numbers(f, "ext_k"), *xv = op_numbers(f, "ext_v");
    int64_t D = a->D, T = b->n_tokens, X = xk != NULL ? 100 : 0;
    double *p = calloc((size_t)(T + X), sizeof *p);
    for (int32_t i = 0; i < T; i++) {
        for (int64_t h = 0; h < a->H; h++) {
            int64_t kh = h * a->KH / a->H;
            const pf_real *qi = q + (i * a->H + h) * D;
            double sum = 0;
            for (int64_t x = 0; x < X; x++) {
                p[x] = 0;
                for (int32_t r = 0; r < b->n_ext_runs; r++) {
                    const pf_ext_run *run = &b->ext_runs[r];
                    int64_t pos = run->pos + x - run->ext;
                    if (i < run->row_begin || i >= run->row_end || x < run->ext ||
                        x >= run->ext + run->length)
                        continue;
                    if (a->window > 0 && b->pos[i] - pos >= a->window) continue;
                    double z = 0;
                    for (int64_t d = 0; d < D; d++)
                        z += (double)qi[d] * (double)xk[(x * a->KH + kh) * D + d];
                    p[x] = exp(capped(a, z / sqrt((double)D)) + oracle_bias(f, h, pos - b->pos[i]));
                    sum += p[x];
                    p[x] *= oracle_kept(f, i, h, pos);
                }
            }
            for (int32_t j = 0; j < T; j++) {
                p[X + j] = 0;
                if (!sees(b, i, j, a)) continue;
                double z = 0;
                for (int64_t d = 0; d < D; d++)
                    z += (double)qi[d] * (double)k[(j * a->KH + kh) * D + d];
                p[X + j] =
                    exp(capped(a, z / sqrt((double)D)) + oracle_bias(f, h, b->pos[j] - b->pos[i]));
                sum += p[X + j];
                p[X + j] *= oracle_kept(f, i, h, b->pos[j]);
            }
            for (int64_t d = 0; d < D; d++) {
                double o = 0;
                for (int64_t x = 0; x < X; x++) o += p[x] * (double)xv[(x * a->KH + kh) * D + d];
                for (int64_t j = 0; j < T; j++) o += p[X + j] * (double)v[(j * a->KH + kh) * D + d];
                root[(i * a->H + h) * D + d] = (pf_real)(o / sum);
            }
        }
    }
    free(p);
}

/* --- rope ------------------------------------------------------------------------------------- */

typedef struct rope_case {
    int64_t heads, W, D;
    double dynamic;
} rope_case;

static const float rope_freq[] = {1.0f,  0.5f,  0.31f, 0.1f,   0.05f, 0.033f, 0.01f, 0.0027f,
                                  0.7f,  0.2f,  0.13f, 0.011f, 0.9f,  0.4f,   0.22f, 0.08f,
                                  0.6f,  0.3f,  0.17f, 0.02f,  0.8f,  0.25f,  0.19f, 0.015f,
                                  0.55f, 0.35f, 0.21f, 0.04f,  0.66f, 0.33f,  0.12f, 0.003f};

static peft_status build_rope(op_fixture *f, pf_value **root, peft_error *err) {
    const rope_case *a = op_args(f);
    pf_rope_table_args args = {.dim = a->D,
                               .inv_freq = rope_freq,
                               .attention_factor = 1.25,
                               .dynamic_factor = a->dynamic,
                               .base = 100,
                               .original = 30};
    pf_value *table, *x = op_rows(f, "x", a->heads * a->W, 0, 1);
    PF_TRY(pf_rope_table(op_graph(f), "table", &args, &table, err));
    return pf_rope(op_graph(f), "rope", x, table, a->W, root, err);
}

/* x cos + rotate_half(x) sin, as Hugging Face writes it */
static void rope_oracle(const op_fixture *f, pf_real *root) {
    const rope_case *a = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *x = op_numbers(f, "x");
    for (int32_t i = 0; i < b->n_tokens; i++) {
        double L = b->segments[b->seg[i]].rope_length;
        for (int64_t h = 0; h < a->heads; h++) {
            const pf_real *xi = x + (i * a->heads + h) * a->W;
            for (int64_t c = 0; c < a->W; c++) {
                pf_real *y = root + (i * a->heads + h) * a->W + c;
                *y = xi[c];
                if (c >= a->D) continue;
                int64_t half = a->D / 2, j = c % half;
                float freq = rope_freq[j];
                if (a->dynamic != 0 && L > 30) {
                    double base = 100 * pow(a->dynamic * L / 30 - (a->dynamic - 1),
                                            (double)a->D / (double)(a->D - 2));
                    freq = 1.0f / powf((float)base, (float)(2 * j) / (float)a->D);
                }
                double angle = (double)((float)b->pos[i] * freq);
                double turned = c < half ? -(double)xi[c + half] : (double)xi[c - half];
                *y = (pf_real)(1.25 * ((double)xi[c] * cos(angle) + turned * sin(angle)));
            }
        }
    }
}

static const att_case gqa_64 = {.H = 6, .KH = 2, .D = 64}, three_24 = {.H = 6, .KH = 3, .D = 24},
                      window_3x8 = {.H = 9, .KH = 3, .D = 8, .window = 40},
                      mha_16 = {.H = 2, .KH = 2, .D = 16}, mqa_80 = {.H = 5, .KH = 1, .D = 80},
                      odd_10 = {.H = 3, .KH = 3, .D = 10}, odd_6 = {.H = 14, .KH = 2, .D = 6},
                      wide_128 = {.H = 2, .KH = 1, .D = 128},
                      many_heads = {.H = 51, .KH = 1, .D = 4},
                      window_9 = {.H = 6, .KH = 2, .D = 8, .window = 9},
                      window_2 = {.H = 2, .KH = 1, .D = 8, .window = 2},
                      window_64 = {.H = 2, .KH = 2, .D = 12, .window = 64},
                      window_odd = {.H = 7, .KH = 1, .D = 20, .window = 33},
                      learned = {.H = 4, .KH = 2, .D = 16, .learned = true},
                      learned_window = {.H = 4, .KH = 2, .D = 12, .window = 30, .learned = true},
                      smollm = {.H = 9, .KH = 3, .D = 64}, qwen = {.H = 14, .KH = 2, .D = 64},
                      llama = {.H = 8, .KH = 8, .D = 128};
static const att_case both_12x64 = {.H = 12, .KH = 12, .D = 64, .bidirectional = true},
                      both_3x16 = {.H = 3, .KH = 3, .D = 16, .bidirectional = true},
                      both_6x2x20 = {
                          .H = 6, .KH = 2, .D = 20, .learned = true, .bidirectional = true};
static const att_case cap_24 = {.H = 6, .KH = 2, .D = 24, .softcap = 1.5},
                      cap_wide = {.H = 2, .KH = 1, .D = 64, .softcap = 50},
                      cap_window = {.H = 7, .KH = 1, .D = 20, .window = 33, .softcap = 0.7},
                      cap_learned = {
                          .H = 4, .KH = 2, .D = 12, .window = 30, .learned = true, .softcap = 2};
static const rope_case rope_64 = {3, 64, 64, 0}, rope_part = {2, 20, 10, 0},
                       rope_dynamic = {2, 12, 12, 2}, rope_9x64 = {9, 64, 64, 0};

static const float slopes[] = {0.5f, 0.25f, 0.125f, 0.0625f, 0.7f, 0.35f};
static const att_case bias_3x16 = {.H = 3, .KH = 3, .D = 16, .buckets = 8, .most = 20},
                      bias_both = {.H = 3,
                                   .KH = 3,
                                   .D = 16,
                                   .bidirectional = true,
                                   .buckets = 32,
                                   .most = 40},
                      bias_grouped = {.H = 6, .KH = 2, .D = 20, .buckets = 12, .most = 30},
                      bias_frozen = {.H = 4,
                                     .KH = 4,
                                     .D = 12,
                                     .window = 50,
                                     .learned = true,
                                     .buckets = 32,
                                     .most = 128,
                                     .frozen = true},
                      alibi = {.H = 6, .KH = 6, .D = 16, .slopes = slopes},
                      alibi_grouped = {.H = 6, .KH = 2, .D = 20, .slopes = slopes},
                      window_3x8_all = {.H = 9, .KH = 3, .D = 8};

static const att_case
    drop_64 = {.H = 6, .KH = 2, .D = 64, .dropout = 0.1},
    drop_10 = {.H = 3, .KH = 3, .D = 10, .dropout = 0.5},
    drop_many = {.H = 51, .KH = 1, .D = 4, .dropout = 0.3},
    drop_window = {.H = 7, .KH = 1, .D = 20, .window = 33, .dropout = 0.3},
    drop_learned = {.H = 4, .KH = 2, .D = 12, .window = 30, .learned = true, .dropout = 0.25},
    drop_both = {.H = 3, .KH = 3, .D = 16, .bidirectional = true, .dropout = 0.2},
    drop_cap = {.H = 6, .KH = 2, .D = 24, .softcap = 1.5, .dropout = 0.2},
    drop_bias = {.H = 6, .KH = 2, .D = 20, .buckets = 12, .most = 30, .dropout = 0.2},
    drop_smollm = {.H = 9, .KH = 3, .D = 64, .dropout = 0.1},
    drop_bert = {.H = 12, .KH = 12, .D = 64, .bidirectional = true, .dropout = 0.1};

#define CROSS(name_, batch_, args_)                                                                \
    { OP_CASE(name_, batch_, build_cross, args_), .oracle = cross_oracle, .tol = 2e-5 }
#define ATT(name_, batch_, args_)                                                                  \
    { OP_CASE(name_, batch_, build_attention, args_), .oracle = attention_oracle, .tol = 2e-5 }
#define ROPE(name_, batch_, args_)                                                                 \
    { OP_CASE(name_, batch_, build_rope, args_), .oracle = rope_oracle, .tol = 2e-6 }
#define BENCH(name_, batch_, args_)                                                                \
    { OP_CASE(name_, batch_, build_attention, args_), .only_bench = true }

static const op_case attention_cases[] = {
    ATT("attention/plain_gqa_64", &op_batch_plain, &gqa_64),
    ATT("attention/plain_mha_16", &op_batch_plain, &mha_16),
    ATT("attention/plain_mqa_80", &op_batch_plain, &mqa_80),
    ATT("attention/plain_odd_10", &op_batch_plain, &odd_10),
    ATT("attention/tree_gqa_64", &op_batch_tree, &gqa_64),
    ATT("attention/tree_odd_6", &op_batch_tree, &odd_6),
    ATT("attention/tree_wide_128", &op_batch_tree, &wide_128),
    ATT("attention/tree_many_heads", &op_batch_tree, &many_heads),
    ATT("attention/tree_window_9", &op_batch_tree, &window_9),
    ATT("attention/tree_window_2", &op_batch_tree, &window_2),
    ATT("attention/tree_window_64", &op_batch_tree, &window_64),
    ATT("attention/tree_window_odd", &op_batch_tree, &window_odd),
    ATT("attention/one_three_key_heads", &op_batch_one, &three_24),
    ATT("attention/one_window_40", &op_batch_one, &window_3x8),
    ATT("attention/ext_gqa_64", &op_batch_ext, &gqa_64),
    ATT("attention/ext_mha_16", &op_batch_ext, &mha_16),
    ATT("attention/ext_window_33", &op_batch_ext, &window_odd),
    ATT("attention/ext_window_9", &op_batch_ext, &window_9),
    ATT("attention/ext_learned", &op_batch_ext, &learned),
    ATT("attention/ext_learned_window", &op_batch_ext, &learned_window),
    ATT("attention/plain_bidirectional", &op_batch_plain, &both_3x16),
    ATT("attention/tree_bidirectional", &op_batch_tree, &both_6x2x20),
    ATT("attention/one_bidirectional", &op_batch_one, &both_3x16),
    ATT("attention/ext_bidirectional", &op_batch_ext, &both_6x2x20),
    ATT("attention/plain_softcap", &op_batch_plain, &cap_24),
    ATT("attention/tree_softcap", &op_batch_tree, &cap_24),
    ATT("attention/tree_softcap_wide", &op_batch_tree, &cap_wide),
    ATT("attention/one_softcap", &op_batch_one, &cap_24),
    ATT("attention/tree_softcap_window", &op_batch_tree, &cap_window),
    ATT("attention/ext_softcap", &op_batch_ext, &cap_24),
    ATT("attention/ext_softcap_learned", &op_batch_ext, &cap_learned),
    ATT("attention/plain_bias", &op_batch_plain, &bias_3x16),
    ATT("attention/plain_bias_both_ways", &op_batch_plain, &bias_both),
    ATT("attention/tree_bias", &op_batch_tree, &bias_grouped),
    ATT("attention/ext_bias", &op_batch_ext, &bias_3x16),
    ATT("attention/ext_bias_frozen", &op_batch_ext, &bias_frozen),
    ATT("attention/tree_slopes", &op_batch_tree, &alibi),
    ATT("attention/ext_slopes", &op_batch_ext, &alibi_grouped),
    CROSS("attention/cross", &op_batch_source, &mha_16),
    CROSS("attention/cross_grouped", &op_batch_source, &window_3x8_all),
    {OP_CASE("attention/encoder", &op_batch_source, build_encoder, &bias_3x16), .tol = 5e-5},
    ATT("attention/plain_dropout", &op_batch_plain, &drop_64),
    ATT("attention/plain_dropout_10", &op_batch_plain, &drop_10),
    ATT("attention/tree_dropout", &op_batch_tree, &drop_64),
    ATT("attention/tree_dropout_many_heads", &op_batch_tree, &drop_many),
    ATT("attention/tree_dropout_window", &op_batch_tree, &drop_window),
    ATT("attention/one_dropout", &op_batch_one, &drop_10),
    ATT("attention/one_dropout_both_ways", &op_batch_one, &drop_both),
    ATT("attention/plain_dropout_both_ways", &op_batch_plain, &drop_both),
    ATT("attention/ext_dropout", &op_batch_ext, &drop_64),
    ATT("attention/ext_dropout_learned", &op_batch_ext, &drop_learned),
    ATT("attention/tree_dropout_softcap", &op_batch_tree, &drop_cap),
    ATT("attention/tree_dropout_bias", &op_batch_tree, &drop_bias),
    CROSS("attention/cross_dropout", &op_batch_source, &drop_10),
    CROSS("attention/cross_dropout_grouped", &op_batch_source, &drop_64),
    ROPE("rope/64", &op_batch_plain, &rope_64),
    ROPE("rope/partial", &op_batch_tree, &rope_part),
    ROPE("rope/dynamic", &op_batch_tree, &rope_dynamic),
    BENCH("attention/bench_512_9x3x64", &op_batch_512, &smollm),
    BENCH("attention/bench_2048_9x3x64", &op_batch_2048, &smollm),
    BENCH("attention/bench_8192_9x3x64", &op_batch_8192, &smollm),
    BENCH("attention/bench_32x32_9x3x64", &op_batch_short, &smollm),
    BENCH("attention/bench_512_bidirectional_12x64", &op_batch_512, &both_12x64),
    BENCH("attention/bench_2048_9x3x64_dropout", &op_batch_2048, &drop_smollm),
    BENCH("attention/bench_512_bidirectional_12x64_dropout", &op_batch_512, &drop_bert),
    BENCH("attention/bench_answers_9x3x64", &op_batch_answers, &smollm),
    BENCH("attention/bench_2048_14x2x64", &op_batch_2048, &qwen),
    BENCH("attention/bench_2048_8x8x128", &op_batch_2048, &llama),
    {OP_CASE("rope/bench_2048_9x64", &op_batch_2048, build_rope, &rope_9x64), .only_bench = true},
};
