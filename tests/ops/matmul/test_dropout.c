/* Masks: the same bits from every instruction set, the keep rate, and what they depend on. */
#include "ops/matmul/dropout.h"

#include "base/cpu.h"
#include "base/status.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { WIDTH = 4864, BYTES = (WIDTH + 127) / 128 * 16 };

static void test_isas_agree(void **state) {
    (void)state;
    static const double rates[] = {0, 1e-5, 0.05, 0.1, 0.5, 0.999, 0.9999999};
    static const int64_t widths[] = {1, 7, 8, 127, 128, 129, 576, WIDTH};
    uint8_t want[BYTES], got[BYTES];
    for (size_t p = 0; p < PF_COUNT(rates); p++) {
        for (size_t w = 0; w < PF_COUNT(widths); w++) {
            const pf_dropout d = pf_dropout_make(rates[p], 0x123456789abcdefu, 1u << 20, 17);
            const size_t n = (size_t)pf_dropout_bytes(widths[w]);
            pf_dropout_bits_cpu(&d, 3, 1000000, widths[w], want);
            if (pf_cpu_level() >= PF_ISA_AVX2) {
                memset(got, 0, sizeof got);
                pf_dropout_bits_avx2(&d, 3, 1000000, widths[w], got);
                assert_memory_equal(got, want, n);
            }
            if (pf_cpu_level() >= PF_ISA_AVX512) {
                memset(got, 0, sizeof got);
                pf_dropout_bits_avx512(&d, 3, 1000000, widths[w], got);
                assert_memory_equal(got, want, n);
            }
        }
    }
}

/* Counters one by one, in an order that no row has. */
static void test_lanes_agree(void **state) {
    (void)state;
    enum { N = 48 };
    uint32_t octet[N], pos[N], sample[N], key[N];
    uint8_t want[N], got[N], row[16];
    const pf_dropout d = pf_dropout_make(0.3, 11, 12, 13);
    for (uint32_t l = 0; l < N; l++) {
        octet[l] = l * 2654435761u;
        pos[l] = 1000 - l;
        sample[l] = l / 3;
        key[l] = 0x80000000u + l % 5;
    }
    pf_dropout_lanes_cpu(&d, octet, pos, sample, key, N, want);
    if (pf_cpu_level() >= PF_ISA_AVX2) {
        pf_dropout_lanes_avx2(&d, octet, pos, sample, key, N, got);
        assert_memory_equal(got, want, N);
    }
    if (pf_cpu_level() >= PF_ISA_AVX512) {
        pf_dropout_lanes_avx512(&d, octet, pos, sample, key, N, got);
        assert_memory_equal(got, want, N);
    }
    for (uint32_t l = 0; l < 16; l++) { /* octets of one row are its bits */
        octet[l] = l;
        pos[l] = 7;
        sample[l] = 3;
        key[l] = d.mask_key;
    }
    pf_dropout_lanes_cpu(&d, octet, pos, sample, key, 16, want);
    pf_dropout_bits_cpu(&d, 3, 7, 128, row);
    assert_memory_equal(want, row, 16);
}

static int64_t count(const uint8_t *bits, int64_t n) {
    int64_t sum = 0;
    for (int64_t c = 0; c < n; c++) sum += bits[c / 8] >> c % 8 & 1;
    return sum;
}

/* Of a million draws the share that is kept lies within four standard deviations; so do the shares
 * of every column modulo 8, which come from different parts of a draw. */
static void test_keep_rate_and_scale(void **state) {
    (void)state;
    static const double rates[] = {0.05, 0.1, 0.3, 0.5, 0.9};
    static uint8_t bits[BYTES];
    for (size_t p = 0; p < PF_COUNT(rates); p++) {
        const double rate = rates[p];
        const pf_dropout d = pf_dropout_make(rate, 42, 5, 1);
        assert_true(fabs(d.scale - 1 / (1 - rate)) < 1e-12);
        double kept = 0, by_column[8] = {0};
        enum { ROWS = 200 };
        for (uint32_t row = 0; row < ROWS; row++) {
            pf_dropout_bits_cpu(&d, row / 50, row % 50, WIDTH, bits);
            kept += (double)count(bits, WIDTH);
            for (int c = 0; c < WIDTH; c++) by_column[c % 8] += bits[c / 8] >> c % 8 & 1;
        }
        const double n = (double)ROWS * WIDTH, sd = sqrt(rate * (1 - rate) / n);
        assert_true(fabs(kept / n - (1 - rate)) < 4 * sd + 1e-5);
        for (int c = 0; c < 8; c++)
            assert_true(fabs(by_column[c] / (n / 8) - (1 - rate)) < 4.5 * sd * sqrt(8) + 1e-5);
    }
}

