/* delta_cases.h - derive and rowmap, and the functions of the methods in peft/delta/, for
 * test_delta_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/activation/scale_cols.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta_maps.h"

#include <math.h>

typedef struct sizes {
    int64_t in, out, r, s;
    double scale;
} sizes;

/* y = x Qᵀ Pᵀ with P and Q of Kronecker products */
static peft_status build_khatri_rao(op_fixture *f, pf_value **root, peft_error *err) {
    const sizes *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *p, *q, *s;
    pf_value *left[2] = {op_param(f, "a1", a->out, a->r, 0, 0.5),
                         op_param(f, "a2", a->out, a->s, 0, 0.5)},
             *right[2] = {op_param(f, "b1", a->r, a->in, 0, 0.3),
                          op_param(f, "b2", a->s, a->in, 0, 0.3)};
    PF_TRY(pf_derive_emit(g, "p", &pf_khatri_rao_rows, &a->scale, left, 2, &p, err));
    PF_TRY(pf_derive_emit(g, "q", &pf_khatri_rao_cols, NULL, right, 2, &q, err));
    PF_TRY(pf_linear(g, "down", x, q, NULL, &s, err));
    return pf_linear(g, "up", s, p, NULL, root, err);
}

static void khatri_rao_oracle(const op_fixture *f, pf_real *root) {
    const sizes *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *a1 = op_numbers(f, "a1"), *a2 = op_numbers(f, "a2"),
                  *b1 = op_numbers(f, "b1"), *b2 = op_numbers(f, "b2");
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < a->out; o++) {
            double y = 0;
            for (int64_t c = 0; c < a->in; c++) {
                double w1 = 0, w2 = 0;
                for (int64_t i = 0; i < a->r; i++)
                    w1 += (double)a1[o * a->r + i] * (double)b1[i * a->in + c];
                for (int64_t i = 0; i < a->s; i++)
                    w2 += (double)a2[o * a->s + i] * (double)b2[i * a->in + c];
                y += a->scale * w1 * w2 * (double)x[t * a->in + c];
            }
            root[t * a->out + o] = (pf_real)y;
        }
    }
}

/* A rotation of rows by blocks that a Cayley transform makes; every other block is used twice when
 * `shared`. */
typedef struct turned {
    int64_t in, blocks;
    pf_cayley_args cayley;
    pf_rotate_args rotate;
} turned;

static peft_status build_rotation(op_fixture *f, pf_value **root, peft_error *err) {
    const turned *a = op_args(f);
    const int64_t s = a->cayley.size, half = s * (s - 1) / 2;
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *r;
    pf_value *p = op_param(f, "p", a->cayley.packed ? a->blocks : a->blocks * s,
                           a->cayley.packed ? half : s, 0, 0.3);
    PF_TRY(pf_derive_emit(op_graph(f), "r", &pf_cayley, &a->cayley, &p, 1, &r, err));
    return pf_rowmap_emit(op_graph(f), "rotate", &pf_rotate, &a->rotate, x, &r, 1, root, err);
}

/* Rows keep their length when the transform is exact. */
static void rotation_oracle(const op_fixture *f, pf_real *root) {
    const turned *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *p = op_numbers(f, "p");
    const int64_t s = a->cayley.size, C = a->in;
    double q[3][3], i3[3][3], y[3];
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t k = 0; k < C / s; k++) { /* z (I + Q) = x (I - Q), s is 3: Cramer's rule */
            const pf_real *v = p + (a->blocks == 1 ? 0 : k) * 3;
            const double n[3] = {(double)v[0], (double)v[1], (double)v[2]};
            const double qs[3][3] = {{0, n[0], n[1]}, {-n[0], 0, n[2]}, {-n[1], -n[2], 0}};
            for (int i = 0; i < 3; i++) {
                y[i] = 0;
                for (int j = 0; j < 3; j++) {
                    i3[i][j] = (i == j) + qs[i][j];
                    q[i][j] = (i == j) - qs[i][j];
                }
            }
            for (int c = 0; c < 3; c++)
                for (int j = 0; j < 3; j++) y[c] += (double)x[t * C + k * 3 + j] * q[j][c];
            double det = 0, num[3] = {0};
            for (int j = 0; j < 3; j++) {
                const int u = (j + 1) % 3, w = (j + 2) % 3;
                det += i3[0][j] * (i3[1][u] * i3[2][w] - i3[1][w] * i3[2][u]);
            }
            for (int r = 0; r < 3; r++) { /* row r of the matrix replaced by y */
                double m[3][3];
                for (int i = 0; i < 3; i++)
                    for (int j = 0; j < 3; j++) m[i][j] = i == r ? y[j] : i3[i][j];
                for (int j = 0; j < 3; j++) {
                    const int u = (j + 1) % 3, w = (j + 2) % 3;
                    num[r] += m[0][j] * (m[1][u] * m[2][w] - m[1][w] * m[2][u]);
                }
                root[t * C + k * 3 + r] = (pf_real)(num[r] / det);
            }
        }
    }
}

