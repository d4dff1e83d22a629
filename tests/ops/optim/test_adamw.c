/* test_adamw.c - ten steps as torch.optim.AdamW makes them (tools/make_adamw_fixture.py), the same
 * bits from every kernel and on any number of threads; sums and the search for NaN against plain
 * loops. */
#include "ops/optim/adamw.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 37, STEPS = 10 };

static void read_row(FILE *f, const char *name, float *out) {
    char word[64];
    do assert_int_equal(fscanf(f, "%63s", word), 1);
    while (strcmp(word, name) != 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(fscanf(f, "%63s", word), 1);
        out[i] = strtof(word, NULL);
    }
}

static FILE *open_golden(void) {
    FILE *f = fopen(TEST_SOURCE_DIR "/tests/golden/optim/adamw.txt", "r");
    assert_non_null(f);
    int c;
    while ((c = fgetc(f)) != '\n') assert_int_not_equal(c, EOF); /* the comment */
    return f;
}

static void steps_of(pf_isa isa, float *p, float *m, float *v) {
    pf_cpu_force(isa);
    float g[N];
    FILE *f = open_golden();
    read_row(f, "start", p);
    memset(m, 0, N * sizeof *m);
    memset(v, 0, N * sizeof *v);
    for (int t = 1; t <= STEPS; t++) {
        read_row(f, "grad", g);
        for (int i = 0; i < N; i++) g[i] *= 4; /* undone by grad_scale */
        pf_adamw o = {.lr = t > 5 ? 1.5e-3 : 3e-3,
                      .beta1 = 0.9,
                      .beta2 = 0.98,
                      .eps = 1e-8,
                      .weight_decay = 0.05,
                      .t = t};
        pf_adamw_update(NULL, &o, 0.25, N, p, g, m, v);
    }
    fclose(f);
}

static void near_torch(const char *name, const float *got, const float *want, double tol) {
    for (int i = 0; i < N; i++) {
        if (fabs((double)got[i] - (double)want[i]) > tol * fabs((double)want[i])) {
            fail_msg("%s[%d] is %.9g, torch has %.9g", name, i, (double)got[i], (double)want[i]);
        }
    }
}

static void test_torch(void **state) {
    (void)state;
    float p[N], m[N], v[N], want[N], p2[N], m2[N], v2[N];
    steps_of(PF_ISA_SCALAR, p, m, v);
    FILE *f = open_golden();
    read_row(f, "p", want);
    near_torch("p", p, want,
               3e-7); /* one rounding: torch fuses a product into a sum where it has vectors */
    read_row(f, "m", want);
    near_torch("m", m, want, 4e-6); /* sums that cancel */
    read_row(f, "v", want);
    near_torch("v", v, want, 3e-7);
    fclose(f);
    for (int isa = PF_ISA_AVX2; isa <= PF_ISA_AVX512; isa++) {
        steps_of((pf_isa)isa, p2, m2, v2);
        assert_memory_equal(p, p2, sizeof p);
        assert_memory_equal(m, m2, sizeof m);
        assert_memory_equal(v, v2, sizeof v);
    }
}

static void fill(float *x, int64_t n, uint64_t seed) {
    pf_rng_key key = pf_rng_make_key(seed, PF_RNG_DATA, 0);
    for (int64_t i = 0; i < n; i++) x[i] = (float)pf_rng_normal_at(key, (uint64_t)i);
}

/* large enough for many tasks, with a ragged end */
static void test_threads(void **state) {
    (void)state;
    const int64_t n = 16384 * 5 + 77;
    float *x[2][4], *first = pf_calloc((size_t)n * 8, sizeof *first);
    assert_non_null(first);
    double sum[2];
    for (int run = 0; run < 2; run++) {
        pf_pool *pool;
        assert_int_equal(pf_pool_new(&pool, run == 0 ? 1 : 3, NULL), PEFT_OK);
        for (int k = 0; k < 4; k++) {
            x[run][k] = first + (run * 4 + k) * n;
            fill(x[run][k], n, (uint64_t)k);
        }
        for (int64_t i = 0; i < n; i++) x[run][3][i] *= x[run][3][i];
        pf_adamw o = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .t = 3};
        pf_adamw_update(pool, &o, 0.7, n, x[run][0], x[run][1], x[run][2], x[run][3]);
        sum[run] = pf_sum_squares(pool, n, x[run][0]);
        pf_pool_free(pool);
    }
    assert_memory_equal(x[0][0], x[1][0], (size_t)n * 4 * sizeof(float));
    assert_memory_equal(&sum[0], &sum[1], sizeof sum[0]);
    double want = 0;
    for (int64_t i = 0; i < n; i++) want += (double)x[0][0][i] * (double)x[0][0][i];
    assert_true(fabs(sum[0] - want) < 1e-9 * want);
    pf_free(first);
}

static void test_nonfinite(void **state) {
    (void)state;
    const int64_t n = 16384 * 3 + 5;
    float *x = pf_calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    fill(x, n, 9);
    assert_int_equal(pf_first_nonfinite(NULL, n, x), -1);
    assert_int_equal(pf_first_nonfinite(NULL, 0, x), -1);
    x[n - 1] = INFINITY;
    assert_int_equal(pf_first_nonfinite(NULL, n, x), n - 1);
    x[20000] = NAN;
    assert_int_equal(pf_first_nonfinite(NULL, n, x), 20000);
    x[0] = -INFINITY;
    assert_int_equal(pf_first_nonfinite(NULL, n, x), 0);
    assert_true(isnan(pf_sum_squares(NULL, n, x)));
    pf_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_nonfinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
