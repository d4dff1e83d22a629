/* head_ce beyond the op harness: more entries than a chunk, one entry alone, ties, logits of any
 * size, targets that do not exist. */
#include "ops/loss/head_ce.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"
#include "graph/autodiff.h"
#include "graph/exec.h"
#include "ops/matmul/linear.h"
#include "ops/op_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { C = 24, V = 1500, E = 700 };

static float hidden[E * C], head[V * C];
static int32_t rows[E], targets[E];

static void set_up(void) {
    const pf_rng_key key = pf_rng_make_key(3, PF_RNG_DATA, 0);
    for (int i = 0; i < E * C; i++) hidden[i] = (float)pf_rng_normal_at(key, (uint64_t)i);
    for (int i = 0; i < V * C; i++) head[i] = (float)pf_rng_normal_at(key, (uint64_t)i + 100000);
    for (int e = 0; e < E; e++) {
        rows[e] = e;
        targets[e] = (int32_t)pf_rng_below_at(key, (uint64_t)e + 500000, V);
    }
}

typedef struct head_run {
    float nll[E], correct[E], dh[E * C];
} head_run;

/* Entries [first, first + n) with the given hidden rows (E, C). */
static peft_status run(pf_isa isa, const float *h, const float *w, int first, int n, head_run *out,
                       peft_error *err) {
    static float ones[E], eye[C * C], coef[E];
    pf_params ps;
    pf_param *p;
    pf_cpu_force(isa);
    for (int i = 0; i < E; i++) ones[i] = 1, coef[i] = 1;
    for (int i = 0; i < C; i++) eye[i * C + i] = 1;
    pf_params_init(&ps);
    assert_int_equal(pf_params_add(&ps, "eye", C, C, &p, err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, true, err), PEFT_OK);
    memcpy(p->data, eye, sizeof eye);
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, pf_op_table, err), PEFT_OK);
    g->params = &ps;
    pf_weight weight = pf_weight_of("head", PF_DTYPE_F32, w, V, C);
    pf_value *x = pf_graph_input(g, "x", PF_SPACE_LABELS, C, (float *)(uintptr_t)(h + first * C));
    pf_value *seed = pf_graph_input(g, "seed", PF_SPACE_LABELS, 1, coef);
    pf_value *y, *nll, *correct;
    /* a product with the identity, trained, so that h wants a gradient */
    assert_int_equal(pf_linear(g, "id", x, pf_graph_param(g, p), NULL, &y, err), PEFT_OK);
    assert_int_equal(pf_head_ce(g, "head", y, pf_graph_weight(g, &weight), NULL, NULL, NULL, NULL,
                                &nll, &correct, err),
                     PEFT_OK);
    nll->result = correct->result = true;
    assert_int_equal(pf_autodiff_run(g, nll, seed, PF_SAVE_MINIMAL, err), PEFT_OK);
    pf_value *dh = g->nodes[g->n_nodes - 1]->in[0]; /* linear_grad_w reads it */
    dh->result = true;

    const pf_batch batch = {.n_tokens = E,
                            .n_labels = n,
                            .label_row = rows + first,
                            .label_target = targets + first,
                            .label_weight = ones};
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = E, [PF_SPACE_LABELS] = n};
    pf_backend *be;
    pf_exec *exec;
    assert_int_equal(pf_backend_open_cpu(&be, 2, err), PEFT_OK);
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, err), PEFT_OK);
    assert_int_equal(pf_exec_bind(exec, &batch, err), PEFT_OK);
    peft_status status = pf_exec_forward(exec, err);
    if (status == PEFT_OK) {
        memcpy(out->nll + first, pf_exec_data(exec, nll), (size_t)n * sizeof(float));
        memcpy(out->correct + first, pf_exec_data(exec, correct), (size_t)n * sizeof(float));
        assert_int_equal(pf_exec_backward(exec, err), PEFT_OK);
        memcpy(out->dh + first * C, pf_exec_data(exec, dh), (size_t)(n * C) * sizeof(float));
    }
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
    return status;
}

static pf_isa best(void) {
    pf_cpu_force(PF_ISA_AVX512);
    return pf_cpu_level();
}