static const int32_t to_8[] = {0, 2, 4, 6, 1, 3, 5, 7}, from_8[] = {0, 4, 1, 5, 2, 6, 3, 7};
static const turned exact_3 = {6, 2, {3, true, 0, 0}, {3, 0, NULL, NULL}};
static const turned shared_3 = {9, 1, {3, true, 0, 0}, {3, 0, NULL, NULL}};
static const turned series_4 = {8, 2, {4, true, 5, 0}, {4, 0, NULL, NULL}};
static const turned short_series = {8, 2, {4, true, 2, 0}, {4, 0, NULL, NULL}};
static const turned full_shuffled = {8, 4, {2, false, 0, 0}, {2, 0, from_8, to_8}};
static const turned later_blocks = {8, 6, {2, false, 0, 0}, {2, 2, from_8, to_8}};
static const turned wide_later = {32, 3, {16, true, 3, 0}, {16, 1, NULL, NULL}};
static const turned wide_20 = {40, 2, {20, true, 7, 0}, {20, 0, NULL, NULL}};
static const turned wide_shared = {34, 1, {17, false, 0, 0}, {17, 0, NULL, NULL}};

static peft_status build_reflection(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_reflect_args *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", 11, 0, 1), *u = op_param(f, "u", 11, 3, 0.2, 1), *m[2], *s;
    PF_TRY(pf_derive_emit(g, "m", &pf_reflect, a, &u, 1, m, err));
    PF_TRY(pf_linear(g, "down", x, m[0], NULL, &s, err));
    PF_TRY(pf_linear(g, "up", s, m[1], NULL, &s, err));
    return pf_add(g, "sum", x, s, root, err);
}

/* One plane after the other, the last first. */
static void reflection_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x"), *u = op_numbers(f, "u");
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        pf_real *y = root + t * 11;
        for (int c = 0; c < 11; c++) y[c] = x[t * 11 + c];
        for (int i = 2; i >= 0; i--) {
            double along = 0, norm = 0;
            for (int c = 0; c < 11; c++) {
                along += (double)y[c] * (double)u[c * 3 + i];
                norm += (double)u[c * 3 + i] * (double)u[c * 3 + i];
            }
            for (int c = 0; c < 11; c++)
                y[c] = (pf_real)((double)y[c] - 2 * along / norm * (double)u[c * 3 + i]);
        }
    }
}

static const pf_reflect_args in_order = {false}, orthogonal = {true};

typedef struct kron_sizes {
    int64_t l, m, k, n;
    double scale;
} kron_sizes;

static peft_status build_kron(op_fixture *f, pf_value **root, peft_error *err) {
    const kron_sizes *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->m * a->n, 0, 1),
             *w[2] = {op_param(f, "w1", a->l, a->m, 0, 0.5), op_param(f, "w2", a->k, a->n, 0, 0.5)};
    return pf_rowmap_emit(op_graph(f), "kron", &pf_kron, &a->scale, x, w, 2, root, err);
}

