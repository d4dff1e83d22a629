/* test_rng.c - Philox against the known answers of Random123, and what is drawn from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"

/* kat_vectors of Random123 1.14, philox4x32 with 10 rounds */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pf_rng_key key = {{rows[i].key[0], rows[i].key[1]}};
        const uint32_t *c = rows[i].counter;
        pf_rng4 r = pf_philox(key, c[0], c[1], c[2], c[3]);
        for (int j = 0; j < 4; j++) assert_int_equal(r.v[j], rows[i].expected[j]);
    }
}

static void every_part_of_a_key_counts(void **state) {
    (void)state;
    pf_rng_key keys[] = {
        pf_rng_make_key(42, PF_RNG_DROPOUT, 0),
        pf_rng_make_key(43, PF_RNG_DROPOUT, 0),
        pf_rng_make_key(42 + (1ull << 32), PF_RNG_DROPOUT, 0),
        pf_rng_make_key(42, PF_RNG_SHUFFLE, 0),
        pf_rng_make_key(42, PF_RNG_DROPOUT, 1),
        pf_rng_make_key(42, PF_RNG_DROPOUT, 1ull << 32),
    };
    size_t n = sizeof keys / sizeof *keys;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i + 1; j < n; j++)
            assert_int_not_equal(memcmp(&keys[i], &keys[j], sizeof keys[i]), 0);
    }
    pf_rng_key again = pf_rng_make_key(42, PF_RNG_DROPOUT, 0);
    assert_memory_equal(&again, &keys[0], sizeof again);
}

static void units_stay_below_one(void **state) {
    (void)state;
    assert_true(pf_rng_unit(0) == 0.0f);
    assert_true(pf_rng_unit(UINT32_MAX) < 1.0f);
    assert_true(pf_rng_unit(UINT32_MAX) == 1.0f - 0x1p-24f);
    assert_true(pf_rng_unit(0x80000000u) == 0.5f);
    assert_true(pf_rng_unit53(0, 0) == 0.0);
    assert_true(pf_rng_unit53(UINT32_MAX, UINT32_MAX) == 1.0 - 0x1p-53);
    assert_true(pf_rng_unit53(0x40000000u, 0) == 0.25);
}

static void uniform_and_normal_have_their_moments(void **state) {
    (void)state;
    pf_rng_key key = pf_rng_make_key(7, PF_RNG_DATA, 0);
    enum { N = 200000 };
    double u = 0, z1 = 0, z2 = 0, z3 = 0, z4 = 0;
    for (uint64_t i = 0; i < N; i++) {
        double a = pf_rng_uniform_at(key, i), z = pf_rng_normal_at(key, i);
        assert_true(a >= 0 && a < 1);
        assert_true(isfinite(z));
        u += a;
        z1 += z;
        z2 += z * z;
        z3 += z * z * z;
        z4 += z * z * z * z;
    }
    /* five standard errors: sqrt(1/12N) = 6.5e-4, 1/sqrt(N) = 2.2e-3, sqrt(2/N), sqrt(15/N),
     * sqrt(96/N) */
    assert_true(fabs(u / N - 0.5) < 5 * 6.5e-4);
    assert_true(fabs(z1 / N) < 5 * 2.3e-3);
    assert_true(fabs(z2 / N - 1) < 5 * 3.2e-3);
    assert_true(fabs(z3 / N) < 5 * 8.7e-3);
    assert_true(fabs(z4 / N - 3) < 5 * 2.2e-2);
    /* the n-th number is a function of key and n, not of what was drawn before */
    double at9 = pf_rng_uniform_at(key, 9);
    pf_rng_uniform_at(key, 8);
    assert_true(pf_rng_uniform_at(key, 9) == at9);
}

static void below_has_no_bias(void **state) {
    (void)state;
    pf_rng_key key = pf_rng_make_key(1, PF_RNG_DATA, 2);
    assert_int_equal(pf_rng_below_at(key, 5, 0), 0);
    assert_int_equal(pf_rng_below_at(key, 5, 1), 0);
    for (uint64_t bound = 2; bound < 20; bound++) {
        enum { N = 40000 };
        int counts[20] = {0};
        for (uint64_t i = 0; i < N; i++) {
            uint64_t v = pf_rng_below_at(key, i + bound * N, bound);
            assert_true(v < bound);
            counts[v]++;
        }
        double chi2 = 0, expected = (double)N / (double)bound;
        for (uint64_t v = 0; v < bound; v++) {
            double d = counts[v] - expected;
            chi2 += d * d / expected;
        }
        double dof = (double)(bound - 1);
        assert_true(chi2 < dof + 5 * sqrt(2 * dof));
    }
    /* A bound just above half the range: half of all draws must be refused. Taking them modulo the
     * bound instead would put two thirds of the numbers into the lower half. */
    uint64_t bound = (1ull << 63) + 1, low = 0;
    enum { M = 4000 };
    for (uint64_t i = 0; i < M; i++) low += pf_rng_below_at(key, i, bound) < bound / 2;
    assert_true(fabs((double)low / M - 0.5) < 5 * 0.5 / sqrt((double)M));
    assert_true(pf_rng_below_at(key, 3, UINT64_MAX) < UINT64_MAX);
}

static void permutations_hold_each_index_once(void **state) {
    (void)state;
    enum { MAX = 1000 };
    static int64_t p[MAX], q[MAX];
    static char seen[MAX];
    const int64_t sizes[] = {0, 1, 2, 3, 17, MAX};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = sizes[s];
        pf_rng_permutation(pf_rng_make_key(42, PF_RNG_SHUFFLE, 1), n, p);
        memset(seen, 0, sizeof seen);
        for (int64_t i = 0; i < n; i++) {
            assert_true(p[i] >= 0 && p[i] < n);
            assert_false(seen[p[i]]);
            seen[p[i]] = 1;
        }
        pf_rng_permutation(pf_rng_make_key(42, PF_RNG_SHUFFLE, 1), n, q);
        assert_memory_equal(p, q, (size_t)n * sizeof *p);
    }
    pf_rng_permutation(pf_rng_make_key(42, PF_RNG_SHUFFLE, 2), MAX, q);
    assert_int_not_equal(memcmp(p, q, sizeof p), 0);
}

static void permutations_are_equally_likely(void **state) {
    (void)state;
    enum { N = 24000 };
    int counts[24] = {0};
    for (uint64_t i = 0; i < N; i++) {
        int64_t p[4];
        pf_rng_permutation(pf_rng_make_key(3, PF_RNG_SHUFFLE, i), 4, p);
        int rank = 0;
        for (int a = 0; a < 4; a++) {
            int smaller = 0;
            for (int b = a + 1; b < 4; b++) smaller += p[b] < p[a];
            rank = rank * (4 - a) + smaller;
        }
        counts[rank]++;
    }
    double chi2 = 0;
    for (int i = 0; i < 24; i++) chi2 += (counts[i] - 1000.0) * (counts[i] - 1000.0) / 1000.0;
    assert_true(chi2 < 23 + 5 * sqrt(2 * 23.0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(every_part_of_a_key_counts),
        cmocka_unit_test(units_stay_below_one),
        cmocka_unit_test(uniform_and_normal_have_their_moments),
        cmocka_unit_test(below_has_no_bias),
        cmocka_unit_test(permutations_hold_each_index_once),
        cmocka_unit_test(permutations_are_equally_likely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
