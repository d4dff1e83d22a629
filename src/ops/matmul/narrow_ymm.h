/* narrow_ymm.h - the products of narrow.h in 256-bit registers, for processors without AVX-512. The
 * file that includes it has defined
 *     static inline __m256i dot8(__m256i acc, __m256i b, __m256i a)
 * which adds to each 32-bit lane of acc four products, bytes of b without sign by bytes of a with
 * sign. The tile is 6 x 16. */
#ifndef PF_NARROW_YMM_H
#define PF_NARROW_YMM_H

#include "ops/matmul/narrow.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { MR = 6, NR = 16, STRETCH = 32 /* terms at a time */ };

INLINE __m256 widen8(const pf_dtype t, const void *src, int64_t i) {
    if (t == PF_DTYPE_F32) return _mm256_loadu_ps((const float *)src + i);
    const __m128i h = _mm_loadu_si128((const void *)((const uint16_t *)src + i));
    if (t == PF_DTYPE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Terms [i, i + n) as STRETCH floats, zeros behind them. */
INLINE void stretch(const pf_dtype t, const void *src, int64_t i, int64_t n, __m256 v[4]) {
    if (n >= STRETCH) {
        UNROLL
        for (int q = 0; q < 4; q++) v[q] = widen8(t, src, i + 8 * q);
        return;
    }
    const int64_t size = t == PF_DTYPE_F32 ? 4 : 2;
    float room[STRETCH] = {0}; /* zero bytes are zeros in every type */
    memcpy(room, (const char *)src + i * size, (size_t)(n * size));
    UNROLL
    for (int q = 0; q < 4; q++) v[q] = widen8(t, room, 8 * q);
}

/* The whole numbers nearest to v * f as 32 bytes, in order. */
INLINE __m256i bytes_of(const __m256i q[4]) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i b =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    return _mm256_permutevar8x32_epi32(b, order);
}

INLINE int32_t sum_of(__m256i b) {
    const __m256i s =
        _mm256_sad_epu8(_mm256_xor_si256(b, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    int64_t lane[4];
    _mm256_storeu_si256((__m256i *)(void *)lane, s);
    return (int32_t)(lane[0] + lane[1] + lane[2] + lane[3]) - 128 * STRETCH;
}

/* --- rows of A ----------------------------------------------------------------------------- */

INLINE void folded(const float *x, const float *fold, int64_t i, int64_t n, __m256 v[4]) {
    __m256 f[4];
    stretch(PF_DTYPE_F32, x, i, n, v);
    if (fold == NULL) return;
    stretch(PF_DTYPE_F32, fold, i, n, f);
    UNROLL
    for (int q = 0; q < 4; q++) v[q] = _mm256_mul_ps(v[q], f[q]);
}

INLINE void quantize(const bool second, const float *x, const float *fold, int64_t k, float inverse,
                     float scale, uint32_t *words, int32_t *sums) {
    const __m256 f = _mm256_set1_ps(inverse), s = _mm256_set1_ps(scale);
    const __m256 finer = _mm256_set1_ps(inverse * 254);
    for (int64_t i = 0; i < k; i += STRETCH) {
        const int64_t block = i / (4 * PF_NARROW_BLOCK), n = k - i;
        __m256 v[4];
        __m256i q[4];
        folded(x, fold, i, n, v);
        UNROLL
        for (int u = 0; u < 4; u++) {
            q[u] = _mm256_cvtps_epi32(_mm256_mul_ps(v[u], f));
            if (!second) continue;
            const __m256 left = _mm256_sub_ps(v[u], _mm256_mul_ps(_mm256_cvtepi32_ps(q[u]), s));
            q[u] = _mm256_cvtps_epi32(_mm256_mul_ps(left, finer));
        }
        const __m256i b = bytes_of(q);
        if (i % (4 * PF_NARROW_BLOCK) == 0) sums[block] = 0;
        sums[block] += sum_of(b);
        uint32_t word[8];
        _mm256_storeu_si256((__m256i *)(void *)word, b);
        memcpy(words + i / 4, word, (size_t)(n >= STRETCH ? 8 : (n + 3) / 4) * sizeof *word);
    }
}

static void int8_row(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                     int32_t *sums, int32_t *rest_sums, pf_narrow_row *info) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 top = _mm256_setzero_ps(), square[2] = {top, top};
    for (int64_t i = 0; i < k; i += STRETCH) {
        __m256 v[4];
        folded(x, fold, i, k - i, v);
        UNROLL
        for (int q = 0; q < 4; q++) { /* lane i % 16, as narrow_plain.c adds */
            top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v[q]));
            square[q % 2] = _mm256_add_ps(square[q % 2], _mm256_mul_ps(v[q], v[q]));
        }
    }
    float lane[16], tops[8], total = 0, most = 0;
    _mm256_storeu_ps(lane, square[0]);
    _mm256_storeu_ps(lane + 8, square[1]);
    _mm256_storeu_ps(tops, top);
    for (int l = 0; l < 16; l++) total += lane[l];
    for (int l = 0; l < 8; l++) most = tops[l] > most ? tops[l] : most;
    *info = (pf_narrow_row){.scale = NAN};
    if (!(total < INFINITY)) {
        memset(words, 0, (size_t)((k + 3) / 4) * sizeof *words);
        memset(sums, 0, (size_t)((k + 4 * PF_NARROW_BLOCK - 1) / (4 * PF_NARROW_BLOCK)) * 4);
        return;
    }
    if (most < PF_NARROW_TINY) most = 0;
    const float inverse = most > 0 ? 127 / most : 0, scale = most / 127;
    quantize(false, x, fold, k, inverse, scale, words, sums);
    info->scale = scale;
    const float outlier = PF_NARROW_OUTLIER;
    if (rest == NULL || !(most * most * (float)k > outlier * outlier * total)) return;
    info->rest_scale = scale / 254;
    quantize(true, x, fold, k, inverse, scale, rest, rest_sums);
}

