/* mix_cases.h - cases of mix_scores and mix_values, for test_mix_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/attention/mix.h"

typedef struct mix_case {
    int64_t cols, n;
} mix_case;

static peft_status build_scores(op_fixture *f, pf_value **root, peft_error *err) {
    const mix_case *c = op_args(f);
    return pf_mix_scores(op_graph(f), "mix", op_rows(f, "q", c->cols, 0, 1),
                         op_rows(f, "k", c->n * c->cols, 0, 1), root, err);
}

static peft_status build_values(op_fixture *f, pf_value **root, peft_error *err) {
    const mix_case *c = op_args(f);
    return pf_mix_values(op_graph(f), "mix", op_rows(f, "s", c->n, 0, 3),
                         op_rows(f, "v", c->n * c->cols, 0, 1), root, err);
}

static void scores_oracle(const op_fixture *f, pf_real *root) {
    const mix_case *c = op_args(f);
    const pf_real *q = op_numbers(f, "q"), *k = op_numbers(f, "k");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * c->n; i++) {
        double sum = 0;
        for (int64_t d = 0; d < c->cols; d++)
            sum += (double)q[i / c->n * c->cols + d] * (double)k[i * c->cols + d];
        root[i] = (pf_real)sum;
    }
}

static void values_oracle(const op_fixture *f, pf_real *root) {
    const mix_case *c = op_args(f);
    const pf_real *s = op_numbers(f, "s"), *v = op_numbers(f, "v");
    for (int64_t i = 0; i < op_batch(f)->n_tokens; i++) {
        double all = 0;
        for (int64_t k = 0; k < c->n; k++) all += exp((double)s[i * c->n + k]);
        for (int64_t d = 0; d < c->cols; d++) {
            double sum = 0;
            for (int64_t k = 0; k < c->n; k++)
                sum += exp((double)s[i * c->n + k]) / all * (double)v[(i * c->n + k) * c->cols + d];
            root[i * c->cols + d] = (pf_real)sum;
        }
    }
}

static const mix_case mix_two = {37, 2}, mix_one = {8, 1}, mix_many = {64, 9};

static const op_case mix_cases[] = {
    {OP_CASE("mix_scores", &op_batch_plain, build_scores, &mix_many), .oracle = scores_oracle},
    {OP_CASE("mix_scores/tree", &op_batch_tree, build_scores, &mix_two), .oracle = scores_oracle},
    {OP_CASE("mix_scores/one", &op_batch_plain, build_scores, &mix_one), .oracle = scores_oracle},
    {OP_CASE("mix_values", &op_batch_plain, build_values, &mix_many), .oracle = values_oracle},
    {OP_CASE("mix_values/tree", &op_batch_tree, build_values, &mix_two), .oracle = values_oracle},
};
