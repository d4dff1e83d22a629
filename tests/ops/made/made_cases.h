/* made_cases.h - cases of the matrices that are made of trained ones, and of the masks and
 * spread beside them, for test_made_ops.c and its double twin. */
#include "op_harness.h"

#include "base/rng.h"

#include "ops/activation/row_mask.h"
#include "ops/activation/scale_cols.h"
#include "ops/activation/spread.h"
#include "ops/activation/step_mask.h"
#include "ops/made/made.h"
#include "ops/matmul/linear.h"

typedef struct made_case {
    int64_t n, a, b, c;
    bool turn_x, turn_y;
} made_case;

/* Products of stacks, whose rows then meet rows of a batch. */
static peft_status build_product(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    const pf_batch_product_args args = {s->n, s->turn_x, s->turn_y};
    pf_value *w;
    pf_value *x = op_param(f, "x", s->n * (s->turn_x ? s->b : s->a), s->turn_x ? s->a : s->b, 0, 1);
    pf_value *y = op_param(f, "y", s->n * (s->turn_y ? s->c : s->b), s->turn_y ? s->b : s->c, 0, 1);
    PF_TRY(pf_batch_product(op_graph(f), "product", x, y, &args, &w, err));
    return pf_linear(op_graph(f), "linear", op_rows(f, "rows", s->c, 0, 1), w, NULL, root, err);
}

static void product_oracle(const op_fixture *f, pf_real *root) {
    const made_case *s = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *y = op_numbers(f, "y"), *rows = op_numbers(f, "rows");
    for (int32_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < s->n * s->a; o++) {
            const int64_t i = o / s->a, row = o % s->a;
            double sum = 0;
            for (int64_t k = 0; k < s->b * s->c; k++) {
                const int64_t b = k / s->c, c = k % s->c;
                const int64_t at_x = s->turn_x ? b * s->a + row : row * s->b + b;
                const int64_t at_y = s->turn_y ? c * s->b + b : b * s->c + c;
                sum += (double)x[i * s->a * s->b + at_x] * (double)y[i * s->b * s->c + at_y] *
                       (double)rows[t * s->c + c];
            }
            root[t * s->n * s->a + o] = (pf_real)sum;
        }
    }
}

/* n matrices A (n, n), W (a, b): rows of width n a become rows of width n b. */
static peft_status build_kron(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    pf_value *m, *a = op_param(f, "a", s->n * s->n, s->n, 0, 1),
                 *w = op_param(f, "w", s->n * s->a, s->b, 0, 1);
    PF_TRY(pf_kron_sum(op_graph(f), "kron", a, w, &m, err));
    return pf_linear(op_graph(f), "linear", op_rows(f, "rows", s->n * s->a, 0, 1), m, NULL, root,
                     err);
}

static void kron_oracle(const op_fixture *f, pf_real *root) {
    const made_case *s = op_args(f);
    const pf_real *a = op_numbers(f, "a"), *w = op_numbers(f, "w"), *rows = op_numbers(f, "rows");
    const int64_t in = s->n * s->a, out = s->n * s->b;
    for (int32_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < out; o++) {
            double sum = 0;
            for (int64_t k = 0; k < in; k++) {
                for (int64_t i = 0; i < s->n; i++) {
                    sum += (double)rows[t * in + k] *
                           (double)a[(i * s->n + k / s->a) * s->n + o / s->b] *
                           (double)w[(i * s->a + k % s->a) * s->b + o % s->b];
                }
            }
            root[t * out + o] = (pf_real)sum;
        }
    }
}

/* The diagonal is -1 as torch leaves it; b is no orthogonal matrix, which the op does not ask for.
 */
static peft_status build_householder(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    pf_value *w, *turned, *y, *x = op_param(f, "x", s->a, s->b, -1.3, 0.1);
    pf_value *base = op_state(f, "base", s->b, s->b, 0, 0.5);
    pf_value *rows = op_rows(f, "rows", s->b, 0, 1);
    PF_TRY(pf_householder(op_graph(f), "householder", x, base, &w, err));
    PF_TRY(pf_turn(op_graph(f), "turn", w, &turned, err));
    PF_TRY(pf_linear(op_graph(f), "down", rows, w, NULL, &y, err));
    return pf_linear(op_graph(f), "up", y, turned, NULL, root, err);
}