static void kron_oracle(const op_fixture *f, pf_real *root) {
    const kron_sizes *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *w1 = op_numbers(f, "w1"), *w2 = op_numbers(f, "w2");
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < a->l * a->k; o++) {
            double y = 0;
            for (int64_t c = 0; c < a->m * a->n; c++)
                y += (double)w1[o / a->k * a->m + c / a->n] *
                     (double)w2[o % a->k * a->n + c % a->n] * (double)x[t * a->m * a->n + c];
            root[t * a->l * a->k + o] = (pf_real)(a->scale * y);
        }
    }
}

static const kron_sizes kron_small = {2, 3, 5, 4, 0.5}, kron_medium = {6, 4, 9, 12, 1.5};

/* Shards of x summed, times tiles. */
typedef struct shards {
    int64_t in, out, r, n;
} shards;

static peft_status build_fold(op_fixture *f, pf_value **root, peft_error *err) {
    const shards *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *p = op_param(f, "p", a->r, a->n, 0, 0.5), *w, *s;
    PF_TRY(pf_rowmap_emit(g, "fold", &pf_fold, &a->r, x, NULL, 0, &s, err));
    PF_TRY(pf_derive_emit(g, "tiles", &pf_tile_turned, &a->out, &p, 1, &w, err));
    return pf_linear(g, "linear", s, w, NULL, root, err);
}

static void fold_oracle(const op_fixture *f, pf_real *root) {
    const shards *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *p = op_numbers(f, "p");
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < a->out; o++) {
            double y = 0;
            for (int64_t c = 0; c < a->in; c++)
                y += (double)x[t * a->in + c] * (double)p[c % a->r * a->n + o % a->n];
            root[t * a->out + o] = (pf_real)y;
        }
    }
}

static const shards fold_plain = {10, 6, 4, 6}, fold_tiled = {12, 6, 3, 2};

static peft_status build_shards(op_fixture *f, pf_value **root, peft_error *err) {
    const shards *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *d;
    pf_value *in[2] = {op_param(f, "p", a->out, a->r, 0, 0.5),
                       op_weight(f, "w", a->out, a->in, PF_DTYPE_F32, 0, 0.5)};
    PF_TRY(pf_derive_emit(g, "update", &pf_shard_update, NULL, in, 2, &d, err));
    return pf_linear(g, "linear", x, d, NULL, root, err);
}

static const shards shards_small = {6, 4, 2, 0};

static peft_status build_hadamard(op_fixture *f, pf_value **root, peft_error *err) {
    const sizes *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *w;
    pf_value *in[4] = {
        op_param(f, "a1", a->out, a->r, 0, 0.5), op_param(f, "b1", a->r, a->in, 0, 0.3),
        op_param(f, "a2", a->out, a->s, 0, 0.5), op_param(f, "b2", a->s, a->in, 0, 0.3)};
    PF_TRY(pf_derive_emit(op_graph(f), "w", &pf_hadamard, &a->scale, in, 4, &w, err));
    return pf_linear(op_graph(f), "linear", x, w, NULL, root, err);
}

static const sizes small = {.in = 7, .out = 5, .r = 3, .s = 2, .scale = 1.5};
static const sizes medium = {.in = 40, .out = 33, .r = 4, .s = 4, .scale = 0.5};

static peft_status build_scale_about(op_fixture *f, pf_value **root, peft_error *err) {
    const bool *frozen = op_args(f);
    pf_value *x = op_rows(f, "x", 70, 0, 1),
             *p[2] = {op_param(f, "s", 70, 1, 1, 0.5),
                      *frozen ? op_weight(f, "b", 1, 70, PF_DTYPE_BF16, 0, 1)
                              : op_param(f, "b", 1, 70, 0, 1)};
    return pf_rowmap_emit(op_graph(f), "scale", &pf_scale_about, NULL, x, p, 2, root, err);
}

static void scale_about_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x"), *s = op_numbers(f, "s"), *b = op_numbers(f, "b");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * 70; i++)
        root[i] = s[i % 70] * x[i] + (1 - s[i % 70]) * b[i % 70];
}

static const bool yes = true, no = false;

/* Few coefficients: D element by element. */
typedef struct spectrum {
    int64_t in, out, n;
} spectrum;

