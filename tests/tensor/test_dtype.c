/* The table of types, and the conversions against an independent oracle: the sorted list of all
 * half numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/cpu.h"
#include "base/str.h"
#include "tensor/dtype.h"

#include <math.h>

/* What the 16 bits mean, from the definition of the format: sign, exponent, fraction. */
static double half_value(unsigned h, int exp_bits, int frac_bits) {
    unsigned frac = h & ((1u << frac_bits) - 1u);
    int exp = (int)(h >> frac_bits & ((1u << exp_bits) - 1u));
    int bias = (1 << (exp_bits - 1)) - 1;
    double sign = (h >> 15 & 1u) != 0 ? -1.0 : 1.0;
    if (exp == (1 << exp_bits) - 1) return frac != 0 ? NAN : sign * INFINITY;
    if (exp == 0) return sign * ldexp(frac, 1 - bias - frac_bits);
    return sign * ldexp((double)frac + (double)(1u << frac_bits), exp - bias - frac_bits);
}

/* Nearest half to |f| by search over the halves in order; ties to the even one. Above the largest,
 * the next value would be 2^(emax+1): half way to it and beyond is infinity. */
static unsigned nearest_half(float f, int exp_bits, int frac_bits) {
    double x = fabs((double)f);
    unsigned inf = ((1u << exp_bits) - 1u) << frac_bits, lo = 0, hi = inf;
    double top = ldexp(1.0, 1 << (exp_bits - 1));
    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;
        if (half_value(mid, exp_bits, frac_bits) <= x)
            lo = mid;
        else
            hi = mid;
    }
    double a = half_value(lo, exp_bits, frac_bits);
    double b = hi == inf ? top : half_value(hi, exp_bits, frac_bits);
    unsigned r = x - a < b - x || (x - a == b - x && (lo & 1u) == 0) ? lo : hi;
    return r | (signbit(f) ? 0x8000u : 0);
}

static void test_every_half_widens(void **state) {
    (void)state;
    for (unsigned h = 0; h < 0x10000u; h++) {
        double f16 = half_value(h, 5, 10), bf16 = half_value(h, 8, 7);
        float got16 = pf_f16_to_f32((uint16_t)h), gotb = pf_bf16_to_f32((uint16_t)h);
        if (isnan(f16)) {
            assert_true(isnan(got16));
            assert_int_equal(pf_f32_to_f16(got16), h | 0x200u);
        } else {
            assert_true((double)got16 == f16 && (signbit(got16) != 0) == (h >> 15 != 0));
            assert_int_equal(pf_f32_to_f16(got16), h);
        }
        if (isnan(bf16)) {
            assert_true(isnan(gotb));
            assert_int_equal(pf_f32_to_bf16(gotb), h | 0x40u);
        } else {
            assert_true((double)gotb == bf16 && (signbit(gotb) != 0) == (h >> 15 != 0));
            assert_int_equal(pf_f32_to_bf16(gotb), h);
        }
    }
}

