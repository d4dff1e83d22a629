/* token_rows_cases.h - cases of token_rows and of a head whose rows token_shift makes, for
 * test_token_rows_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/embed/token_rows.h"
#include "ops/loss/head_ce.h"

enum { C = 70, N = 3, VOCAB = 4096 };

/* Ids of the fixture's token rows are their numbers. */
static const int32_t ids[N] = {2, 0, 7};

static const int32_t *slots(void) {
    static int32_t slot[VOCAB];
    for (int i = 0; i < VOCAB; i++) slot[i] = -1;
    for (int k = 0; k < N; k++) slot[ids[k]] = k;
    return slot;
}

static peft_status build_rows(op_fixture *f, pf_value **root, peft_error *err) {
    const pf_token_rows_args args = {slots(), VOCAB};
    pf_value *base = op_rows(f, "base", C, 0, 1), *d = op_param(f, "d", N, C, 0, 1);
    return pf_token_rows(op_graph(f), "rows", base, d, &args, root, err);
}

static void rows_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *base = op_numbers(f, "base"), *d = op_numbers(f, "d");
    const pf_batch *b = op_batch(f);
    for (int32_t i = 0; i < b->n_tokens; i++) {
        for (int64_t c = 0; c < C; c++) {
            root[i * C + c] = base[i * C + c];
            for (int k = 0; k < N; k++) {
                if (b->ids[i] == ids[k]) root[i * C + c] = d[k * C + c];
            }
        }
    }
}

/* Logits of a frozen head with three rows of its own, in the loss. */
static peft_status build_head(op_fixture *f, pf_value **root, peft_error *err) {
    enum { V = 150 };
    pf_value *x = op_rows(f, "x", C, 0, 1), *w = op_weight(f, "w", V, C, PF_DTYPE_F32, 0, 0.2);
    pf_value *d = op_param(f, "d", N, C, 0, 0.4), *p = op_param(f, "p", V, N, 0, 0.3);
    pf_value *a, *h, *correct;
    const pf_head_ce_args args = {.scale = 1};
    PF_TRY(pf_token_shift(op_graph(f), "shift", d, w, ids, &a, err));
    PF_TRY(pf_gather_labels(op_graph(f), "labels", x, &h, err));
    return pf_head_ce(op_graph(f), "head", h, w, NULL, a, p, &args, root, &correct, err);
}

static const op_case token_rows_cases[] = {
    {OP_CASE("token_rows", &op_batch_plain, build_rows, NULL), .oracle = rows_oracle},
    {OP_CASE("token_rows_tree", &op_batch_tree, build_rows, NULL), .oracle = rows_oracle},
    {OP_CASE("token_head", &op_batch_plain, build_head, NULL), .tol = 1e-4},
};