static const int32_t places_u[] = {0, 3, 1, 3, 2, 4, 0}, places_v[] = {0, 2, 5, 1, 5, 3, 4};
static pf_fft fft_in, fft_out;
static pf_fourier_args fourier_args;

static peft_status build_fourier(op_fixture *f, pf_value **root, peft_error *err) {
    const spectrum *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *p = op_param(f, "p", 1, a->n, 0, 1);
    PF_TRY(pf_fft_init(&fft_in, &op_graph(f)->arena, a->in, err));
    PF_TRY(pf_fft_init(&fft_out, &op_graph(f)->arena, a->out, err));
    fourier_args = (pf_fourier_args){&fft_in, &fft_out, places_u, places_v, 0.5};
    return pf_rowmap_emit(op_graph(f), "fourier", &pf_fourier, &fourier_args, x, &p, 1, root, err);
}

static void fourier_oracle(const op_fixture *f, pf_real *root) {
    const spectrum *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *p = op_numbers(f, "p");
    const double turn = 8 * atan(1.0);
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < a->out; o++) {
            double y = 0;
            for (int64_t i = 0; i < a->in; i++) {
                double d = 0;
                for (int64_t k = 0; k < a->n; k++)
                    d += (double)p[k] * cos(turn * (places_u[k] * (double)o / (double)a->out +
                                                    places_v[k] * (double)i / (double)a->in));
                y += 0.5 * d * (double)x[t * a->in + i];
            }
            root[t * a->out + o] = (pf_real)y;
        }
    }
}

static const spectrum fourier_powers = {16, 8, 7}, fourier_mixed = {18, 15, 6},
                      fourier_primes = {7, 35, 7};

/* Circulant blocks, element by element. */
typedef struct circulants {
    int64_t in, out;
    pf_circulant_args args;
} circulants;

static peft_status build_circulant(op_fixture *f, pf_value **root, peft_error *err) {
    const circulants *a = op_args(f);
    const int64_t b = a->args.size;
    pf_value *x = op_rows(f, "x", a->in, 0, 1),
             *p = op_param(f, "p", a->out / b * (a->in / b), b, 0, 0.5);
    return pf_rowmap_emit(op_graph(f), "circulant", &pf_circulant, &a->args, x, &p, 1, root, err);
}

static void circulant_oracle(const op_fixture *f, pf_real *root) {
    const circulants *a = op_args(f);
    const int64_t b = a->args.size;
    const pf_real *x = op_numbers(f, "x"), *p = op_numbers(f, "p");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * a->out; i++) {
        const int64_t o = i % a->out;
        double y = 0;
        for (int64_t c = 0; c < a->in; c++)
            y += (double)p[(o / b * (a->in / b) + c / b) * b + (c % b - o % b + b) % b] *
                 (double)x[i / a->out * a->in + c];
        root[i] = (pf_real)(a->args.scale * y);
    }
}

static const circulants circulant_small = {6, 9, {3, 0.5}}, circulant_wide = {48, 32, {16, 1.5}};

/* x times A, the factors of its ranks, B */
static peft_status build_bounded(op_fixture *f, pf_value **root, peft_error *err) {
    const sizes *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *s;
    pf_value *in[3] = {op_param(f, "a", a->r, a->in, 0, 0.5),
                       op_param(f, "b", a->out, a->r, 0, 0.5), op_param(f, "lambda", 1, 1, 2, 0.1)};
    PF_TRY(pf_derive_emit(g, "ranks", &pf_bounded_ranks, NULL, in, 3, &s, err));
    PF_TRY(pf_linear(g, "down", x, in[0], NULL, &x, err));
    PF_TRY(pf_scale_cols(g, "ranks", x, s, &x, err));
    return pf_linear(g, "up", x, in[1], NULL, root, err);
}