/* Explicit reflections: n x n matrices, multiplied out. */
static void householder_oracle(const op_fixture *f, pf_real *root) {
    enum { MOST = 24 };
    const made_case *s = op_args(f);
    const int64_t n = s->b;
    const pf_real *x = op_numbers(f, "x"), *b = op_numbers(f, "base"),
                  *rows = op_numbers(f, "rows");
    double q[MOST][MOST] = {{0}}, next[MOST][MOST];
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n; k++) q[i][k] = (double)b[i * n + k];
    for (int64_t j = 0; j < s->a; j++) {
        double v[MOST] = {0}, norm = 0;
        for (int64_t i = j; i < n; i++) v[i] = i == j ? 1 : (double)x[j * n + i];
        for (int64_t i = 0; i < n; i++) norm += v[i] * v[i];
        for (int64_t i = 0; i < n; i++) {
            for (int64_t k = 0; k < n; k++) {
                next[i][k] = 0;
                for (int64_t l = 0; l < n; l++)
                    next[i][k] += q[i][l] * ((l == k ? 1 : 0) - 2 / norm * v[l] * v[k]);
            }
        }
        memcpy(q, next, sizeof q);
    }
    for (int32_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t i = 0; i < n; i++) root[t * n + i] = 0;
        for (int64_t j = 0; j < s->a; j++) { /* the signs meet themselves and vanish */
            double sum = 0;
            for (int64_t i = 0; i < n; i++) sum += q[i][j] * (double)rows[t * n + i];
            for (int64_t i = 0; i < n; i++) root[t * n + i] += (pf_real)(sum * q[i][j]);
        }
    }
}

static peft_status build_spread(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    pf_value *v;
    PF_TRY(pf_spread(op_graph(f), "spread", op_param(f, "s", 1, 1, 0, 1), s->a, &v, err));
    return pf_scale_cols(op_graph(f), "scale", op_rows(f, "x", s->a, 0, 1), v, root, err);
}

static void spread_oracle(const op_fixture *f, pf_real *root) {
    const made_case *s = op_args(f);
    const pf_real *x = op_numbers(f, "x"), v = *op_numbers(f, "s");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * s->a; i++) root[i] = x[i] * v;
}

static peft_status build_first(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    return pf_first_rows(op_graph(f), "first", op_rows(f, "x", s->a, 0, 1), s->n, root, err);
}

static void first_oracle(const op_fixture *f, pf_real *root) {
    const made_case *s = op_args(f);
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * s->a; i++)
        root[i] = op_batch(f)->pos[i / s->a] < s->n ? x[i] : 0;
}

static peft_status build_drop(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    const pf_drop_args args = {.p = 0.3, .seed = 5, .mask_key = 9, .by_sample = s->turn_x};
    return pf_drop(op_graph(f), "drop", op_rows(f, "x", s->a, 0, 1), &args, root, err);
}

/* Columns left out for the step: drawn here as step_mask.h says. */
static const pf_drop_columns_args columns_args = {
    .p_column = 0.4, .p_module = 0.1, .scaled = true, .seed = 5, .site = 0x1234567890abcdef};

static peft_status build_columns(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    return pf_drop_columns(op_graph(f), "drop", op_rows(f, "x", s->a, 0, 1), &columns_args, root,
                           err);
}

static pf_rng_key step_key(const op_fixture *f, uint64_t seed, uint64_t site, uint32_t kind) {
    const pf_rng_key key = pf_rng_make_key(seed, PF_RNG_STEP_MASK, op_batch(f)->step);
    const pf_rng4 r = pf_philox(key, (uint32_t)site, (uint32_t)(site >> 32), kind, 0);
    return (pf_rng_key){{r.v[0], r.v[1]}};
}

static void columns_oracle(const op_fixture *f, pf_real *root) {
    const made_case *s = op_args(f);
    const pf_drop_columns_args *a = &columns_args;
    const pf_real *x = op_numbers(f, "x");
    const pf_rng_key column = step_key(f, a->seed, a->site, 0),
                     module = step_key(f, a->seed, a->site, 1);
    const bool acts = pf_rng_uniform_at(module, 0) >= a->p_module;
    double kept = 0;
    for (int64_t c = 0; c < s->a; c++)
        kept += pf_rng_uniform_at(column, (uint64_t)c) >= a->p_column;
    for (int64_t i = 0; i < op_batch(f)->n_tokens * s->a; i++) {
        const bool keep = pf_rng_uniform_at(column, (uint64_t)(i % s->a)) >= a->p_column;
        root[i] = (pf_real)(acts && keep ? (double)x[i] * ((double)s->a / kept) : 0);
    }
}