/* All exponents, with fractions on, just below and just above every kind of tie. */
static void test_narrowing_rounds_to_nearest_even(void **state) {
    (void)state;
    static const uint32_t tails[] = {0x0000, 0x0001, 0x0fff,  0x1000,  0x1001, 0x1fff,
                                     0x2000, 0x2fff, 0x3000,  0x3001,  0x7fff, 0x8000,
                                     0x8001, 0xffff, 0x17fff, 0x18000, 0x18001};
    static const uint32_t heads[] = {0, 0x20000, 0x40000, 0x2a0000, 0x540000, 0x7c0000, 0x7e0000};
    int n = 0;
    for (uint32_t sign = 0; sign < 2; sign++) {
        for (uint32_t exp = 0; exp < 255; exp++) {
            for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
                for (size_t j = 0; j < sizeof heads / sizeof *heads; j++) {
                    float f = pf_f32_of_bits(sign << 31 | exp << 23 |
                                             ((heads[j] + tails[i]) & 0x7fffffu));
                    assert_int_equal(pf_f32_to_f16(f), nearest_half(f, 5, 10));
                    assert_int_equal(pf_f32_to_bf16(f), nearest_half(f, 8, 7));
                    n++;
                }
            }
        }
    }
    assert_true(n > 50000);
    assert_int_equal(pf_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(pf_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(pf_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(pf_f32_to_bf16(INFINITY), 0x7f80);
    assert_int_equal(pf_f32_to_bf16(3.4028235e38f), 0x7f80);
    /* a NaN whose payload lies only in the bits that are cut off must not become an infinity */
    assert_int_equal(pf_f32_to_f16(pf_f32_of_bits(0xff800001u)), 0xfe00);
    assert_int_equal(pf_f32_to_bf16(pf_f32_of_bits(0x7f800001u)), 0x7fc0);
}

/* Rows of any length, at odd addresses, on every level of this processor: the same bits. */
static void test_rows_are_the_same_on_every_level(void **state) {
    (void)state;
    static const pf_dtype halves[] = {PF_DTYPE_F16, PF_DTYPE_BF16};
    enum { N = 4099 };
    float *src = malloc(N * sizeof *src), *wide[2];
    unsigned char *narrow[2];
    for (int k = 0; k < 2; k++) {
        wide[k] = malloc(N * sizeof(float));
        narrow[k] = malloc(2 * N + 1);
        assert_non_null(wide[k]);
        assert_non_null(narrow[k]);
    }
    assert_non_null(src);
    uint32_t x = 12345;
    for (int i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        /* mostly numbers that halves can hold, and every so often anything at all */
        uint32_t bits = i % 7 == 0 ? x : (x & 0x807fffffu) | (0x66u + (x >> 8) % 0x30u) << 23;
        if (i % 97 == 0) bits = 0x7f800000u | (x & 0x807fffffu);
        src[i] = pf_f32_of_bits(bits);
    }
    for (size_t d = 0; d < 2; d++) {
        for (int n = N; n > 0; n = n > 40 ? n / 2 : n - 1) {
            for (int k = 0; k < 2; k++) {
                pf_cpu_force(k == 0 ? PF_ISA_SCALAR : PF_ISA_AVX512);
                pf_dtype_from_f32(halves[d], src, n, narrow[k] + 1);
                pf_dtype_to_f32(halves[d], narrow[k] + 1, n, wide[k]);
            }
            assert_memory_equal(narrow[0] + 1, narrow[1] + 1, 2 * (size_t)n);
            assert_memory_equal(wide[0], wide[1], (size_t)n * sizeof(float));
        }
    }
    pf_cpu_force(PF_ISA_AVX512);
    for (int i = 0; i < N;
         i++) { /* the last call wrote the first number only; widen everything once more */
        uint16_t h = pf_f32_to_bf16(src[i]);
        narrow[0][2 * i] = (unsigned char)h;
        narrow[0][2 * i + 1] = (unsigned char)(h >> 8);
    }
    pf_dtype_to_f32(PF_DTYPE_BF16, narrow[0], N, wide[0]);
    for (int i = 0; i < N; i++) {
        assert_int_equal(pf_f32_bits(wide[0][i]), (uint32_t)pf_f32_to_bf16(src[i]) << 16);
    }
    for (int k = 0; k < 2; k++) {
        free(wide[k]);
        free(narrow[k]);
    }
    free(src);
}

static void test_other_types_widen(void **state) {
    (void)state;
    const double f64[] = {1.5, -2.25, 1e300, 0.1};
    const int64_t i64[] = {-3, 1LL << 40, INT64_MIN, 16777217};
    const uint64_t u64[] = {3, UINT64_MAX};
    const uint32_t u32[] = {4000000000u, 1};
    const int32_t i32[] = {-7, INT32_MAX};
    const uint16_t u16[] = {65535, 2};
    const int16_t i16[] = {-32768, 5};
    const int8_t i8[] = {-128, 127};
    const uint8_t u8[] = {255, 1}, b[] = {0, 1, 1, 0};
    float out[4];
    pf_dtype_to_f32(PF_DTYPE_F64, f64, 4, out);
    assert_true(out[0] == 1.5f && out[1] == -2.25f && isinf(out[2]) && out[3] == 0.1f);
    pf_dtype_to_f32(PF_DTYPE_I64, i64, 4, out);
    assert_true(out[0] == -3.0f && out[1] == 0x1p40f && out[2] == -0x1p63f &&
                out[3] == 16777216.0f);
    pf_dtype_to_f32(PF_DTYPE_U64, u64, 2, out);
    assert_true(out[0] == 3.0f && out[1] == 0x1p64f);
    pf_dtype_to_f32(PF_DTYPE_U32, u32, 2, out);
    assert_true(out[0] == 4e9f && out[1] == 1.0f);
    pf_dtype_to_f32(PF_DTYPE_I32, i32, 2, out);
    assert_true(out[0] == -7.0f && out[1] == 0x1p31f);
    pf_dtype_to_f32(PF_DTYPE_U16, u16, 2, out);
    assert_true(out[0] == 65535.0f && out[1] == 2.0f);
    pf_dtype_to_f32(PF_DTYPE_I16, i16, 2, out);
    assert_true(out[0] == -32768.0f && out[1] == 5.0f);
    pf_dtype_to_f32(PF_DTYPE_I8, i8, 2, out);
    assert_true(out[0] == -128.0f && out[1] == 127.0f);
    pf_dtype_to_f32(PF_DTYPE_U8, u8, 2, out);
    assert_true(out[0] == 255.0f && out[1] == 1.0f);
    pf_dtype_to_f32(PF_DTYPE_BOOL, b, 4, out);
    assert_true(out[0] == 0 && out[1] == 1 && out[2] == 1 && out[3] == 0);
    double back[2];
    pf_dtype_from_f32(PF_DTYPE_F64, out, 2, back);
    assert_true(back[0] == 0.0 && back[1] == 1.0);
}

static void test_the_table(void **state) {
    (void)state;
    bool orders[PF_DTYPE_COUNT] = {false};
    for (int i = PF_DTYPE_NONE + 1; i < PF_DTYPE_COUNT; i++) {
        const pf_dtype_traits *t = pf_dtype_info((pf_dtype)i);
        assert_true(t->order >= 1 && t->order < PF_DTYPE_COUNT && !orders[t->order]);
        orders[t->order] = true;
        assert_int_equal(pf_dtype_by_name(t->name, strlen(t->name)), i);
        if (t->torch_name != NULL) assert_int_equal(pf_dtype_by_torch_name(t->torch_name), i);
    }
    assert_int_equal(pf_dtype_by_torch_name("torch.bfloat16"), PF_DTYPE_BF16);
    assert_int_equal(pf_dtype_by_torch_name("fp16"), PF_DTYPE_F16);
    assert_int_equal(pf_dtype_by_torch_name("float"), PF_DTYPE_F32);
    assert_int_equal(pf_dtype_by_torch_name("float31"), PF_DTYPE_NONE);
    assert_int_equal(pf_dtype_by_torch_name("none"), PF_DTYPE_NONE);
    assert_int_equal(pf_dtype_by_name("f32", 3), PF_DTYPE_NONE); /* a header spells it F32 */
    assert_int_equal(pf_dtype_by_name("F3", 2), PF_DTYPE_NONE);
    assert_int_equal(pf_dtype_by_name("none", 4), PF_DTYPE_NONE);
    assert_true(pf_dtype_readable(PF_DTYPE_BF16) && !pf_dtype_readable(PF_DTYPE_F8_E4M3));
    assert_true(pf_dtype_writable(PF_DTYPE_F16) && !pf_dtype_writable(PF_DTYPE_I64));
    assert_false(pf_dtype_readable(PF_DTYPE_NONE));
    size_t n = 77;
    assert_true(pf_dtype_bytes(PF_DTYPE_F6_E2M3, 8, &n) && n == 6);
    assert_false(pf_dtype_bytes(PF_DTYPE_F6_E2M3, 6, &n));
    assert_false(pf_dtype_bytes(PF_DTYPE_F64, UINT64_MAX, &n));
    assert_int_equal(n, 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half_widens),
        cmocka_unit_test(test_narrowing_rounds_to_nearest_even),
        cmocka_unit_test(test_rows_are_the_same_on_every_level),
        cmocka_unit_test(test_other_types_widen),
        cmocka_unit_test(test_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