static void test_zero_keeps_everything(void **state) {
    (void)state;
    uint8_t bits[BYTES];
    const pf_dropout d = pf_dropout_make(0, 42, 5, 1);
    pf_dropout_bits_cpu(&d, 0, 0, WIDTH, bits);
    assert_int_equal(count(bits, WIDTH), WIDTH);
}

/* Seed, step, sample, position and key each give another mask; a shorter row is the beginning of a
 * longer one. */
static void test_what_a_mask_depends_on(void **state) {
    (void)state;
    enum { N = 512, MASKS = 6 };
    static const struct {
        uint64_t seed, step;
        uint32_t key, sample, pos;
    } from[MASKS] = {{1, 2, 3, 4, 5}, {2, 2, 3, 4, 5}, {1, 3, 3, 4, 5},
                     {1, 2, 4, 4, 5}, {1, 2, 3, 5, 5}, {1, 2, 3, 4, 6}};
    uint8_t bits[MASKS][N / 8], again[N / 8];
    for (int m = 0; m < MASKS; m++) {
        const pf_dropout d = pf_dropout_make(0.5, from[m].seed, from[m].step, from[m].key);
        pf_dropout_bits_cpu(&d, from[m].sample, from[m].pos, N, bits[m]);
        for (int o = 0; o < m; o++) { /* unrelated masks differ in about half of their bits */
            int64_t differ = 0;
            for (int q = 0; q < N / 8; q++) {
                uint8_t x = (uint8_t)(bits[m][q] ^ bits[o][q]);
                differ += count(&x, 8);
            }
            assert_in_range(differ, 200, 312);
        }
        pf_dropout_bits_cpu(&d, from[m].sample, from[m].pos, 128, again);
        assert_memory_equal(again, bits[m], 16);
    }
}

/* Attention: octets of keys for rows and heads side by side, and the rows' own masks under the same
 * numbers. All of them keep their share, and any two differ in about half of their bits. */
static void test_masks_of_attention(void **state) {
    (void)state;
    enum { N = 512, MASKS = 6 };
    static const struct {
        uint32_t key, sample, pos;
    } from[MASKS - 1] = {{5u << 16, 1, 9},
                         {(5u << 16) + 1, 1, 9},
                         {6u << 16, 1, 9},
                         {5u << 16, 2, 9},
                         {5u << 16, 1, 10}};
    uint32_t octet[N / 8], pos[N / 8], sample[N / 8], key[N / 8];
    uint8_t bits[MASKS][N / 8];
    const pf_dropout d = pf_dropout_make_attention(0.5, 7, 3, 0),
                     rows = pf_dropout_make(0.5, 7, 3, from[0].key);
    for (int m = 0; m < MASKS - 1; m++) {
        for (uint32_t q = 0; q < N / 8; q++) {
            octet[q] = q;
            pos[q] = from[m].pos;
            sample[q] = from[m].sample;
            key[q] = from[m].key;
        }
        pf_dropout_lanes_cpu(&d, octet, pos, sample, key, N / 8, bits[m]);
    }
    pf_dropout_bits_cpu(&rows, from[0].sample, from[0].pos, N, bits[MASKS - 1]);
    for (int m = 0; m < MASKS; m++) {
        assert_in_range(count(bits[m], N), 200, 312);
        for (int o = 0; o < m; o++) {
            int64_t differ = 0;
            for (int q = 0; q < N / 8; q++) {
                const uint8_t x = (uint8_t)(bits[m][q] ^ bits[o][q]);
                differ += count(&x, 8);
            }
            assert_in_range(differ, 200, 312);
        }
    }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isas_agree),
        cmocka_unit_test(test_lanes_agree),
        cmocka_unit_test(test_keep_rate_and_scale),
        cmocka_unit_test(test_zero_keeps_everything),
        cmocka_unit_test(test_what_a_mask_depends_on),
        cmocka_unit_test(test_masks_of_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
