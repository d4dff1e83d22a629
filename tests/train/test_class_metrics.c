/* test_class_metrics.c - accuracy, F1, Matthews' correlation and entities against scikit-learn and
 * seqeval (tests/golden/metrics/class_metrics.json, made by tools/make_class_metrics.py). */
#include "train/class_metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "text/json.h"

#define FILE_NAME TEST_SOURCE_DIR "/tests/golden/metrics/class_metrics.json"

static void same(const json_t *want, const char *key, double got, int i) {
    const json_t *v = json_object_get(want, key);
    if (v == NULL) return;
    if (!(fabs(json_number_value(v) - got) <= 1e-12))
        fail_msg("case %d: %s is %.17g, not %.17g", i, key, got, json_number_value(v));
}

static int read_ids(const json_t *list, int32_t *out) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) out[i] = (int32_t)json_integer_value(v);
    return (int)json_array_size(list);
}

static void check(const json_t *c, int i) {
    pf_arena a;
    pf_strlist names = {0};
    pf_class_metrics m;
    const json_t *sequences = json_object_get(c, "sequences"), *s, *labels, *label;
    size_t k;
    pf_arena_init(&a, "test");
    labels = json_object_get(c, "labels");
    json_array_foreach(labels, k, label)
        assert_int_equal(pf_strlist_add(&names, &a, json_string_value(label), NULL), PEFT_OK);
    const bool entities = json_is_true(json_object_get(c, "entities"));
    assert_int_equal(pf_class_metrics_init(&m, &a, names.n, entities ? &names : NULL, NULL),
                     PEFT_OK);
    for (int again = 0; again < 2; again++) { /* clear begins anew */
        pf_class_metrics_clear(&m);
        json_array_foreach(sequences, k, s) {
            int32_t truth[512], told[512];
            const int n = read_ids(json_array_get(s, 0), truth);
            assert_int_equal(read_ids(json_array_get(s, 1), told), n);
            pf_class_metrics_add(&m, truth, told, n);
        }
    }
    const pf_class_scores got = pf_class_metrics_result(&m);
    const json_t *want = json_object_get(c, "want");
    assert_int_equal(got.entities, entities);
    same(want, "accuracy", got.accuracy, i);
    same(want, "precision", got.precision, i);
    same(want, "recall", got.recall, i);
    same(want, "f1", got.f1, i);
    same(want, "f1_macro", got.f1_macro, i);
    same(want, "f1_micro", got.f1_micro, i);
    same(want, "f1_weighted", got.f1_weighted, i);
    same(want, "mcc", got.mcc, i);
    pf_arena_release(&a);
}

static void test_against_libraries(void **state) {
    (void)state;
    json_t *all;
    const json_t *c;
    size_t i;
    assert_int_equal(pf_json_load(&all, FILE_NAME, 1 << 24, NULL), PEFT_OK);
    assert_true(json_array_size(all) > 100);
    json_array_foreach(all, i, c) check(c, (int)i);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_libraries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