static void bounded_oracle(const op_fixture *f, pf_real *root) {
    const sizes *s = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *a = op_numbers(f, "a"), *b = op_numbers(f, "b"),
                  lambda = *op_numbers(f, "lambda");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * s->out; i++) {
        double y = 0;
        for (int64_t k = 0; k < s->r; k++) {
            double h = 0, an = 0, bn = 0;
            for (int64_t c = 0; c < s->in; c++) {
                h += (double)a[k * s->in + c] * (double)x[i / s->out * s->in + c];
                an += (double)a[k * s->in + c] * (double)a[k * s->in + c];
            }
            for (int64_t o = 0; o < s->out; o++)
                bn += (double)b[o * s->r + k] * (double)b[o * s->r + k];
            y += (double)b[i % s->out * s->r + k] * h * (double)lambda / (double)s->r /
                 sqrt(an * bn);
        }
        root[i] = (pf_real)y;
    }
}

typedef struct pairs {
    int64_t width;
    pf_pair_turn_args args;
} pairs;

static peft_status build_pairs(op_fixture *f, pf_value **root, peft_error *err) {
    const pairs *a = op_args(f);
    const int64_t n = a->width * a->args.kind / 2;
    pf_value *x = op_rows(f, "x", a->width, 0, 1),
             *p[2] = {op_param(f, "theta", 1, n, 0, 1), op_param(f, "alpha", 1, n, 1, 0.3)};
    return pf_rowmap_emit(op_graph(f), "turn", &pf_pair_turn, &a->args, x, p, 2, root, err);
}

static void pairs_oracle(const op_fixture *f, pf_real *root) { /* of kind 1 */
    const pairs *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *theta = op_numbers(f, "theta"),
                  *alpha = op_numbers(f, "alpha");
    const int64_t half = a->args.group / 2;
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t k = 0; k < a->width / 2; k++) {
            const int64_t at = t * a->width + k / half * a->args.group + k % half;
            const double c = cos((double)theta[k]), s = sin((double)theta[k]);
            const double u = (double)x[at], v = (double)x[at + half];
            root[at] = (pf_real)((double)alpha[k] * (c * u - s * v));
            root[at + half] = (pf_real)((double)alpha[k] * (s * u + c * v));
        }
    }
}

static const pairs pairs_1 = {24, {1, 8}}, pairs_2 = {12, {2, 4}}, pairs_4 = {16, {4, 16}};

typedef struct bases {
    int64_t in, out, r, n;
    pf_scaled_bases_args args;
} bases;

static peft_status build_bases(op_fixture *f, pf_value **root, peft_error *err) {
    const bases *a = op_args(f);
    const int64_t side = a->args.turned ? a->out : a->in;
    pf_value *in[3] = {op_param(f, "lambda", a->r, a->n, 0, 1),
                       op_param(f, "gamma", a->n, side, 0, 1),
                       op_state(f, "data", a->r + 1, side + 2, 0, 1)},
             *z;
    PF_TRY(pf_derive_emit(op_graph(f), "bases", &pf_scaled_bases, &a->args, in, 3, &z, err));
    return pf_linear(op_graph(f), "linear",
                     op_rows(f, "x", a->args.turned ? a->r * a->n : a->in, 0, 1), z, NULL, root,
                     err);
}

static void bases_oracle(const op_fixture *f, pf_real *root) {
    const bases *a = op_args(f);
    const int64_t side = a->args.turned ? a->out : a->in, parts = a->r * a->n,
                  cols = a->args.turned ? parts : side, n_rows = a->args.turned ? side : parts;
    const pf_real *x = op_numbers(f, "x"), *l = op_numbers(f, "lambda"),
                  *g = op_numbers(f, "gamma"), *base = op_numbers(f, "data");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * n_rows; i++) {
        double y = 0;
        for (int64_t k = 0; k < cols; k++) {
            const int64_t part = a->args.turned ? k : i % n_rows,
                          c = a->args.turned ? i % n_rows : k, b = part % a->n;
            y += (double)l[part] * (double)base[part / a->n * (side + 2) + c] *
                 (double)g[b * side + c] * (double)x[i / n_rows * cols + k];
        }
        root[i] = (pf_real)y;
    }
}

static const bases bases_plain = {9, 0, 3, 4, {false}}, bases_turned = {0, 7, 2, 5, {true}};

