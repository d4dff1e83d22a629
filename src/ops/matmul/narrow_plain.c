/* narrow_plain.c - the reference of narrow.h in plain C, for both types. */
#include "ops/matmul/narrow.h"

#include <math.h>
#include <string.h>

enum { MR = 4, NR = 16, LANES = 16 };

static float stored(pf_dtype t, const void *row, int64_t i) {
    if (t == PF_DTYPE_F32) {
        float f;
        memcpy(&f, (const char *)row + i * 4, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)row + i * 2, sizeof h);
    return t == PF_DTYPE_BF16 ? pf_bf16_to_f32(h) : pf_f16_to_f32(h);
}

/* Puts value v at term `lane` of a word. */
static void put(uint32_t *word, int bits, int lane, uint32_t v) {
    const uint32_t mask = bits == 8 ? 0xffu : 0xffffu;
    *word = (*word & ~(mask << (bits * lane))) | (v & mask) << (bits * lane);
}

/* --- int8 ---------------------------------------------------------------------------------- */

/* Integer numbers of a row and the sums of each block; what is left stays in `left` (NULL: not
 * wanted). x times fold is made anew, so that nothing is kept. */
static void quantize(const float *x, const float *fold, int64_t k, float inverse, float scale,
                     float second, uint32_t *words, int32_t *sums) {
    for (int64_t i = 0; i < k; i++) {
        const float v = fold != NULL ? x[i] * fold[i] : x[i];
        int q = (int)rintf(v * inverse);
        if (second > 0) { /* of what the first row left */
            const float left = v - (float)q * scale;
            q = (int)rintf(left * second);
        }
        if (i % 4 == 0) words[i / 4] = 0;
        put(&words[i / 4], 8, (int)(i % 4), (uint32_t)q);
        const int64_t block = i / (4 * PF_NARROW_BLOCK);
        if (i % (4 * PF_NARROW_BLOCK) == 0) sums[block] = 0;
        sums[block] += q;
    }
}

static void int8_row(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                     int32_t *sums, int32_t *rest_sums, pf_narrow_row *info) {
    float top = 0, square[LANES] = {0}, total = 0; /* lanes, so that every instruction set can
                                                      add in this order */
    for (int64_t i = 0; i < k; i++) {
        const float v = fold != NULL ? x[i] * fold[i] : x[i];
        top = fabsf(v) > top ? fabsf(v) : top;
        square[i % LANES] += v * v;
    }
    for (int l = 0; l < LANES; l++) total += square[l];
    *info = (pf_narrow_row){.scale = NAN};
    const bool finite = total < INFINITY; /* false for a NaN */
    if (!finite) {
        memset(words, 0, (size_t)((k + 3) / 4) * sizeof *words);
        memset(sums, 0, (size_t)((k + 4 * PF_NARROW_BLOCK - 1) / (4 * PF_NARROW_BLOCK)) * 4);
        return;
    }
    if (top < PF_NARROW_TINY) top = 0;
    const float inverse = top > 0 ? 127 / top : 0, scale = top / 127;
    quantize(x, fold, k, inverse, scale, 0, words, sums);
    info->scale = scale;
    const float outlier = PF_NARROW_OUTLIER;
    if (rest == NULL || !(top * top * (float)k > outlier * outlier * total)) return;
    info->rest_scale = scale / 254;
    quantize(x, fold, k, inverse, scale, inverse * 254, rest, rest_sums);
}

static uint32_t byte_of(float v) {
    if (!(v > -128 && v < 128)) return 0; /* not finite: the scale says so */
    return (uint32_t)((int)rintf(v) + 128);
}

static void int8_pack_rows(pf_dtype t, const void *const *rows, const float *factor, int n,
                           int64_t kc, uint32_t *dst) {
    for (int64_t w = 0; w < (kc + 3) / 4; w++) {
        for (int j = 0; j < NR; j++) {
            dst[w * NR + j] = 0x80808080u;
            for (int l = 0; l < 4 && j < n && w * 4 + l < kc; l++)
                put(&dst[w * NR + j], 8, l, byte_of(stored(t, rows[j], w * 4 + l) * factor[j]));
        }
    }
}

