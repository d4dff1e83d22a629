/* Learning rates against transformers: fixtures of tools/make_schedule_fixtures.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "train/schedule.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *fixture;

static int load(void **state) {
    (void)state;
    json_error_t e;
    fixture = json_load_file(TEST_SOURCE_DIR "/tests/golden/schedule/schedules.json", 0, &e);
    if (fixture == NULL) print_error("fixture: %s\n", e.text);
    return fixture == NULL ? -1 : 0;
}

static int unload(void **state) {
    (void)state;
    json_decref(fixture);
    return 0;
}

/* The arguments as the configuration hands them over. */
static pf_cfg_map args_of(pf_arena *a, const json_t *args) {
    pf_cfg_map map = {PF_NEW_ARRAY(a, pf_cfg_pair, json_object_size(args)), 0};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)args, key, v) {
        pf_cfg_pair *p = &map.items[map.n++];
        *p = (pf_cfg_pair){.key = key, .is_number = json_is_number(v)};
        p->number = json_number_value(v);
        p->text = json_is_string(v)    ? json_string_value(v)
                  : json_is_boolean(v) ? (json_is_true(v) ? "true" : "false")
                                       : pf_arena_printf(a, "%g", p->number);
    }
    return map;
}

static void check_rate(const json_t *c, size_t step, double got) {
    double want = json_number_value(json_array_get(json_object_get(c, "rates"), step));
    if (fabs(got - want) <= 1e-15 * fabs(want)) return;
    char *text = json_dumps(json_object_get(c, "args"), 0);
    fail_msg("%s %s step %zu: %.17g, transformers has %.17g",
             json_string_value(json_object_get(c, "type")), text, step, got, want);
}

static void rates_equal_transformers(void **state) {
    (void)state;
    size_t i;
    json_t *c;
    int closed = 0, adaptive = 0;
    json_array_foreach(json_object_get(fixture, "cases"), i, c) {
        pf_arena a;
        pf_arena_init(&a, "test");
        pf_cfg_map map = args_of(&a, json_object_get(c, "args"));
        pf_schedule_cfg cfg = {
            .type = json_string_value(json_object_get(c, "type")),
            .lr = json_number_value(json_object_get(c, "lr")),
            .total_steps = 1,
            .args = &map,
        };
        if (json_object_get(c, "total") != NULL) {
            cfg.total_steps = json_integer_value(json_object_get(c, "total"));
            cfg.warmup_steps = json_integer_value(json_object_get(c, "warmup"));
        }
        pf_schedule s;
        peft_error err = {0};
        if (pf_schedule_init(&s, &a, &cfg, &err) != PEFT_OK) fail_msg("%s", err.message);
        json_t *metrics = json_object_get(c, "metrics");
        size_t n = json_array_size(json_object_get(c, "rates"));
        for (size_t k = 0; k < n; k++) {
            check_rate(c, k, pf_schedule_lr(&s, (int64_t)k));
            assert_true(fabs(pf_schedule_factor(&s, (int64_t)k) * cfg.lr -
                             pf_schedule_lr(&s, (int64_t)k)) < 1e-15);
            if (!pf_schedule_is_adaptive(&s) || k + 1 == n) continue;
            json_t *m = json_array_get(metrics, k);
            pf_schedule_metric(&s, json_is_string(m) ? INFINITY : json_number_value(m));
        }
        if (pf_schedule_is_adaptive(&s))
            adaptive++;
        else
            closed++;
        pf_arena_release(&a);
    }
    assert_true(closed > 100 && adaptive > 60);
}

static void warmup_steps_equal_transformers(void **state) {
    (void)state;
    size_t i;
    json_t *w;
    json_array_foreach(json_object_get(fixture, "warmups"), i, w) {
        int64_t total = json_integer_value(json_array_get(w, 0));
        double given = json_number_value(json_array_get(w, 1));
        int64_t got = given >= 1 ? pf_schedule_warmup((int64_t)given, 0, total)
                                 : pf_schedule_warmup(0, given, total);
        assert_int_equal(got, json_integer_value(json_array_get(w, 2)));
    }
    assert_true(i > 50);
}

static void expect_failure(const char *type, const char *key, const char *text, double number,
                           const char *message) {
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_cfg_pair pair = {.key = key, .text = text, .number = number, .is_number = !isnan(number)};
    pf_cfg_map map = {&pair, key == NULL ? 0 : 1};
    pf_schedule_cfg cfg = {.type = type, .lr = 1e-4, .total_steps = 100, .args = &map};
    pf_schedule s;
    peft_error err = {0};
    assert_int_equal(pf_schedule_init(&s, &a, &cfg, &err), PEFT_E_CONFIG);
    assert_string_equal(err.message, message);
    pf_arena_release(&a);
}

static void mistakes_are_named(void **state) {
    (void)state;
    expect_failure("cosin", NULL, NULL, 0,
                   "training.lr_scheduler_type is cosin, which is not a schedule; did you mean "
                   "cosine?");
    expect_failure("cosine", "num_cycle", "1", 1,
                   "training.lr_scheduler_kwargs.num_cycle is not an argument of cosine; did you "
                   "mean num_cycles?");
    expect_failure("linear", "min_lr", "0", 0,
                   "training.lr_scheduler_kwargs.min_lr is not an argument of linear, which takes "
                   "none");
    expect_failure("cosine", "num_cycles", "many", NAN,
                   "training.lr_scheduler_kwargs.num_cycles is many; it should be a number between "
                   "0 and 1e+09");
    expect_failure("warmup_stable_decay", "decay_type", "square", NAN,
                   "training.lr_scheduler_kwargs.decay_type is square; it is one of: linear cosine "
                   "1-sqrt");
    expect_failure("warmup_stable_decay", NULL, NULL, 0,
                   "training.lr_scheduler_type warmup_stable_decay needs "
                   "training.lr_scheduler_kwargs.num_decay_steps (a tenth of all steps is usual: "
                   "10)");
    expect_failure("cosine_with_min_lr", NULL, NULL, 0,
                   "training.lr_scheduler_type cosine_with_min_lr needs one of "
                   "training.lr_scheduler_kwargs.min_lr and min_lr_rate");
    expect_failure("polynomial", "lr_end", "0.5", 0.5,
                   "training.lr_scheduler_kwargs.lr_end is 0.5; it should be below "
                   "training.learning_rate, 0.0001");
    expect_failure("reduce_lr_on_plateau", "factor", "1", 1,
                   "training.lr_scheduler_kwargs.factor is 1; it should be below 1");
    expect_failure("reduce_lr_on_plateau", "patience", "1.5", 1.5,
                   "training.lr_scheduler_kwargs.patience is 1.5; it should be a whole number "
                   "between 0 and 1e+15");
}

static void adaptive_mode_follows_the_metric(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    for (int greater = 0; greater < 2; greater++) {
        pf_schedule_cfg cfg = {.type = "reduce_lr_on_plateau",
                               .lr = 1,
                               .total_steps = 1,
                               .greater_is_better = greater};
        pf_schedule s;
        assert_int_equal(pf_schedule_init(&s, &a, &cfg, NULL), PEFT_OK);
        for (int i = 0; i < 12; i++) pf_schedule_metric(&s, i); /* rises: good or bad */
        assert_true(pf_schedule_lr(&s, 0) == (greater ? 1.0 : 0.1));
    }
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_equal_transformers),
        cmocka_unit_test(warmup_steps_equal_transformers),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(adaptive_mode_follows_the_metric),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
