/* test_value_metrics.c - errors, correlations, F1 and its kin of several classes, and the area
 * under the ROC curve against scikit-learn and scipy (tests/golden/metrics/value_metrics.json, made
 * by tools/make_value_metrics.py). */
#include "train/value_metrics.h"

#include "text/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FILE_NAME TEST_SOURCE_DIR "/tests/golden/metrics/value_metrics.json"

static int n_compared;

static void same(const json_t *want, const char *key, double got, int i) {
    const json_t *v = json_object_get(want, key);
    if (v == NULL) return;
    n_compared++;
    if (!(fabs(json_number_value(v) - got) <= 1e-12))
        fail_msg("case %d: %s is %.17g, not %.17g", i, key, got, json_number_value(v));
}

static void check(const json_t *c, int i) {
    pf_arena a;
    pf_value_metrics m;
    const json_t *z = json_object_get(c, "z"), *y = json_object_get(c, "y");
    const int64_t K = json_integer_value(json_object_get(c, "k"));
    const int64_t n = (int64_t)json_array_size(z) / K;
    pf_arena_init(&a, "test");
    assert_int_equal(pf_value_metrics_init(
                         &m, &a, pf_problem_find(json_string_value(json_object_get(c, "problem"))),
                         json_number_value(json_object_get(c, "threshold")), n, K, NULL),
                     PEFT_OK);
    for (int64_t k = 0; k < n * K; k++) {
        m.z[k] = json_number_value(json_array_get(z, (size_t)k));
        m.y[k] = (float)json_number_value(json_array_get(y, (size_t)k));
    }
    const json_t *want = json_object_get(c, "want");
    for (int again = 0; again < 2; again++) { /* what it read is as it was */
        const pf_value_scores got = pf_value_metrics_result(&m);
        same(want, "accuracy", got.accuracy, i);
        same(want, "precision", got.precision, i);
        same(want, "recall", got.recall, i);
        same(want, "f1", got.f1, i);
        same(want, "f1_macro", got.f1_macro, i);
        same(want, "f1_micro", got.f1_micro, i);
        same(want, "f1_weighted", got.f1_weighted, i);
        same(want, "hamming_loss", got.hamming_loss, i);
        same(want, "roc_auc", got.roc_auc, i);
        same(want, "mse", got.mse, i);
        same(want, "rmse", got.rmse, i);
        same(want, "mae", got.mae, i);
        same(want, "pearson", got.pearson, i);
        same(want, "spearmanr", got.spearmanr, i);
        same(want, "combined_score", got.combined_score, i);
    }
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
    assert_true(n_compared > 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_libraries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
