/* test_delta_loops.c - the loops of every instruction set give the bits of the plain ones, and
 * these are what delta_loops.h says: transforms and blocks against plain sums in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "peft/delta/delta_loops.h"

enum { L = PF_FFT_LANES, W = 2 * L, MOST = 64, LANES = PF_ROTATE_LANES };

static const pf_delta_loops *sets[3];
static int n_sets;

static void find_sets(void) {
    sets[n_sets++] = &pf_delta_loops_plain;
    const pf_gemm_isa *best = pf_gemm_best();
    if (best != &pf_gemm_plain) sets[n_sets++] = &pf_delta_loops_avx2;
    if (best == &pf_gemm_avx512) sets[n_sets++] = &pf_delta_loops_avx512;
}

static void fill(float *x, int64_t n, uint64_t salt) {
    const pf_rng_key key = pf_rng_make_key(3, PF_RNG_DATA, salt);
    for (int64_t i = 0; i < n; i++) x[i] = (float)pf_rng_normal_at(key, (uint64_t)i);
}

static void transforms(void **state) {
    (void)state;
    static const int lengths[] = {1, 2, 3, 4, 5, 8, 9, 12, 14, 35, 36, 48, 60, 64};
    peft_error err;
    pf_arena arena;
    pf_arena_init(&arena, "test");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        const int n = lengths[i];
        static float rows[L * MOST], x[W * MOST], y[3][W * MOST], part[W * MOST];
        pf_fft f;
        assert_int_equal(pf_fft_init(&f, &arena, n, &err), PEFT_OK);
        fill(rows, L * n, (uint64_t)n);
        const int n_rows = 1 + n % L;
        for (int k = 0; k < n_sets; k++) {
            sets[k]->load(rows, n_rows, n, x);
            sets[k]->fft(&f, x, y[k], part);
            assert_memory_equal(y[k], y[0], (size_t)n * W * sizeof(float));
        }
        for (int l = 0; l < L; l++) {
            for (int u = 0; u < n; u++) {
                double re = 0, im = 0;
                for (int c = 0; c < n && l < n_rows; c++) {
                    const double angle = 8 * atan(1.0) * (double)(u * c % n) / n;
                    re += (double)rows[l * n + c] * cos(angle);
                    im += (double)rows[l * n + c] * sin(angle);
                }
                assert_true(fabs((double)y[0][u * W + l] - re) < 2e-5);
                assert_true(fabs((double)y[0][u * W + L + l] - im) < 2e-5);
            }
        }
    }
    pf_arena_release(&arena);
}

static void places(void **state) {
    (void)state;
    enum { N = 200, C = 24 };
    static float x[W * C], g[W * C], p[N], to[3][W * C], sums[3][N];
    static int32_t u[N], v[N];
    fill(x, W * C, 1);
    fill(g, W * C, 2);
    fill(p, N, 3);
    for (int k = 0; k < N; k++) {
        u[k] = k * 7 % C;
        v[k] = k * 11 % C;
    }
    for (int k = 0; k < n_sets; k++) {
        memset(to[k], 0, sizeof to[k]);
        sets[k]->scatter(p, N, x, v, to[k], u);
        sets[k]->match(N, x, v, g, u, sums[k]);
        assert_memory_equal(to[k], to[0], sizeof to[0]);
        assert_memory_equal(sums[k], sums[0], sizeof sums[0]);
    }
    double want = 0, sum = 0;
    for (int k = 0; k < N; k++) want += u[k] == 3 ? (double)p[k] * (double)x[v[k] * W + 9] : 0;
    for (int l = 0; l < L; l++)
        sum += (double)x[v[5] * W + l] * (double)g[u[5] * W + l] -
               (double)x[v[5] * W + L + l] * (double)g[u[5] * W + L + l];
    assert_true(fabs((double)to[0][3 * W + 9] - want) < 1e-4);
    assert_true(fabs((double)sums[0][5] - sum) < 1e-4);
}

static void products(void **state) {
    (void)state;
    static double x[33 * 33], y[33 * 33], z[3][33 * 33];
    const pf_rng_key key = pf_rng_make_key(3, PF_RNG_DATA, 9);
    for (int i = 0; i < 33 * 33; i++) {
        x[i] = pf_rng_normal_at(key, (uint64_t)i);
        y[i] = pf_rng_normal_at(key, (uint64_t)(5000 + i));
    }
    for (int s = 1; s <= 33; s++) {
        for (int k = 0; k < n_sets; k++) {
            sets[k]->product(s, x, y, z[k]);
            assert_memory_equal(z[k], z[0], (size_t)(s * s) * sizeof(double));
        }
        for (int i = 0; i < s; i++) {
            for (int j = 0; j < s; j++) {
                double sum = 0;
                for (int k = 0; k < s; k++) sum += x[i * s + k] * y[k * s + j];
                assert_true(z[0][i * s + j] == sum);
            }
        }
    }
}

static void blocks(void **state) {
    (void)state;
    enum { C = 20, GROUPS = 3 };
    static float x[GROUPS * C * LANES], dy[GROUPS * C * LANES], m[15 * 15], z[3][15 * LANES],
        d[3][15 * 15];
    static const int32_t order[15] = {3, 19, 0, 7, 12, 5, 18, 1, 9, 11, 2, 16, 4, 14, 8};
    fill(x, GROUPS * C * LANES, 4);
    fill(dy, GROUPS * C * LANES, 5);
    fill(m, 15 * 15, 6);
    for (int s = 2; s <= 15; s++) {
        for (int way = 0; way < 4; way++) {
            const bool turned = way % 2 == 1;
            const int32_t *from = way < 2 ? NULL : order;
            for (int k = 0; k < n_sets; k++) {
                memset(d[k], 0, sizeof d[k]);
                sets[k]->rotate(s, x, from, m, turned, z[k]);
                sets[k]->outer(s, GROUPS, C * LANES, x, dy, from, d[k]);
                assert_memory_equal(z[k], z[0], (size_t)(s * LANES) * sizeof(float));
                assert_memory_equal(d[k], d[0], (size_t)(s * s) * sizeof(float));
            }
            for (int c = 0; c < s; c++) {
                double sum = 0, outer = 0;
                for (int j = 0; j < s; j++) {
                    const int at = from == NULL ? j : from[j];
                    sum +=
                        (double)x[at * LANES + 6] * (double)(turned ? m[c * s + j] : m[j * s + c]);
                }
                for (int i = 0; i < GROUPS * LANES; i++) {
                    const int g = i / LANES * C;
                    outer += (double)x[(g + (from == NULL ? 1 : from[1])) * LANES + i % LANES] *
                             (double)dy[(g + (from == NULL ? c : from[c])) * LANES + i % LANES];
                }
                assert_true(fabs((double)z[0][c * LANES + 6] - sum) < 1e-5);
                assert_true(fabs((double)d[0][s + c] - outer) < 1e-4);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(transforms), cmocka_unit_test(places),
                                       cmocka_unit_test(products), cmocka_unit_test(blocks)};
    find_sets();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
