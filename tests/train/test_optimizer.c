/* The optimizer step against torch's AdamW and clip_grad_norm_ (tools/make_optimizer_fixtures.py),
 * and its refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "train/optimizer.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void copy(const json_t *values, pf_real *to) {
    for (size_t i = 0; i < json_array_size(values); i++)
        to[i] = (pf_real)json_number_value(json_array_get(values, i));
}

static void steps_equal_torch(void **state) {
    (void)state;
    json_error_t e;
    json_t *fixture = json_load_file(TEST_SOURCE_DIR "/tests/golden/optimizer/adamw.json", 0, &e);
    assert_non_null(fixture);
    pf_pool *pool;
    assert_int_equal(pf_pool_new(&pool, 2, NULL), PEFT_OK);
    size_t k, step;
    json_t *c, *want;
    json_array_foreach(json_object_get(fixture, "cases"), k, c) {
        pf_params ps;
        pf_params_init(&ps);
        const char *name;
        json_t *shape;
        json_object_foreach(json_object_get(c, "shapes"), name, shape) {
            bool vector = json_array_size(shape) == 1;
            int64_t last = json_integer_value(json_array_get(shape, vector ? 0 : 1));
            pf_param *p;
            pf_params_add(&ps, name, vector ? 1 : json_integer_value(json_array_get(shape, 0)),
                          last, &p, NULL);
            p->decay = !vector;
            if (strstr(name, "lora_B") != NULL) p->lr_scale = 16;
        }
        assert_int_equal(pf_params_seal(&ps, true, NULL), PEFT_OK);
        for (int i = 0; i < ps.n; i++)
            copy(json_object_get(json_object_get(c, "start"), ps.items[i]->name),
                 ps.items[i]->data);
        pf_optimizer_cfg cfg = {.beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay =
                                    json_number_value(json_object_get(c, "weight_decay")),
                                .max_grad_norm = json_number_value(json_object_get(c, "max_norm"))};
        pf_arena a;
        pf_arena_init(&a, "test");
        pf_optimizer o;
        assert_int_equal(pf_optimizer_init(&o, &a, &ps, &cfg, NULL), PEFT_OK);
        assert_int_equal(o.n_runs, 4); /* a, b without decay, c, d with its own rate */
        int64_t allocations = pf_alloc_count();
        json_array_foreach(json_object_get(c, "steps"), step, want) {
            for (int i = 0; i < ps.n; i++)
                copy(json_object_get(json_object_get(want, "grads"), ps.items[i]->name),
                     ps.items[i]->grad);
            pf_optimizer_report r;
            peft_error err = {0};
            if (pf_optimizer_step(&o, pool, json_number_value(json_object_get(want, "lr")), &r,
                                  &err) != PEFT_OK)
                fail_msg("%s", err.message);
            double norm = json_number_value(json_object_get(want, "norm"));
            assert_true(fabs(r.grad_norm - norm) < 1e-6 * norm);
            if (cfg.max_grad_norm > 0 && norm > cfg.max_grad_norm)
                assert_true(fabs(r.clip * norm - cfg.max_grad_norm) < 1e-5);
            else
                assert_true(r.clip == 1);
            for (int i = 0; i < ps.n; i++) {
                const pf_param *p = ps.items[i];
                json_t *w = json_object_get(json_object_get(want, "weights"), p->name);
                for (int64_t n = 0; n < p->rows * p->cols; n++) {
                    double x = json_number_value(json_array_get(w, (size_t)n));
                    if (fabs((double)p->data[n] - x) > 1e-6 * fmax(1, fabs(x)))
                        fail_msg("case %zu step %zu %s[%lld]: %.9g, torch has %.9g", k, step,
                                 p->name, (long long)n, (double)p->data[n], x);
                }
            }
        }
        assert_int_equal(o.t, step);
        assert_int_equal(pf_alloc_count(), allocations);
        pf_arena_release(&a);
        pf_params_release(&ps);
    }
    assert_int_equal(k, 3);
    pf_pool_free(pool);
    json_decref(fixture);
}

/* A and B of two layers. */
typedef struct setup {
    pf_arena arena;
    pf_params ps;
    pf_optimizer o;
    peft_error err;
} setup;

static void begin(setup *s) {
    static const char *const names[] = {"l0.lora_A", "l0.lora_B", "l1.lora_A", "l1.lora_B"};
    memset(s, 0, sizeof *s);
    pf_arena_init(&s->arena, "test");
    pf_params_init(&s->ps);
    for (int i = 0; i < 4; i++) {
        pf_param *p;
        pf_params_add(&s->ps, names[i], 3, 5, &p, NULL);
        p->zero_grad_ok = i % 2 == 0;
    }
    pf_params_seal(&s->ps, true, NULL);
    for (int64_t i = 0; i < s->ps.block_len; i++) s->ps.data[i] = 1;
    pf_optimizer_cfg cfg = {
        .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1, .max_grad_norm = 1};
    assert_int_equal(pf_optimizer_init(&s->o, &s->arena, &s->ps, &cfg, NULL), PEFT_OK);
    assert_int_equal(s->o.n_runs, 1);
}

