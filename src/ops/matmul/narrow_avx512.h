/* narrow_avx512.h - what both types of narrow.h share under AVX-512: loads that widen, the turn of
 * 16 rows of 16 words, and the tile's loop around one multiply-add of words. */
#ifndef PF_NARROW_AVX512_H
#define PF_NARROW_AVX512_H

#include "ops/matmul/narrow.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { MR = 14, NR = 32, AHEAD = 512 /* bytes */ };

INLINE __mmask16 mask_of(int64_t n) {
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1u);
}

/* Stored numbers i .. i + 15 as floats; those not in the mask are zero. */
INLINE __m512 widen(const pf_dtype t, const void *src, int64_t i, __mmask16 m) {
    if (t == PF_DTYPE_F32) return _mm512_maskz_loadu_ps(m, (const float *)src + i);
    const __m256i h = _mm256_maskz_loadu_epi16(m, (const uint16_t *)src + i);
    if (t == PF_DTYPE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* 16 rows of 16 words become 16 columns. */
INLINE void turn16(__m512i r[16]) {
    __m512i t[16];
    UNROLL
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        const __m512i e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    UNROLL
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* acc[i][h] += a[i, k] · b[k, 16 h ..], all k. DOT(acc, b, a) is the multiply-add of words. Rows
 * i = 3j + r at p[j] + r * lda: five pointers and one index fit the address modes. */
#define PF_NARROW_LOOP(m, t, acc, DOT)                                                             \
    do {                                                                                           \
        const int64_t lda = (t)->lda;                                                              \
        const uint32_t *b = (t)->b, *p[5];                                                         \
        UNROLL                                                                                     \
        for (int j = 0; j < 5; j++) p[j] = (t)->a + 3 * (3 * j < (m) ? j : 0) * lda;               \
        for (int64_t k = 0; k < (t)->kw; k++, b += NR) {                                           \
            const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);             \
            UNROLL                                                                                 \
            for (int i = 0; i < (m); i++) {                                                        \
                const __m512i v = _mm512_set1_epi32((int)p[i / 3][i % 3 * lda]);                   \
                (acc)[i][0] = DOT((acc)[i][0], b0, v);                                             \
                (acc)[i][1] = DOT((acc)[i][1], b1, v);                                             \
            }                                                                                      \
            UNROLL                                                                                 \
            for (int j = 0; j < 5; j++) {                                                          \
                if (3 * j >= (m)) continue;                                                        \
                p[j]++;                                                                            \
                __asm__("" : "+r"(p[j])); /* keep them, rather than one pointer per row */         \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#define PF_NARROW_TILES(fn)                                                                        \
    static void tile_1(const pf_narrow_tile *t) {                                                  \
        fn(1, t);                                                                                  \
    }                                                                                              \
    static void tile_2(const pf_narrow_tile *t) {                                                  \
        fn(2, t);                                                                                  \
    }                                                                                              \
    static void tile_3(const pf_narrow_tile *t) {                                                  \
        fn(3, t);                                                                                  \
    }                                                                                              \
    static void tile_4(const pf_narrow_tile *t) {                                                  \
        fn(4, t);                                                                                  \
    }                                                                                              \
    static void tile_5(const pf_narrow_tile *t) {                                                  \
        fn(5, t);                                                                                  \
    }                                                                                              \
    static void tile_6(const pf_narrow_tile *t) {                                                  \
        fn(6, t);                                                                                  \
    }                                                                                              \
    static void tile_7(const pf_narrow_tile *t) {                                                  \
        fn(7, t);                                                                                  \
    }                                                                                              \
    static void tile_8(const pf_narrow_tile *t) {                                                  \
        fn(8, t);                                                                                  \
    }                                                                                              \
    static void tile_9(const pf_narrow_tile *t) {                                                  \
        fn(9, t);                                                                                  \
    }                                                                                              \
    static void tile_10(const pf_narrow_tile *t) {                                                 \
        fn(10, t);                                                                                 \
    }                                                                                              \
    static void tile_11(const pf_narrow_tile *t) {                                                 \
        fn(11, t);                                                                                 \
    }                                                                                              \
    static void tile_12(const pf_narrow_tile *t) {                                                 \
        fn(12, t);                                                                                 \
    }                                                                                              \
    static void tile_13(const pf_narrow_tile *t) {                                                 \
        fn(13, t);                                                                                 \
    }                                                                                              \
    static void tile_14(const pf_narrow_tile *t) {                                                 \
        fn(14, t);                                                                                 \
    }                                                                                              \
    static void tile(const pf_narrow_tile *t) {                                                    \
        static void (*const by_rows[MR + 1])(const pf_narrow_tile *) = {                           \
            NULL,   tile_1, tile_2,  tile_3,  tile_4,  tile_5,  tile_6, tile_7,                    \
            tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14};                          \
        by_rows[t->m](t);                                                                          \
    }

#endif