static void int8_pack_terms(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                            int64_t n, uint32_t *dst, int64_t stride) {
    for (int64_t j = 0; j < (n + NR - 1) / NR * NR; j++) {
        uint32_t *word = &dst[j / NR * stride + j % NR];
        *word = 0x80808080u;
        for (int l = 0; l < n_rows && j < n; l++)
            put(word, 8, l, byte_of(stored(t, rows[l], j) * factor[l]));
    }
}

static void int8_tile(const pf_narrow_tile *t) {
    for (int i = 0; i < t->m; i++) {
        for (int j = 0; j < t->n; j++) {
            int32_t sum = t->start[i];
            for (int64_t k = 0; k < t->kw; k++) {
                const uint32_t a = t->a[i * t->lda + k], b = t->b[k * NR + j];
                for (int l = 0; l < 4; l++)
                    sum += (int32_t)(b >> 8 * l & 0xff) * (int8_t)(a >> 8 * l & 0xff);
            }
            float v = (float)sum * t->scale[i];
            if (t->col_scale != NULL) v *= t->col_scale[j];
            t->c[i][j] = t->first ? v : t->c[i][j] + v;
        }
    }
}

const pf_narrow_isa pf_narrow_int8_plain = {.name = "int8 reference",
                                            .type = PF_COMPUTE_INT8,
                                            .mr = MR,
                                            .nr = NR,
                                            .row = int8_row,
                                            .pack_rows = int8_pack_rows,
                                            .pack_terms = int8_pack_terms,
                                            .tile = int8_tile};

/* --- bf16 ---------------------------------------------------------------------------------- */

static void bf16_row(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                     int32_t *sums, int32_t *rest_sums, pf_narrow_row *info) {
    (void)fold;
    (void)rest;
    (void)sums;
    (void)rest_sums;
    (void)info;
    for (int64_t i = 0; i < k; i++) {
        if (i % 2 == 0) words[i / 2] = 0;
        put(&words[i / 2], 16, (int)(i % 2), pf_f32_to_bf16(x[i]));
    }
}

static void bf16_pack_rows(pf_dtype t, const void *const *rows, const float *factor, int n,
                           int64_t kc, uint32_t *dst) {
    (void)factor;
    for (int64_t w = 0; w < (kc + 1) / 2; w++) {
        for (int j = 0; j < NR; j++) {
            dst[w * NR + j] = 0;
            for (int l = 0; l < 2 && j < n && w * 2 + l < kc; l++)
                put(&dst[w * NR + j], 16, l, pf_f32_to_bf16(stored(t, rows[j], w * 2 + l)));
        }
    }
}

static void bf16_pack_terms(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                            int64_t n, uint32_t *dst, int64_t stride) {
    (void)factor;
    for (int64_t j = 0; j < (n + NR - 1) / NR * NR; j++) {
        uint32_t *word = &dst[j / NR * stride + j % NR];
        *word = 0;
        for (int l = 0; l < n_rows && j < n; l++)
            put(word, 16, l, pf_f32_to_bf16(stored(t, rows[l], j)));
    }
}

static void bf16_tile(const pf_narrow_tile *t) {
    for (int i = 0; i < t->m; i++) {
        for (int j = 0; j < t->n; j++) {
            float sum = 0;
            for (int64_t k = 0; k < t->kw; k++) {
                const uint32_t a = t->a[i * t->lda + k], b = t->b[k * NR + j];
                sum += pf_f32_of_bits(a << 16) * pf_f32_of_bits(b << 16);
                sum += pf_f32_of_bits(a & 0xffff0000u) * pf_f32_of_bits(b & 0xffff0000u);
            }
            t->c[i][j] = t->first ? sum : t->c[i][j] + sum;
        }
    }
}

const pf_narrow_isa pf_narrow_bf16_plain = {.name = "bf16 reference",
                                            .type = PF_COMPUTE_BF16,
                                            .mr = MR,
                                            .nr = NR,
                                            .row = bf16_row,
                                            .pack_rows = bf16_pack_rows,
                                            .pack_terms = bf16_pack_terms,
                                            .tile = bf16_tile};
