/* Principal directions of rows that come batch by batch, where the answer is known: rows that lie
 * in few dimensions lose nothing between batches, whatever the cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/pca.h"

#include <math.h>
#include <string.h>

enum { ROWS = 60, COLS = 12, K = 3 };
static const double LENGTHS[K] = {9, 4, 1.5};
static float x[ROWS * COLS];

/* Rows around a mean far from zero, in the directions of the axes 2, 5 and 7: sums of sines of
 * whole periods, so that shares and mean are known. */
static void make(void) {
    static const int axis[K] = {2, 5, 7};
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLS; j++) x[i * COLS + j] = (float)(j % 4) - 1;
        for (int k = 0; k < K; k++)
            x[i * COLS + axis[k]] +=
                (float)(LENGTHS[k] * sqrt(2) * sin(2 * acos(-1) * (k + 1) * i / ROWS));
    }
}

static void add_in(pf_pca *p, pf_arena *a, const int *cuts, int n) {
    assert_int_equal(pf_pca_init(p, a, K, COLS, NULL), PEFT_OK);
    int at = 0;
    for (int i = 0; i < n; i++) {
        assert_int_equal(pf_pca_add(p, x + at * COLS, cuts[i], 1, NULL), PEFT_OK);
        at += cuts[i];
    }
    assert_int_equal(at, ROWS);
}

static void the_same_for_any_cut(void **state) {
    (void)state;
    static const int whole[] = {60}, two[] = {25, 35}, many[] = {3, 7, 20, 10, 5, 15};
    pf_arena a;
    pf_arena_init(&a, "test");
    make();
    pf_pca p[3];
    add_in(&p[0], &a, whole, 1);
    add_in(&p[1], &a, two, 2);
    add_in(&p[2], &a, many, 6);
    for (int i = 0; i < 3; i++) {
        double all = 0;
        for (int k = 0; k < K; k++) {
            assert_true(fabs(p[i].s[k] / (LENGTHS[k] * sqrt(ROWS)) - 1) < 1e-5);
            all += p[i].s[k] * p[i].s[k];
        }
        assert_true(fabs(all / p[i].spread - 1) < 1e-6);
        assert_true(fabs(p[i].v[0 * COLS + 2] - 1) < 1e-6); /* and not -1 */
        assert_true(fabs(p[i].v[1 * COLS + 5] - 1) < 1e-6);
        assert_true(fabs(p[i].v[2 * COLS + 7] - 1) < 1e-6);
        for (int j = 0; j < COLS; j++) assert_true(fabs(p[i].mean[j] - (j % 4 - 1)) < 1e-5);
        assert_int_equal(p[i].rows, ROWS);
    }
    pf_arena_release(&a);
}

static void says_how_far_it_turned(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    make();
    pf_pca p;
    assert_int_equal(pf_pca_init(&p, &a, K, COLS, NULL), PEFT_OK);
    assert_int_equal(pf_pca_add(&p, x, ROWS, 1, NULL), PEFT_OK);
    for (int k = 0; k < K; k++) assert_true(p.turned[k] == 0);
    assert_int_equal(pf_pca_add(&p, x, ROWS, 1, NULL), PEFT_OK); /* the same rows again */
    for (int k = 0; k < K; k++) assert_true(fabs(p.turned[k] - 1) < 1e-9);
    for (int i = 0; i < ROWS; i++) { /* the first direction goes elsewhere */
        x[i * COLS + 9] += 40 * x[i * COLS + 2];
    }
    assert_int_equal(pf_pca_add(&p, x, ROWS, 1, NULL), PEFT_OK);
    assert_true(p.turned[0] < 0.1);
    assert_true(p.v[9] > 0.99);
    pf_arena_release(&a);
}

static void rows_that_do_not_vary(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    for (int i = 0; i < ROWS * COLS; i++) x[i] = 3;
    pf_pca p;
    assert_int_equal(pf_pca_init(&p, &a, K, COLS, NULL), PEFT_OK);
    assert_int_equal(pf_pca_add(&p, x, K, 1, NULL), PEFT_OK);
    assert_int_equal(pf_pca_add(&p, x, ROWS, 1, NULL), PEFT_OK);
    assert_true(p.spread == 0 && p.s[0] == 0);
    make();
    assert_int_equal(pf_pca_add(&p, x, ROWS, 1, NULL), PEFT_OK);
    assert_true(p.s[0] > 0 && p.spread > 0);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_for_any_cut),
        cmocka_unit_test(says_how_far_it_turned),
        cmocka_unit_test(rows_that_do_not_vary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
