/* lowrank with a row -> adapter table, and with dropout in training and out of it. Gradients of the
 * plain case are test_matmul_ops.c's. */
#include "ops/matmul/lowrank.h"

#include "base/cpu.h"
#include "base/rng.h"
#include "graph/autodiff.h"
#include "graph/exec.h"
#include "ops/op_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { T = 75, IN = 70, OUT = 45, R = 6 };

static int32_t adapter_of[T], zeros[T], positions[T];
static const int32_t *adapter_table = adapter_of;
static float x_rows[T * IN], base_rows[T * OUT], seed_rows[T * OUT];

static void fill(float *p, int64_t n, uint64_t salt) {
    const pf_rng_key key = pf_rng_make_key(3, PF_RNG_DATA, salt);
    for (int64_t i = 0; i < n; i++) p[i] = (float)pf_rng_normal_at(key, (uint64_t)i);
}

static void set_up(void) {
    fill(x_rows, T * IN, 1);
    fill(base_rows, T * OUT, 2);
    fill(seed_rows, T * OUT, 3);
    for (int32_t i = 0; i < T; i++) {
        positions[i] = i;
        adapter_of[i] = i < 3 ? -1 : i < 40 ? 2 : i < 44 ? 1 : i % 4 == 0 ? 2 : 0;
    }
}

typedef struct run_result {
    float y[T * OUT], da[R * IN], db[OUT * R];
} run_result;

/* One forward and backward pass over rows whose adapter is `id` (-1: no table). */
static void run(pf_isa isa, double dropout, bool training, int32_t id, bool in_place,
                run_result *out) {
    peft_error err = {0};
    pf_params ps;
    pf_param *a, *b;
    pf_cpu_force(isa);
    pf_params_init(&ps);
    assert_int_equal(pf_params_add(&ps, "a", R, IN, &a, &err), PEFT_OK);
    assert_int_equal(pf_params_add(&ps, "b", OUT, R, &b, &err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, true, &err), PEFT_OK);
    fill(a->data, R * IN, 4);
    fill(b->data, OUT * R, 5);

    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, pf_op_table, &err), PEFT_OK);
    g->params = &ps;
    pf_value *x = pf_graph_input(g, "x", PF_SPACE_TOKENS, IN, x_rows);
    pf_value *base = pf_graph_input(g, "base", PF_SPACE_TOKENS, OUT, base_rows);
    pf_value *seed = pf_graph_input(g, "seed", PF_SPACE_TOKENS, OUT, seed_rows), *y;
    pf_lowrank_args args = {.scale = 2, .dropout = dropout, .seed = 9, .mask_key = 1};
    if (id >= 0) {
        args.adapter = &adapter_table;
        args.adapter_id = id;
    }
    if (in_place) { /* a base that is computed: its room is taken over */
        pf_value *in[2] = {base, base};
        pf_node *sum;
        assert_int_equal(pf_graph_emit(g, "add", "sum", NULL, in, 2, &sum, &err), PEFT_OK);
        base = sum->out[0];
    }
    assert_int_equal(
        pf_lowrank(g, "low", base, x, pf_graph_param(g, a), pf_graph_param(g, b), &args, &y, &err),
        PEFT_OK);
    y->result = true;
    assert_int_equal(pf_autodiff_run(g, y, seed, PF_SAVE_MINIMAL, &err), PEFT_OK);

    const pf_segment segment = {.length = T, .parent = -1, .subtree_end = T};
    const pf_batch batch = {.n_tokens = T,
                            .ids = zeros,
                            .pos = positions,
                            .seg = zeros,
                            .sample = zeros,
                            .segments = &segment,
                            .n_segments = 1,
                            .step = 1};
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = T};
    pf_backend *be;
    pf_exec *exec;
    assert_int_equal(pf_backend_open_cpu(&be, 2, &err), PEFT_OK);
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_OK);
    exec->training = training;
    assert_int_equal(pf_exec_forward(exec, &err), PEFT_OK);
    memcpy(out->y, pf_exec_data(exec, y), sizeof out->y);
    assert_int_equal(pf_exec_backward(exec, &err), PEFT_OK);
    memcpy(out->da, a->grad, sizeof out->da);
    memcpy(out->db, b->grad, sizeof out->db);
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
}