static void end(setup *s) {
    pf_params_release(&s->ps);
    pf_arena_release(&s->arena);
}

static void set_grad(setup *s, int param, pf_real value) {
    for (int i = 0; i < 15; i++) s->ps.items[param]->grad[i] = value;
}

static void nonfinite_gradients_stop_and_are_named(void **state) {
    (void)state;
    static const struct {
        pf_real value;
        const char *text;
    } bad[] = {{NAN, "NaN"}, {INFINITY, "infinite"}, {-INFINITY, "-infinite"}};
    for (size_t k = 0; k < PF_COUNT(bad); k++) {
        setup s;
        begin(&s);
        for (int i = 0; i < 4; i++) set_grad(&s, i, 1);
        s.ps.items[2]->grad[7] = bad[k].value;
        assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, &s.err), PEFT_E_DIVERGED);
        char want[128];
        snprintf(want, sizeof want, "the gradient of l1.lora_A[1,2] is %s", bad[k].text);
        assert_string_equal(s.err.message, want);
        assert_int_equal(s.o.t, 0);
        for (int64_t i = 0; i < s.ps.block_len; i++) {
            assert_true(s.ps.data[i] == 1 && s.ps.m[i] == 0 && s.ps.v[i] == 0);
        }
        end(&s);
    }
}

static void dead_tensors_are_named(void **state) {
    (void)state;
    setup s;
    begin(&s);
    set_grad(&s, 1, 1); /* B of layer 1 gets nothing; the A's are excepted */
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, &s.err), PEFT_E_FAILED);
    assert_string_equal(s.err.message, "the gradient of l1.lora_B is zero throughout: it "
                                       "would never be trained. The model does not use it in this "
                                       "run; leave it out of target_modules or modules_to_save");
    end(&s);

    begin(&s);
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, &s.err), PEFT_E_FAILED);
    assert_string_equal(s.err.message,
                        "no gradient reaches l0.lora_B, nor any other trainable tensor: "
                        "nothing would be trained. Are all labels masked (data preview shows "
                        "them), or is the loss constant?");
    end(&s);
}

static void excepted_tensors_are_asked_after_the_first_move(void **state) {
    (void)state;
    setup s;
    begin(&s);
    set_grad(&s, 1, 1);
    set_grad(&s, 3, 1);
    /* a warmup begins at rate 0: B stays 0, so A's gradient may still be zero in step 2 */
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 0, NULL, NULL), PEFT_OK);
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, NULL), PEFT_OK);
    set_grad(&s, 0, 1);
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, &s.err), PEFT_E_FAILED);
    assert_string_equal(s.err.message, "the gradient of l1.lora_A is zero throughout: it "
                                       "would never be trained. The model does not use it in this "
                                       "run; leave it out of target_modules or modules_to_save");
    set_grad(&s, 2, 1);
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, NULL), PEFT_OK);
    /* and never again: a zero gradient is possible later */
    for (int i = 0; i < 4; i++) set_grad(&s, i, 0);
    assert_int_equal(pf_optimizer_step(&s.o, NULL, 1e-3, NULL, NULL), PEFT_OK);
    assert_int_equal(s.o.t, 4);
    end(&s);
}

static void nonfinite_weights_are_named(void **state) {
    (void)state;
    setup s;
    begin(&s);
    assert_int_equal(pf_weights_check_finite(&s.ps, NULL, NULL), PEFT_OK);
    s.ps.items[3]->data[14] = INFINITY;
    assert_int_equal(pf_weights_check_finite(&s.ps, NULL, &s.err), PEFT_E_DIVERGED);
    assert_string_equal(s.err.message, "the weight l1.lora_B[2,4] is infinite");
    end(&s);
}

static void nothing_to_train(void **state) {
    (void)state;
    pf_params ps;
    pf_params_init(&ps);
    pf_params_seal(&ps, true, NULL);
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_optimizer o;
    pf_optimizer_cfg cfg = {.beta1 = 0.9};
    assert_int_equal(pf_optimizer_init(&o, &a, &ps, &cfg, NULL), PEFT_E_CONFIG);
    pf_arena_release(&a);
    pf_params_release(&ps);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_equal_torch),
        cmocka_unit_test(nonfinite_gradients_stop_and_are_named),
        cmocka_unit_test(dead_tensors_are_named),
        cmocka_unit_test(excepted_tensors_are_asked_after_the_first_move),
        cmocka_unit_test(nonfinite_weights_are_named),
        cmocka_unit_test(nothing_to_train),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