/* n sets of a blocks of b x b, of which one set has identities; rows of width n a b meet it. */
static peft_status build_blocks(op_fixture *f, pf_value **root, peft_error *err) {
    const made_case *s = op_args(f);
    const pf_drop_blocks_args args = {
        .p = 0.5, .sets = s->n, .blocks = s->a, .seed = 7, .site = 99};
    pf_value *z = op_param(f, "z", s->n * s->a * s->b, s->b, 0, 1);
    PF_TRY(pf_drop_blocks(op_graph(f), "drop", z, &args, &z, err));
    return pf_linear(op_graph(f), "linear", op_rows(f, "rows", s->b, 0, 1), z, NULL, root, err);
}

static void blocks_oracle(const op_fixture *f, pf_real *root) {
    enum { MOST = 32 };
    const made_case *s = op_args(f);
    const int64_t out = s->n * s->a * s->b;
    const pf_rng_key key = step_key(f, 7, 99, 2);
    const int64_t set = (int64_t)pf_rng_below_at(key, (uint64_t)s->a, (uint64_t)s->n);
    const pf_real *z = op_numbers(f, "z"), *rows = op_numbers(f, "rows");
    int64_t order[MOST];
    pf_rng_permutation(key, s->a, order);
    for (int32_t t = 0; t < op_batch(f)->n_tokens; t++) {
        for (int64_t o = 0; o < out; o++) {
            const int64_t block = o / s->b;
            const bool is_one = block / s->a == set && order[block % s->a] < s->a / 2;
            double sum = 0;
            for (int64_t c = 0; c < s->b; c++) {
                const double w = is_one ? o % s->b == c : (double)z[o * s->b + c];
                sum += w * (double)rows[t * s->b + c];
            }
            root[t * out + o] = (pf_real)sum;
        }
    }
}

static const made_case product = {.n = 3, .a = 4, .b = 2, .c = 7},
                       product_x = {.n = 3, .a = 4, .b = 2, .c = 7, .turn_x = true},
                       product_y = {.n = 2, .a = 5, .b = 3, .c = 4, .turn_y = true},
                       product_xy =
                           {.n = 2, .a = 5, .b = 3, .c = 4, .turn_x = true, .turn_y = true},
                       kron = {.n = 4, .a = 8, .b = 2}, kron_up = {.n = 3, .a = 1, .b = 5},
                       house = {.a = 1, .b = 9}, house_3 = {.a = 3, .b = 20},
                       wide = {.n = 3, .a = 37}, very_wide = {.a = 1030},
                       by_sample = {.a = 21, .turn_x = true}, blocks = {.n = 3, .a = 7, .b = 4};

static const op_case made_cases[] = {
    {OP_CASE("batch_product", &op_batch_plain, build_product, &product), .oracle = product_oracle},
    {OP_CASE("batch_product/x", &op_batch_plain, build_product, &product_x),
     .oracle = product_oracle},
    {OP_CASE("batch_product/y", &op_batch_plain, build_product, &product_y),
     .oracle = product_oracle},
    {OP_CASE("batch_product/xy", &op_batch_plain, build_product, &product_xy),
     .oracle = product_oracle},
    {OP_CASE("kron_sum", &op_batch_plain, build_kron, &kron), .oracle = kron_oracle},
    {OP_CASE("kron_sum/up", &op_batch_plain, build_kron, &kron_up), .oracle = kron_oracle},
    {OP_CASE("householder", &op_batch_plain, build_householder, &house),
     .oracle = householder_oracle},
    {OP_CASE("householder/r3", &op_batch_tree, build_householder, &house_3),
     .oracle = householder_oracle},
    {OP_CASE("spread", &op_batch_plain, build_spread, &wide), .oracle = spread_oracle},
    {OP_CASE("first_rows", &op_batch_tree, build_first, &wide), .oracle = first_oracle},
    {OP_CASE("drop_columns", &op_batch_tree, build_columns, &wide), .oracle = columns_oracle},
    {OP_CASE("drop_blocks", &op_batch_plain, build_blocks, &blocks), .oracle = blocks_oracle},
    {OP_CASE("dropout", &op_batch_tree, build_drop, &wide)},
    {OP_CASE("dropout/1030", &op_batch_plain, build_drop, &very_wide)},
    {OP_CASE("dropout/by_sample", &op_batch_plain, build_drop, &by_sample)},
};