/* y, dA and dB in double, over the rows of one adapter. */
static void expect(int32_t id, double *y, double *da, double *db) {
    float a[R * IN], b[OUT * R];
    fill(a, R * IN, 4);
    fill(b, OUT * R, 5);
    memset(da, 0, R * IN * sizeof *da);
    memset(db, 0, OUT * R * sizeof *db);
    for (int i = 0; i < T; i++) {
        for (int o = 0; o < OUT; o++) y[i * OUT + o] = base_rows[i * OUT + o];
        if (id >= 0 && adapter_of[i] != id) continue;
        for (int r = 0; r < R; r++) {
            double s = 0, ds = 0;
            for (int c = 0; c < IN; c++) s += (double)x_rows[i * IN + c] * a[r * IN + c];
            for (int o = 0; o < OUT; o++) {
                y[i * OUT + o] += 2 * s * b[o * R + r];
                db[o * R + r] += 2 * s * seed_rows[i * OUT + o];
                ds += 2.0 * (double)seed_rows[i * OUT + o] * b[o * R + r];
            }
            for (int c = 0; c < IN; c++) da[r * IN + c] += ds * x_rows[i * IN + c];
        }
    }
}

static void near(const float *got, const double *want, int n, const char *what) {
    double size = 0, worst = 0;
    for (int i = 0; i < n; i++) {
        size = fmax(size, fabs(want[i]));
        worst = fmax(worst, fabs(got[i] - want[i]));
    }
    if (!(worst <= 2e-6 * size)) fail_msg("%s is off by %g of %g", what, worst, size);
}

static void test_rows_of_other_adapters_are_left_alone(void **state) {
    (void)state;
    static run_result got;
    static double y[T * OUT], da[R * IN], db[OUT * R];
    pf_cpu_force(PF_ISA_AVX512);
    const pf_isa best = pf_cpu_level();
    for (int isa = 0; isa <= (int)best; isa++) {
        for (int32_t id = -1; id < 4; id++) { /* 3: no row at all */
            run((pf_isa)isa, 0, true, id, false, &got);
            expect(id, y, da, db);
            near(got.y, y, T * OUT, "y");
            near(got.da, da, R * IN, "dA");
            near(got.db, db, OUT * R, "dB");
            for (int i = 0; id >= 0 && i < T; i++) {
                if (adapter_of[i] != id)
                    assert_memory_equal(got.y + i * OUT, base_rows + i * OUT, OUT * sizeof(float));
            }
        }
    }
}

static void test_in_place_is_the_same(void **state) {
    (void)state;
    static run_result apart, taken;
    static float twice[T * OUT];
    run(PF_ISA_AVX512, 0.2, true, -1, true, &taken);
    memcpy(twice, base_rows, sizeof twice);
    for (int i = 0; i < T * OUT; i++) base_rows[i] += base_rows[i];
    run(PF_ISA_AVX512, 0.2, true, -1, false, &apart);
    memcpy(base_rows, twice, sizeof twice);
    assert_memory_equal(&apart, &taken, sizeof apart);
}

static void test_no_dropout_outside_of_training(void **state) {
    (void)state;
    static run_result plain, trained, evaluated;
    run(PF_ISA_AVX512, 0, true, -1, false, &plain);
    run(PF_ISA_AVX512, 0.3, true, -1, false, &trained);
    run(PF_ISA_AVX512, 0.3, false, -1, false, &evaluated);
    assert_memory_equal(&plain, &evaluated, sizeof plain);
    assert_memory_not_equal(plain.y, trained.y, sizeof plain.y);
    assert_memory_not_equal(plain.da, trained.da, sizeof plain.da);
}

static void test_wrong_sizes_are_named(void **state) {
    (void)state;
    peft_error err = {0};
    pf_params ps;
    pf_param *a, *b;
    pf_params_init(&ps);
    assert_int_equal(pf_params_add(&ps, "a", R, IN + 1, &a, &err), PEFT_OK);
    assert_int_equal(pf_params_add(&ps, "b", OUT, R, &b, &err), PEFT_OK);
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, pf_op_table, &err), PEFT_OK);
    pf_value *x = pf_graph_input(g, "x", PF_SPACE_TOKENS, IN, x_rows), *y;
    pf_value *base = pf_graph_input(g, "base", PF_SPACE_TOKENS, OUT, base_rows);
    assert_int_equal(pf_lowrank(g, "q_proj", base, x, pf_graph_param(g, a), pf_graph_param(g, b),
                                &(pf_lowrank_args){.scale = 1}, &y, &err),
                     PEFT_E_SHAPE);
    assert_string_equal(err.message, "q_proj (lowrank_down): A is 6 x 71, but x has 70 columns");
    assert_null(y);
    pf_graph_free(g);
    pf_params_release(&ps);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_of_other_adapters_are_left_alone),
        cmocka_unit_test(test_in_place_is_the_same),
        cmocka_unit_test(test_no_dropout_outside_of_training),
        cmocka_unit_test(test_wrong_sizes_are_named),
    };
    set_up();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