static void test_entries_are_independent(void **state) {
    (void)state;
    static head_run whole, cut;
    static const int parts[] = {1, 2, 40, 513, 1, 143};
    peft_error err = {0};
    const pf_isa top = best();
    for (int isa = PF_ISA_SCALAR; isa <= (int)top; isa++) {
        assert_int_equal(run((pf_isa)isa, hidden, head, 0, E, &whole, &err), PEFT_OK);
        for (size_t p = 0, first = 0; p < PF_COUNT(parts); first += (size_t)parts[p++])
            assert_int_equal(run((pf_isa)isa, hidden, head, (int)first, parts[p], &cut, &err),
                             PEFT_OK);
        assert_memory_equal(&whole, &cut, sizeof whole);
    }
}

/* Logits from nearly equal to hundreds apart: nll and its gradient against double. */
static void test_any_size_of_logits(void **state) {
    (void)state;
    static head_run got;
    static float scaled[E * C];
    static double z[V];
    peft_error err = {0};
    static const float scales[] = {1e-4f, 0.1f, 1, 10, 100};
    const pf_isa top = best();
    for (size_t k = 0; k < PF_COUNT(scales); k++) {
        for (int i = 0; i < E * C; i++) scaled[i] = hidden[i] * scales[k];
        for (int isa = PF_ISA_SCALAR; isa <= (int)top; isa++) {
            assert_int_equal(run((pf_isa)isa, scaled, head, 0, 50, &got, &err), PEFT_OK);
            for (int e = 0; e < 50; e++) {
                double max = -1e300, sum = 0, dh[C] = {0};
                for (int v = 0; v < V; v++) {
                    z[v] = 0;
                    for (int c = 0; c < C; c++)
                        z[v] += (double)scaled[e * C + c] * (double)head[v * C + c];
                    max = fmax(max, z[v]);
                }
                for (int v = 0; v < V; v++) sum += exp(z[v] - max);
                const double nll = max - z[targets[e]] + log(sum);
                const double slack = 2e-6 * (1 + fabs(max) + fabs(z[targets[e]]));
                assert_true(fabs(got.nll[e] - nll) < slack);
                assert_int_equal(got.correct[e], z[targets[e]] == max);
                for (int v = 0; v < V; v++) {
                    const double p = exp(z[v] - max) / sum - (v == targets[e]);
                    for (int c = 0; c < C; c++) dh[c] += p * (double)head[v * C + c];
                }
                for (int c = 0; c < C; c++)
                    assert_true(fabs(got.dh[e * C + c] - dh[c]) < 1e-5 + 5 * slack);
            }
        }
    }
}

/* Of equal largest logits the first counts. The rows 5, 1029 and 1400 of this head are the same. */
static void test_first_of_equal_logits_wins(void **state) {
    (void)state;
    static head_run got;
    static float tied[V * C], h[E * C];
    static const int32_t same[] = {5, 1029, 1400}, keep[] = {5, 1029, 1400};
    int32_t saved[3];
    peft_error err = {0};
    memcpy(saved, targets, sizeof saved);
    for (int c = 0; c < C; c++) h[c] = h[C + c] = h[2 * C + c] = 1;
    for (size_t k = 0; k < 3; k++) {
        for (int c = 0; c < C; c++) tied[same[k] * C + c] = 0.5f;
        targets[k] = keep[k];
    }
    const pf_isa top = best();
    for (int isa = PF_ISA_SCALAR; isa <= (int)top; isa++) {
        assert_int_equal(run((pf_isa)isa, h, tied, 0, 3, &got, &err), PEFT_OK);
        assert_int_equal(got.correct[0], 1);
        assert_int_equal(got.correct[1], 0);
        assert_int_equal(got.correct[2], 0);
        assert_true(got.nll[0] == got.nll[1] && got.nll[1] == got.nll[2]);
    }
    memcpy(targets, saved, sizeof saved);
}

static void test_a_target_outside_of_the_head_is_named(void **state) {
    (void)state;
    static head_run got;
    peft_error err = {0};
    const int32_t saved = targets[3];
    targets[3] = V;
    assert_int_equal(run(best(), hidden, head, 0, 10, &got, &err), PEFT_E_SHAPE);
    assert_string_equal(err.message,
                        "head (head_ce): label entry 3 has target 1500, the head 1500 rows");
    targets[3] = saved;
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries_are_independent),
        cmocka_unit_test(test_any_size_of_logits),
        cmocka_unit_test(test_first_of_equal_logits_wins),
        cmocka_unit_test(test_a_target_outside_of_the_head_is_named),
    };
    set_up();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
