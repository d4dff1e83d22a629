/* split_cases.h - cases of split and join, for test_split_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/shape/split.h"

static int64_t columns(const pf_split_args *a) {
    int64_t period = 0;
    for (int i = 0; i < a->n; i++) period += a->width[i];
    return a->periods * period;
}

static peft_status build_split(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_split_args *a = op_args(f);
    pf_value *parts[PF_SPLIT_MAX];
    PF_TRY(pf_split(op_graph(f), "split", op_rows(f, "x", columns(a), 0, 1), a, parts, err));
    *root = parts[a->n - 1];
    return PEFT_OK;
}

/* Two parts of equal width are multiplied, the others have no gradient. */
static peft_status build_product(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_split_args *a = op_args(f);
    pf_value *parts[PF_SPLIT_MAX];
    PF_TRY(pf_split(op_graph(f), "split", op_rows(f, "x", columns(a), 0, 1), a, parts, err));
    return pf_mul(op_graph(f), "mul", parts[1], parts[2], root, err);
}

/* split, one part changed, join */
static peft_status build_join(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_split_args *a = op_args(f);
    pf_value *parts[PF_SPLIT_MAX];
    PF_TRY(pf_split(op_graph(f), "split", op_rows(f, "x", columns(a), 0, 1), a, parts, err));
    PF_TRY(pf_mul(op_graph(f), "square", parts[0], parts[0], &parts[0], err));
    parts[1] = NULL;
    return pf_join(op_graph(f), "join", parts, a, root, err);
}

/* Which part, and which of its columns, column c of a row is. */
static int part_of(const pf_split_args *a, int64_t c, int64_t *within) {
    int64_t period = columns(a) / a->periods, rest = c % period;
    int i = 0;
    for (; rest >= a->width[i]; i++) rest -= a->width[i];
    *within = c / period * a->width[i] + rest;
    return i;
}

static void split_oracle(const op_fixture *f, pf_real *root) {
    const pf_split_args *a = op_args(f);
    const pf_real *x = op_numbers(f, "x");
    const int64_t last = a->periods * a->width[a->n - 1];
    for (int64_t r = 0; r < op_batch(f)->n_tokens; r++) {
        for (int64_t c = 0, at; c < columns(a); c++, x++) {
            if (part_of(a, c, &at) == a->n - 1) root[r * last + at] = *x;
        }
    }
}

static void join_oracle(const op_fixture *f, pf_real *root) {
    const pf_split_args *a = op_args(f);
    const pf_real *x = op_numbers(f, "x");
    for (int64_t r = 0; r < op_batch(f)->n_tokens; r++) {
        for (int64_t c = 0, at; c < columns(a); c++, x++) {
            const int part = part_of(a, c, &at);
            *root++ = part == 0 ? *x * *x : part == 1 ? 0 : *x;
        }
    }
}

static const pf_split_args thirds = {.periods = 1, .n = 3, .width = {32, 32, 32}},
                           heads = {.periods = 5, .n = 3, .width = {7, 7, 7}},
                           grouped = {.periods = 3, .n = 3, .width = {24, 8, 8}},
                           wide = {.periods = 12, .n = 3, .width = {64, 64, 64}};

static const op_case split_cases[] = {
    {OP_CASE("split/thirds", &op_batch_plain, build_split, &thirds), .oracle = split_oracle},
    {OP_CASE("split/heads", &op_batch_plain, build_split, &heads), .oracle = split_oracle},
    {OP_CASE("split/grouped", &op_batch_tree, build_split, &grouped), .oracle = split_oracle},
    {OP_CASE("split/product", &op_batch_plain, build_product, &grouped)},
    {OP_CASE("join/thirds", &op_batch_plain, build_join, &thirds), .oracle = join_oracle},
    {OP_CASE("join/grouped", &op_batch_tree, build_join, &grouped), .oracle = join_oracle},
    {OP_CASE("split/bench_2048x2304", &op_batch_2048, build_split, &wide), .only_bench = true},
};
