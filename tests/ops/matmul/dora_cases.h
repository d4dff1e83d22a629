/* dora_cases.h - cases of dora_norm and dora_scale, for test_dora_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/matmul/dora.h"

#include <math.h>

typedef struct dora_case {
    int64_t in, out, r, r0; /* r0: of the initial factors that are taken off; 0: none */
    pf_dtype type;          /* of W */
    bool by_column, fixed_v;
} dora_case;

/* Factors that central differences leave alone: the norm is a constant to the backward pass. */
static pf_value *frozen_param(op_fixture *f, const char *name, int64_t rows, int64_t cols) {
    pf_value *v = op_param(f, name, rows, cols, 0, 0.4);
    v->param->frozen = true;
    v->needs_grad = false;
    return v;
}

static peft_status build_dora(op_fixture *f, pf_value **root, peft_error *err) {
    const dora_case *c = op_args(f);
    const pf_dora_norm_args args = {.scale = 1.5, .by_column = c->by_column};
    const int64_t rows = c->by_column ? c->in : c->out, cols = c->by_column ? c->out : c->in;
    pf_value *w = op_weight(f, "w", rows, cols, c->type, 0, 0.5), *inverse;
    pf_value *squares = op_weight(f, "squares", 1, c->out, PF_DTYPE_F32, 40, 1);
    pf_value *a = frozen_param(f, "a", c->r, c->in), *b = frozen_param(f, "b", c->out, c->r);
    pf_value *a0 = c->r0 > 0 ? frozen_param(f, "a0", c->r0, c->in) : NULL;
    pf_value *b0 = c->r0 > 0 ? frozen_param(f, "b0", c->out, c->r0) : NULL;
    pf_value *v = op_rows(f, "v", c->out, 0, 1), *m = op_param(f, "m", 1, c->out, 2, 1);
    if (c->fixed_v) {
        v->producer->in[0]->param->frozen = true;
        v->needs_grad = false;
    }
    PF_TRY(pf_dora_norm(op_graph(f), "norm", w, squares, a, b, a0, b0, &args, &inverse, err));
    return pf_dora_scale(op_graph(f), "scale", v, m, inverse, root, err);
}

/* The squares are numbers of their own here, so that their place in the sum is seen. */
static void dora_oracle(const op_fixture *f, pf_real *root) {
    const dora_case *c = op_args(f);
    const pf_real *w = op_numbers(f, "w"), *squares = op_numbers(f, "squares");
    const pf_real *a = op_numbers(f, "a"), *b = op_numbers(f, "b"), *a0 = op_numbers(f, "a0");
    const pf_real *b0 = op_numbers(f, "b0"), *v = op_numbers(f, "v"), *m = op_numbers(f, "m");
    for (int64_t o = 0; o < c->out; o++) {
        double sum = (double)squares[o];
        for (int64_t i = 0; i < c->in; i++) {
            const double base = (double)(c->by_column ? w[i * c->out + o] : w[o * c->in + i]);
            double d = 0;
            for (int64_t k = 0; k < c->r; k++)
                d += 1.5 * (double)b[o * c->r + k] * (double)a[k * c->in + i];
            for (int64_t k = 0; k < c->r0; k++)
                d -= 1.5 * (double)b0[o * c->r0 + k] * (double)a0[k * c->in + i];
            sum += (base + d) * (base + d) - base * base;
        }
        const double g = (double)m[o] / sqrt(sum);
        for (int32_t i = 0; i < op_batch(f)->n_tokens; i++)
            root[i * c->out + o] = (pf_real)((double)v[i * c->out + o] * g);
    }
}

static const dora_case linear_row = {40, 70, 3, 0, PF_DTYPE_F32, false, false};
static const dora_case linear_bf16 = {33, 130, 4, 0, PF_DTYPE_BF16, false, false};
static const dora_case initial = {24, 66, 2, 3, PF_DTYPE_F32, false, false};
static const dora_case table = {50, 34, 3, 0, PF_DTYPE_F32, true, false};
static const dora_case only_m = {16, 20, 2, 0, PF_DTYPE_F32, false, true};
static const dora_case large = {2048, 2048, 16, 0, PF_DTYPE_F32, false, false};

static const op_case dora_cases[] = {
    {OP_CASE("dora", &op_batch_plain, build_dora, &linear_row), .oracle = dora_oracle},
    {OP_CASE("dora_bf16", &op_batch_tree, build_dora, &linear_bf16), .oracle = NULL},
    {OP_CASE("dora_initial", &op_batch_plain, build_dora, &initial), .oracle = dora_oracle},
    {OP_CASE("dora_table", &op_batch_plain, build_dora, &table), .oracle = dora_oracle},
    {OP_CASE("dora_only_m", &op_batch_plain, build_dora, &only_m), .oracle = dora_oracle},
    {OP_CASE("dora_large", &op_batch_512, build_dora, &large), .only_bench = true},
};