/* --- panels of B --------------------------------------------------------------------------- */

INLINE void pack_row(const pf_dtype t, const void *row, float factor, int64_t kc, uint32_t *dst) {
    const __m256 f = _mm256_set1_ps(factor);
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    for (int64_t k = 0; k < kc; k += STRETCH) {
        __m256 v[4];
        __m256i q[4];
        stretch(t, row, k, kc - k, v);
        UNROLL
        for (int u = 0; u < 4; u++) q[u] = _mm256_cvtps_epi32(_mm256_mul_ps(v[u], f));
        uint32_t word[8];
        _mm256_storeu_si256((__m256i *)(void *)word, _mm256_xor_si256(bytes_of(q), flip));
        for (int w = 0; w < 8 && k + 4 * w < kc; w++) dst[(k / 4 + w) * NR] = word[w];
    }
}

static void int8_pack_rows(pf_dtype t, const void *const *rows, const float *factor, int n,
                           int64_t kc, uint32_t *dst) {
    for (int j = 0; j < NR; j++) {
        const void *row = rows[j < n ? j : 0]; /* a row that is missing is row 0 times zero */
        const float f = j < n ? factor[j] : 0;
        if (t == PF_DTYPE_F32)
            pack_row(PF_DTYPE_F32, row, f, kc, dst + j);
        else if (t == PF_DTYPE_BF16)
            pack_row(PF_DTYPE_BF16, row, f, kc, dst + j);
        else
            pack_row(PF_DTYPE_F16, row, f, kc, dst + j);
    }
}

static void int8_pack_terms(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                            int64_t n, uint32_t *dst, int64_t stride) {
    const __m256i low = _mm256_set1_epi32(0xff), flip = _mm256_set1_epi8((char)0x80);
    for (int64_t j = 0; j < n; j += STRETCH) {
        __m256i word[4] = {flip, flip, flip, flip};
        for (int r = 0; r < n_rows; r++) {
            const __m256 f = _mm256_set1_ps(factor[r]);
            __m256 v[4];
            stretch(t, rows[r], j, n - j, v);
            UNROLL
            for (int u = 0; u < 4; u++) {
                const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(v[u], f));
                const __m256i byte = _mm256_slli_epi32(_mm256_and_si256(q, low), 8 * r);
                word[u] = _mm256_xor_si256(word[u], byte);
            }
        }
        for (int u = 0; u < 4 && (j + 8 * u) / NR * NR < n; u++) {
            const int64_t at = j + 8 * u;
            _mm256_storeu_si256((__m256i *)(void *)(dst + at / NR * stride + at % NR), word[u]);
        }
    }
}

/* --- tile ---------------------------------------------------------------------------------- */

INLINE void tile_rows(const int m, const pf_narrow_tile *t) {
    __m256i acc[MR][2];
    const uint32_t *a = t->a, *b = t->b;
    const int64_t lda = t->lda;
    UNROLL
    for (int i = 0; i < m; i++) acc[i][0] = acc[i][1] = _mm256_set1_epi32(t->start[i]);
    for (int64_t k = 0; k < t->kw; k++, b += NR) {
        const __m256i b0 = _mm256_loadu_si256((const __m256i *)(const void *)b);
        const __m256i b1 = _mm256_loadu_si256((const __m256i *)(const void *)(b + 8));
        UNROLL
        for (int i = 0; i < m; i++) {
            const __m256i v = _mm256_set1_epi32((int)a[i * lda + k]);
            acc[i][0] = dot8(acc[i][0], b0, v);
            acc[i][1] = dot8(acc[i][1], b1, v);
        }
    }
    for (int i = 0; i < m; i++) {
        float out[NR];
        const __m256 scale = _mm256_set1_ps(t->scale[i]);
        _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i][0]), scale));
        _mm256_storeu_ps(out + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(acc[i][1]), scale));
        float *c = t->c[i];
        for (int j = 0; j < t->n; j++) {
            const float v = t->col_scale != NULL ? out[j] * t->col_scale[j] : out[j];
            c[j] = t->first ? v : c[j] + v;
        }
    }
}

static void int8_tile(const pf_narrow_tile *t) {
    switch (t->m) {
    case 1:
        tile_rows(1, t);
        break;
    case 2:
        tile_rows(2, t);
        break;
    case 3:
        tile_rows(3, t);
        break;
    case 4:
        tile_rows(4, t);
        break;
    case 5:
        tile_rows(5, t);
        break;
    default:
        tile_rows(6, t);
        break;
    }
}

#endif
