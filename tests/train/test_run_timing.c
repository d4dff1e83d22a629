/* test_run_timing.c - timing.json: phases and steps in order, seconds since the process began. */
#include "train/run_timing.h"

#include "base/clock.h"
#include "text/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_timing(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_run_timing t;
    pf_run_timing_begin(&t);
    pf_run_timing_phase(&t, "model");
    assert_int_equal(pf_run_timing_reserve(&t, &a, 3, NULL), PEFT_OK);
    t.first_step = 5;
    t.tokens = 17;
    for (int i = 0; i < 5; i++) pf_run_timing_step(&t, 0.25 * i); /* two more than there is room */
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                        "i", "j", "k", "l", "m", "n", "o", "p"};
    for (size_t i = 0; i < PF_COUNT(names); i++) pf_run_timing_phase(&t, names[i]);
    pf_buf out = {0};
    pf_run_timing_json(&t, &out);
    json_t *v = NULL;
    peft_error err = {0};
    if (pf_json_parse(&v, pf_buf_str(&out), out.len, "timing", &err) != PEFT_OK)
        fail_msg("%s", err.message);
    const json_t *ends = json_object_get(v, "step_ends"),
                 *seconds = json_object_get(v, "step_seconds");
    assert_int_equal(json_array_size(ends), 3);
    assert_true(json_real_value(json_array_get(seconds, 2)) == 0.5);
    double last = json_real_value(json_object_get(json_object_get(v, "phases"), "model"));
    assert_true(last >= 0 && last < 600);
    for (size_t i = 0; i < 3; i++) {
        double at = json_real_value(json_array_get(ends, i));
        assert_true(at >= last);
        last = at;
    }
    assert_true(last <= pf_process_age() + 0.05);
    assert_int_equal(json_integer_value(json_object_get(v, "first_step")), 5);
    assert_int_equal(json_integer_value(json_object_get(v, "tokens")), 17);
    assert_true(json_integer_value(json_object_get(v, "peak_anon_bytes")) > 0);
    assert_true(json_integer_value(json_object_get(v, "peak_rss_bytes")) > 0);
    json_decref(v);
    pf_buf_free(&out);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_timing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
