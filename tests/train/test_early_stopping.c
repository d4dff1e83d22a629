/* Early stopping as transformers' EarlyStoppingCallback: what was waited after each evaluation was
 * taken from it (patience 3). Saving and loading is tested in test_checkpoint.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "train/early_stopping.h"

#include <math.h>
#include <string.h>

typedef struct evaluation {
    double value;
    int waited;
    bool stop, best;
} evaluation;

static void run(bool greater, double threshold, const evaluation *rows, size_t n) {
    pf_early_stopping s;
    pf_best best;
    pf_early_stopping_init(&s, "eval_x", greater, 3, threshold);
    pf_best_init(&best, "eval_x", greater);
    for (size_t i = 0; i < n; i++) {
        bool stop = pf_early_stopping_update(&s, rows[i].value, (int64_t)i);
        bool new_best = pf_best_update(&best, rows[i].value, (int64_t)i);
        if (stop != rows[i].stop || s.waited != rows[i].waited || new_best != rows[i].best)
            fail_msg("evaluation %zu: waited %d, stop %d, best %d", i, (int)s.waited, stop,
                     new_best);
        assert_int_equal(s.best.step, best.step);
    }
}

static void loss_falls(void **state) {
    (void)state;
    static const evaluation rows[] = {{3.0, 0, 0, 1}, {2.0, 0, 0, 1}, {2.0, 1, 0, 0}, /* equal */
                                      {2.5, 2, 0, 0}, {1.9, 0, 0, 1}, {1.95, 1, 0, 0},
                                      {2.0, 2, 0, 0}, {2.1, 3, 1, 0}};
    run(false, 0, rows, PF_COUNT(rows));
}

static void score_rises(void **state) {
    (void)state;
    static const evaluation rows[] = {{0, 0, 0, 1}, {0, 1, 0, 0}, {5, 0, 0, 1},
                                      {4, 1, 0, 0}, {3, 2, 0, 0}, {5, 3, 1, 0}};
    run(true, 0, rows, PF_COUNT(rows));
}

static void threshold_moves_the_best_but_not_the_patience(void **state) {
    (void)state;
    static const evaluation rows[] = {{3.0, 0, 0, 1}, {2.95, 1, 0, 1}, {2.90, 2, 0, 1},
                                      {2.5, 0, 0, 1}, {2.45, 1, 0, 1}, {2.4, 2, 0, 1},
                                      {2.35, 3, 1, 1}};
    run(false, 0.1, rows, PF_COUNT(rows));
}

static void nan_is_never_better(void **state) {
    (void)state;
    static const evaluation rows[] = {
        {NAN, 1, 0, 0}, {4, 0, 0, 1}, {NAN, 1, 0, 0}, {INFINITY, 2, 0, 0}, {NAN, 3, 1, 0}};
    run(false, 0, rows, PF_COUNT(rows));
}

static void the_reason_is_a_sentence(void **state) {
    (void)state;
    char text[200];
    pf_early_stopping s;
    pf_early_stopping_init(&s, "eval_exact_match", true, 2, 0);
    for (int i = 0; i < 3; i++) pf_early_stopping_update(&s, 40 - i, 200 * (i + 1));
    pf_early_stopping_reason(&s, text, sizeof text);
    assert_string_equal(text, "eval_exact_match did not improve in 2 evaluations; the best is 40 "
                              "(step 200)");
    pf_early_stopping_init(&s, "eval_loss", false, 1, 0.5);
    pf_early_stopping_update(&s, 2, 10);
    pf_early_stopping_update(&s, 1.75, 20);
    pf_early_stopping_reason(&s, text, sizeof text);
    assert_string_equal(text, "eval_loss did not improve by more than 0.5 in 1 evaluation; the "
                              "best is 1.75 (step 20)");
    pf_early_stopping_init(&s, "eval_loss", false, 1, 0);
    pf_early_stopping_update(&s, NAN, 10);
    pf_early_stopping_reason(&s, text, sizeof text);
    assert_string_equal(text, "eval_loss was not a number in 1 evaluation");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls),
        cmocka_unit_test(score_rises),
        cmocka_unit_test(threshold_moves_the_best_but_not_the_patience),
        cmocka_unit_test(nan_is_never_better),
        cmocka_unit_test(the_reason_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
