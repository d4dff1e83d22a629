/* scale_cases.h - cases of scale and softcap, for test_scale_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/scale.h"

typedef struct scale_case {
    int64_t cols;
    double by;
} scale_case;

static pf_value *input(op_fixture *f) {
    return op_rows(f, "x", ((const scale_case *)op_args(f))->cols, 0, 3);
}

static peft_status build_scale(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_scale(op_graph(f), "scale", input(f), ((const scale_case *)op_args(f))->by, root,
                    err);
}

static peft_status build_softcap(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_softcap(op_graph(f), "cap", input(f), ((const scale_case *)op_args(f))->by, root,
                      err);
}

static void scale_oracle(const op_fixture *f, pf_real *root) {
    const scale_case *c = op_args(f);
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * c->cols; i++)
        root[i] = (pf_real)(c->by * (double)x[i]);
}

static void softcap_oracle(const op_fixture *f, pf_real *root) {
    const scale_case *c = op_args(f);
    const pf_real *x = op_numbers(f, "x");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * c->cols; i++)
        root[i] = (pf_real)(c->by * tanh((double)x[i] / c->by));
}

static const scale_case scale_wide = {576, 24}, scale_odd = {37, -0.3}, cap_near = {576, 2},
                        cap_far = {37, 50};

static const op_case scale_cases[] = {
    {OP_CASE("scale", &op_batch_plain, build_scale, &scale_wide), .oracle = scale_oracle},
    {OP_CASE("scale/odd", &op_batch_tree, build_scale, &scale_odd), .oracle = scale_oracle},
    {OP_CASE("softcap", &op_batch_plain, build_softcap, &cap_near), .oracle = softcap_oracle},
    {OP_CASE("softcap/odd", &op_batch_tree, build_softcap, &cap_far), .oracle = softcap_oracle},
};
