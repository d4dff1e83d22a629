/* embed_lowrank_cases.h - cases of embed_lowrank, for test_embed_lowrank_ops.c and its double
 * twin. Ids of the batches are row numbers: each token once, below 181. */
#include "op_harness.h"

#include "ops/embed/embed.h"

typedef struct embed_lowrank_case {
    int64_t C, r;
} embed_lowrank_case;

enum { VOCABULARY = 200 };

static peft_status build_embed_lowrank(op_fixture *f, pf_value **root, peft_error *err) {
    const embed_lowrank_case *c = op_args(f);
    pf_value *base = op_rows(f, "base", c->C, 0, 1);
    pf_value *a = op_param(f, "a", c->r, VOCABULARY, 0, 1), *b = op_param(f, "b", c->C, c->r, 0, 1);
    return pf_embed_lowrank(op_graph(f), "embed", base, a, b, 0.5, root, err);
}

static void embed_lowrank_oracle(const op_fixture *f, pf_real *root) {
    const embed_lowrank_case *c = op_args(f);
    const pf_real *base = op_numbers(f, "base"), *a = op_numbers(f, "a"), *b = op_numbers(f, "b");
    for (int32_t i = 0; i < op_batch(f)->n_tokens; i++) {
        for (int64_t k = 0; k < c->C; k++) {
            double sum = 0;
            for (int64_t r = 0; r < c->r; r++)
                sum += (double)a[r * VOCABULARY + op_batch(f)->ids[i]] * (double)b[k * c->r + r];
            root[i * c->C + k] = (pf_real)((double)base[i * c->C + k] + 0.5 * sum);
        }
    }
}

static const embed_lowrank_case embed_r8 = {.C = 40, .r = 8}, embed_r3 = {.C = 33, .r = 3};

static const op_case embed_lowrank_cases[] = {
    {OP_CASE("embed_lowrank/r8", &op_batch_plain, build_embed_lowrank, &embed_r8),
     .oracle = embed_lowrank_oracle},
    {OP_CASE("embed_lowrank/r3", &op_batch_tree, build_embed_lowrank, &embed_r3),
     .oracle = embed_lowrank_oracle},
};
