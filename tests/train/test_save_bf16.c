/* Activations that wait in bf16: the forward pass is the same, the backward pass sees rounded
 * numbers where blocks save them and exact ones elsewhere, and the room is halved. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "graph/autodiff.h"
#include "graph/exec.h"
#include "ops/activation/activation.h"
#include "ops/embed/embed.h"
#include "ops/op_table.h"
#include "tensor/dtype.h"

#include <math.h>
#include <string.h>

enum { ROWS = 5, COLS = 129, N = ROWS * COLS }; /* odd: the last half is alone */

static float sums[N], grad_factor[N], grad_summand[N];

static pf_param *table_of(pf_params *ps, const char *name) {
    peft_error err = {0};
    pf_param *p;
    assert_int_equal(pf_params_add(ps, name, ROWS, COLS, &p, &err), PEFT_OK);
    return p;
}

static void fill(pf_param *p, double phase) {
    for (int i = 0; i < N; i++) p->data[i] = (pf_real)sin(0.7 * i + phase);
}

static pf_value *rows_of(pf_graph *g, pf_param *p) {
    peft_error err = {0};
    pf_value *y;
    assert_int_equal(pf_embed(g, p->name, pf_graph_param(g, p), &y, &err), PEFT_OK);
    return y;
}

/* y = (a + b) c, the sum inside of a block; returns the arena's bytes of saved activations. */
static int64_t run(bool save_bf16, pf_save_policy policy, float *y_out) {
    peft_error err = {0};
    pf_params ps;
    pf_params_init(&ps);
    pf_param *a = table_of(&ps, "a"), *b = table_of(&ps, "b"), *c = table_of(&ps, "c");
    assert_int_equal(pf_params_seal(&ps, true, &err), PEFT_OK);
    fill(a, 0), fill(b, 1), fill(c, 2);

    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, pf_op_table, &err), PEFT_OK);
    g->params = &ps;
    g->save_bf16 = save_bf16;
    pf_value *va = rows_of(g, a), *vb = rows_of(g, b), *vc = rows_of(g, c), *sum, *y;
    pf_graph_block_begin(g, 0, va);
    assert_int_equal(pf_add(g, "sum", va, vb, &sum, &err), PEFT_OK);
    assert_int_equal(pf_mul(g, "product", sum, vc, &y, &err), PEFT_OK);
    pf_graph_block_end(g);
    y->result = true;
    pf_real ones[N];
    for (int i = 0; i < N; i++) ones[i] = 1;
    pf_value *seed = pf_graph_input(g, "coef", PF_SPACE_TOKENS, COLS, ones);
    assert_int_equal(pf_autodiff_run(g, y, seed, policy, &err), PEFT_OK);

    pf_backend *be;
    assert_int_equal(pf_backend_open_cpu(&be, 2, &err), PEFT_OK);
    pf_exec *exec;
    const int64_t capacity[PF_SPACE_COUNT] = {ROWS, ROWS};
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    const int32_t ids[ROWS] = {0, 1, 2, 3, 4};
    pf_batch batch = {.n_tokens = ROWS, .ids = ids};
    assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_OK);
    assert_int_equal(pf_exec_forward(exec, &err), PEFT_OK);
    memcpy(y_out, pf_exec_data(exec, y), N * sizeof *y_out);
    assert_int_equal(pf_exec_backward(exec, &err), PEFT_OK);
    for (int i = 0; i < N; i++) {
        sums[i] = a->data[i] + b->data[i];
        grad_factor[i] = c->grad[i];
        grad_summand[i] = a->grad[i] - c->data[i]; /* exact: zero */
    }
    const int64_t saved = exec->plan.sum[PF_MEM_SAVED];
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
    return saved;
}

static void what_a_block_saves_is_rounded(void **state) {
    (void)state;
    float exact[N], rounded[N];
    const int64_t full = run(false, PF_SAVE_ALL, exact);
    for (int i = 0; i < N; i++) assert_true(grad_factor[i] == sums[i] && grad_summand[i] == 0);
    const int64_t half = run(true, PF_SAVE_ALL, rounded);
    int moved = 0;
    for (int i = 0; i < N; i++) {
        assert_true(grad_factor[i] == pf_bf16_to_f32(pf_f32_to_bf16(sums[i])));
        assert_true(grad_summand[i] == 0); /* c stands outside of the block */
        moved += grad_factor[i] != sums[i];
    }
    assert_true(moved > N / 2);
    assert_memory_equal(exact, rounded, sizeof exact);
    assert_true(half < full);
    /* the sum's room is halved, the odd column rounded up */
    assert_true(full - half >= (int64_t)(ROWS * (COLS / 2 - 1) * sizeof(float)) - 64);
}

static void recomputed_values_are_not_rounded(void **state) {
    (void)state;
    float y[N];
    run(true, PF_SAVE_CHECKPOINT, y);
    for (int i = 0; i < N; i++) assert_true(grad_factor[i] == sums[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_block_saves_is_rounded),
        cmocka_unit_test(recomputed_values_are_not_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