static peft_status build_weighted(op_fixture *f, pf_value **root, peft_error *err) {
    const sizes *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1);
    pf_value *p[3] = {op_param(f, "a", a->r, a->in, 0, 0.5), op_param(f, "b", a->out, a->r, 0, 0.5),
                      op_weight(f, "w", a->out, a->in, PF_DTYPE_BF16, 0, 0.5)};
    return pf_rowmap_emit(op_graph(f), "weighted", &pf_weighted_rows, NULL, x, p, 3, root, err);
}

static void weighted_oracle(const op_fixture *f, pf_real *root) {
    const sizes *s = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *a = op_numbers(f, "a"), *b = op_numbers(f, "b"),
                  *w = op_numbers(f, "w");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * s->out; i++) {
        const int64_t o = i % s->out;
        double y = 0;
        for (int64_t c = 0; c < s->in; c++) {
            double d = 0;
            for (int64_t k = 0; k < s->r; k++)
                d += (double)b[o * s->r + k] * (double)a[k * s->in + c];
            y += d * (double)w[o * s->in + c] * (double)x[i / s->out * s->in + c];
        }
        root[i] = (pf_real)y;
    }
}

static const sizes strips = {.in = 12, .out = 150, .r = 3};

static const int64_t few_start[] = {0, 2, 2, 5, 6};
static const int32_t few_column[] = {1, 4, 0, 2, 4, 3};
static const pf_sparse_args few = {5, 4, 6, few_start, few_column};

static peft_status build_sparse(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_sparse_args *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1), *p = op_param(f, "p", 1, a->n, 0, 1);
    return pf_rowmap_emit(op_graph(f), "sparse", &pf_sparse, a, x, &p, 1, root, err);
}

static void sparse_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x"), *p = op_numbers(f, "p");
    static const int at[] = {0, 0, 2, 2, 2, 3};
    for (int64_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < 4; o++) root[t * 4 + o] = 0;
        for (int k = 0; k < 6; k++) root[t * 4 + at[k]] += p[k] * x[t * 5 + few_column[k]];
    }
}

typedef struct granules {
    int64_t in, out, r;
    pf_granular_args args;
} granules;

static peft_status build_granules(op_fixture *f, pf_value **root, peft_error *err) {
    const granules *a = op_args(f);
    pf_value *x = op_rows(f, "x", a->in, 0, 1);
    pf_value *p[2] = {op_param(f, "a", a->in, a->r, 0, 0.5),
                      op_param(f, "b", a->args.n * a->r, a->out / a->args.n, 0, 0.5)};
    return pf_rowmap_emit(op_graph(f), "granules", &pf_granular, &a->args, x, p, 2, root, err);
}

static void granules_oracle(const op_fixture *f, pf_real *root) {
    const granules *g = op_args(f);
    const int64_t n = g->args.n, part = g->r / n, width = g->out / n;
    const pf_real *x = op_numbers(f, "x"), *a = op_numbers(f, "a"), *b = op_numbers(f, "b");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * g->out; i++) {
        const int64_t o = i % g->out, j = o / width;
        double y = 0;
        for (int64_t c = 0; c < g->in; c++) {
            const int64_t k = c / (g->in / n);
            for (int64_t s = 0; s < part; s++)
                y += (double)a[c * g->r + j * part + s] *
                     (double)b[(j * g->r + k * part + s) * width + o % width] *
                     (double)x[i / g->out * g->in + c];
        }
        root[i] = (pf_real)(g->args.scale * y);
    }
}

static const granules granules_2 = {6, 10, 4, {2, 0.5}}, granules_3 = {9, 6, 3, {3, 1.5}};

