/* test_attention_tiles.c - the parts of attention's tiles one by one, for every instruction set of
 * this processor: the exponential within 2 ulp, products and transposes of every shape against
 * plain loops. */
#include "ops/attention/attention_tiles.h"

#include "base/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const pf_attention_isa *const isas[] = {&pf_attention_isa_avx2, &pf_attention_isa_avx512};

static int n_isas(void) {
    pf_cpu_force(PF_ISA_AVX512);
    return (int)pf_cpu_level();
}

static double ulps(float got, double want) {
    float w = (float)want, next = nextafterf(fabsf(w), INFINITY);
    return fabs((double)got - want) / ((double)next - (double)fabsf(w));
}

/* every 37th float from -104 to 89 */
static void test_exp(void **state) {
    (void)state;
    enum { L = 16 };
    const float zero[L] = {0};
    for (int k = 0; k < n_isas(); k++) {
        double worst = 0;
        const uint32_t top[2] = {0x42b20000u /* 89 */, 0xc2d00000u /* -104 */};
        for (int side = 0; side < 2; side++) {
            uint32_t bits = side == 0 ? 0 : 0x80000000u;
            while (bits < top[side]) {
                float x[L], y[L], sum[L] = {0};
                for (int i = 0; i < L; i++, bits += 37 * 16 - 3) memcpy(&x[i], &bits, sizeof bits);
                memcpy(y, x, sizeof y);
                isas[k]->exp_sum(y, 1, L, 1, zero, sum);
                for (int i = 0; i < L; i++) {
                    double want = exp((double)x[i]);
                    if (want > 3.4028234e38) continue;
                    double e = ulps(y[i], want);
                    if (e > worst) worst = e;
                    if (e > 2)
                        fail_msg("exp(%.9g) is %.9g, should be %.9g: %.2f ulp", (double)x[i],
                                 (double)y[i], want, e);
                    assert_true(sum[i] == y[i]);
                }
            }
        }
        print_message("exp: %.3f ulp at worst\n", worst);
        float odd[L] = {-INFINITY, INFINITY, NAN, -1e30f, 1e30f, -105, 100, 0}, sum[L] = {0};
        isas[k]->exp_sum(odd, 1, L, 1, zero, sum);
        assert_true(odd[0] == 0 && odd[3] == 0 && odd[5] == 0);
        assert_true(isinf(odd[1]) && isinf(odd[4]) && isinf(odd[6]));
        assert_true(isnan(odd[2]));
        assert_true(odd[7] == 1);
    }
}

/* every 997th float from 1 to 2^30 */
static void test_log(void **state) {
    (void)state;
    enum { L = 16 };
    const float most[L] = {0};
    for (int k = 0; k < n_isas(); k++) {
        double worst = 0;
        for (uint32_t bits = 0x3f800000u; bits < 0x4e800000u;) {
            float x[L], inverse[L], y[L];
            for (int i = 0; i < L; i++, bits += 997) memcpy(&x[i], &bits, sizeof bits);
            isas[k]->finish(most, x, L, inverse, y);
            for (int i = 0; i < L; i++) {
                const double want = log((double)x[i]), e = want == 0 ? 0 : ulps(y[i], want);
                if (e > worst) worst = e;
                if (e > 2 || (want == 0 && y[i] != 0))
                    fail_msg("log(%.9g) is %.9g, should be %.9g: %.2f ulp", (double)x[i],
                             (double)y[i], want, e);
                assert_true(inverse[i] == 1 / x[i]);
            }
        }
        print_message("log: %.3f ulp at worst\n", worst);
    }
}

static float number(int i) {
    return (float)((i * 7919) % 1009 - 500) / 97;
}

static void test_product(void **state) {
    (void)state;
    static float a[70 * 70], b[70 * PF_ATT_LANES], c[70 * PF_ATT_LANES];
    for (int i = 0; i < 70 * 70; i++) a[i] = number(i);
    for (int i = 0; i < 70 * PF_ATT_LANES; i++) b[i] = number(3 * i + 1);
    for (int k = 0; k < n_isas(); k++) {
        for (int L = 16; L <= PF_ATT_LANES; L += 16) {
            for (int m = 1; m <= 19; m++) {
                for (int depth = 1; depth <= 65; depth += 16) {
                    for (int way = 0; way < 4; way++) { /* rows or columns of a; set or add */
                        const int64_t row = way & 1 ? 1 : 70, step = way & 1 ? 70 : 1;
                        const bool add = (way & 2) != 0;
                        for (int i = 0; i < m * L; i++) c[i] = number(i + 5);
                        isas[k]->product(m, depth, L, a, row, step, b, L, c, L, add);
                        for (int i = 0; i < m * L; i++) {
                            float want = add ? number(i + 5) : 0;
                            for (int t = 0; t < depth; t++) {
                                want = fmaf(a[i / L * row + t * step], b[t * L + i % L], want);
                            }
                            if (memcmp(&want, &c[i], sizeof want) != 0) {
                                fail_msg("product %d x %d x %d, way %d: c[%d] is %.9g, not %.9g", m,
                                         depth, L, way, i, (double)c[i], (double)want);
                            }
                        }
                    }
                }
            }
        }
    }
}

static void test_transposes(void **state) {
    (void)state;
    static float from[PF_ATT_LANES][70], to[PF_ATT_LANES][70], packed[70 * PF_ATT_LANES];
    const float *rows[PF_ATT_LANES];
    float *back[PF_ATT_LANES], scale[PF_ATT_LANES];
    for (int lane = 0; lane < PF_ATT_LANES; lane++) {
        rows[lane] = from[lane];
        back[lane] = to[lane];
        scale[lane] = (float)(1 + lane);
        for (int d = 0; d < 70; d++) from[lane][d] = number(lane * 70 + d);
    }
    for (int k = 0; k < n_isas(); k++) {
        for (int D = 1; D <= 70; D++) {
            for (int L = 16; L <= PF_ATT_LANES; L += 16) {
                isas[k]->pack(rows, L, D, packed);
                for (int i = 0; i < D * L; i++) assert_true(packed[i] == from[i % L][i / L]);
                for (int n = L - 15; n <= L; n += 7) {
                    for (int i = 0; i < PF_ATT_LANES * 70; i++) to[i / 70][i % 70] = 1;
                    isas[k]->unpack(packed, scale, L, D, back, n, true);
                    for (int i = 0; i < PF_ATT_LANES * 70; i++) {
                        int lane = i / 70, d = i % 70;
                        float want = lane < n && d < D ? from[lane][d] * scale[lane] + 1 : 1;
                        assert_true(to[lane][d] == want);
                    }
                }
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_transposes),
    };
    if (n_isas() == 0) {
        print_message("skipped: this processor has neither AVX2 nor AVX-512\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
