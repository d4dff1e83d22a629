/* delta_cases.h - derive and rowmap, and the functions of the methods in peft/delta/, for
 * test_delta_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/activation.h"
#include "ops/matmul/linear.h"
#include "peft/delta/khatri_rao.h"

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

static const sizes small = {.in = 7, .out = 5, .r = 3, .s = 2, .scale = 1.5};
static const sizes medium = {.in = 40, .out = 33, .r = 4, .s = 4, .scale = 0.5};

static const op_case delta_cases[] = {
    {OP_CASE("khatri_rao/small", &op_batch_plain, build_khatri_rao, &small),
     .oracle = khatri_rao_oracle},
    {OP_CASE("khatri_rao/medium", &op_batch_tree, build_khatri_rao, &medium),
     .oracle = khatri_rao_oracle},
};