static const op_case delta_cases[] = {
    {OP_CASE("khatri_rao/small", &op_batch_plain, build_khatri_rao, &small),
     .oracle = khatri_rao_oracle},
    {OP_CASE("khatri_rao/medium", &op_batch_tree, build_khatri_rao, &medium),
     .oracle = khatri_rao_oracle},
    {OP_CASE("hadamard/small", &op_batch_plain, build_hadamard, &small),
     .oracle = khatri_rao_oracle},
    {OP_CASE("hadamard/medium", &op_batch_tree, build_hadamard, &medium),
     .oracle = khatri_rao_oracle},
    {OP_CASE("cayley/exact", &op_batch_plain, build_rotation, &exact_3), .oracle = rotation_oracle},
    {OP_CASE("cayley/shared", &op_batch_tree, build_rotation, &shared_3),
     .oracle = rotation_oracle},
    {OP_CASE("cayley/series", &op_batch_plain, build_rotation, &series_4)},
    {OP_CASE("cayley/short", &op_batch_plain, build_rotation, &short_series)},
    {OP_CASE("rotate/shuffled", &op_batch_plain, build_rotation, &full_shuffled)},
    {OP_CASE("rotate/later", &op_batch_plain, build_rotation, &later_blocks)},
    {OP_CASE("rotate/wide later", &op_batch_plain, build_rotation, &wide_later)},
    {OP_CASE("rotate/wide", &op_batch_tree, build_rotation, &wide_20)},
    {OP_CASE("rotate/wide shared", &op_batch_one, build_rotation, &wide_shared)},
    {OP_CASE("reflect/in order", &op_batch_plain, build_reflection, &in_order),
     .oracle = reflection_oracle},
    {OP_CASE("reflect/orthogonal", &op_batch_plain, build_reflection, &orthogonal)},
    {OP_CASE("kron/small", &op_batch_plain, build_kron, &kron_small), .oracle = kron_oracle},
    {OP_CASE("kron/medium", &op_batch_tree, build_kron, &kron_medium), .oracle = kron_oracle},
    {OP_CASE("fold/plain", &op_batch_plain, build_fold, &fold_plain), .oracle = fold_oracle},
    {OP_CASE("fold/tiled", &op_batch_tree, build_fold, &fold_tiled), .oracle = fold_oracle},
    {OP_CASE("scale about/trained", &op_batch_tree, build_scale_about, &no),
     .oracle = scale_about_oracle},
    {OP_CASE("scale about/frozen", &op_batch_plain, build_scale_about, &yes)},
    {OP_CASE("fourier/powers of two", &op_batch_plain, build_fourier, &fourier_powers),
     .oracle = fourier_oracle},
    {OP_CASE("fourier/mixed", &op_batch_tree, build_fourier, &fourier_mixed),
     .oracle = fourier_oracle},
    {OP_CASE("fourier/primes", &op_batch_one, build_fourier, &fourier_primes),
     .oracle = fourier_oracle},
    {OP_CASE("granules/2", &op_batch_plain, build_granules, &granules_2),
     .oracle = granules_oracle},
    {OP_CASE("granules/3", &op_batch_tree, build_granules, &granules_3), .oracle = granules_oracle},
    {OP_CASE("sparse", &op_batch_tree, build_sparse, &few), .oracle = sparse_oracle},
    {OP_CASE("circulant/small", &op_batch_tree, build_circulant, &circulant_small),
     .oracle = circulant_oracle},
    {OP_CASE("circulant/wide", &op_batch_plain, build_circulant, &circulant_wide),
     .oracle = circulant_oracle},
    {OP_CASE("bounded ranks", &op_batch_plain, build_bounded, &small), .oracle = bounded_oracle},
    {OP_CASE("pairs/1", &op_batch_tree, build_pairs, &pairs_1), .oracle = pairs_oracle},
    {OP_CASE("pairs/2", &op_batch_plain, build_pairs, &pairs_2)},
    {OP_CASE("pairs/4", &op_batch_plain, build_pairs, &pairs_4)},
    {OP_CASE("bases", &op_batch_plain, build_bases, &bases_plain), .oracle = bases_oracle},
    {OP_CASE("bases/turned", &op_batch_tree, build_bases, &bases_turned), .oracle = bases_oracle},
    {OP_CASE("weighted rows/small", &op_batch_plain, build_weighted, &small),
     .oracle = weighted_oracle},
    {OP_CASE("weighted rows/strips", &op_batch_tree, build_weighted, &strips),
     .oracle = weighted_oracle},
    {OP_CASE("shards", &op_batch_plain, build_shards, &shards_small)},
};
