/* narrow_int8_avx512.c - 8-bit products of narrow.h with AVX-512 VNNI: vpdpbusd multiplies bytes
 * without sign (the weight plus 128) by bytes with sign (A); what the 128 adds is known from the
 * sums of A's rows and is where a tile's sums begin. */
#include "ops/matmul/narrow_avx512.h"

#include <math.h>
#include <string.h>

/* Whole numbers nearest to v * f, 16 each in four registers -> 64 bytes: word 4 * (d % 4) + d / 4
 * of them in lane d. */
INLINE __m512i bytes_of(const __m512i q[4]) {
    return _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
}

static int word_in_lane(int lane) {
    return 4 * (lane % 4) + lane / 4;
}

/* --- rows of A ----------------------------------------------------------------------------- */

INLINE __m512 folded(const float *x, const float *fold, int64_t i, __mmask16 m) {
    const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
    return fold != NULL ? _mm512_mul_ps(v, _mm512_maskz_loadu_ps(m, fold + i)) : v;
}

INLINE void quantize(const bool second, const float *x, const float *fold, int64_t k, float inverse,
                     float scale, uint32_t *words, int32_t *sums) {
    const __m512 f = _mm512_set1_ps(inverse), s = _mm512_set1_ps(scale);
    const __m512 finer = _mm512_set1_ps(inverse * 254);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i ones = _mm512_set1_epi8(1);
    for (int64_t k0 = 0, block = 0; k0 < k; k0 += 4 * PF_NARROW_BLOCK, block++) {
        const int64_t k1 = k0 + 4 * PF_NARROW_BLOCK < k ? k0 + 4 * PF_NARROW_BLOCK : k;
        __m512i sum = _mm512_setzero_si512();
        for (int64_t i = k0; i < k1; i += 64) {
            __m512i q[4];
            UNROLL
            for (int v = 0; v < 4; v++) {
                const __m512 y = folded(x, fold, i + 16 * v, mask_of(k1 - i - 16 * v));
                q[v] = _mm512_cvtps_epi32(_mm512_mul_ps(y, f));
                if (!second) continue;
                const __m512 left = _mm512_sub_ps(y, _mm512_mul_ps(_mm512_cvtepi32_ps(q[v]), s));
                q[v] = _mm512_cvtps_epi32(_mm512_mul_ps(left, finer));
            }
            const __m512i b = _mm512_permutexvar_epi32(order, bytes_of(q));
            sum = _mm512_dpbusd_epi32(sum, ones, b);
            _mm512_mask_storeu_epi32(words + i / 4, mask_of((k1 - i + 3) / 4), b);
        }
        sums[block] = _mm512_reduce_add_epi32(sum);
    }
}

static void row(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                int32_t *sums, int32_t *rest_sums, pf_narrow_row *info) {
    __m512 top = _mm512_setzero_ps(), square = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += 16) {
        const __m512 v = folded(x, fold, i, mask_of(k - i));
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
        square = _mm512_add_ps(square, _mm512_mul_ps(v, v));
    }
    float lane[16], total = 0, most = _mm512_reduce_max_ps(top);
    _mm512_storeu_ps(lane, square);
    for (int l = 0; l < 16; l++) total += lane[l]; /* the order of narrow_plain.c */
    *info = (pf_narrow_row){.scale = NAN};
    if (!(total < INFINITY)) { /* not finite */
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

INLINE float largest_of(const pf_dtype t, const void *src, int64_t n) {
    __m512 top = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        const __m512 v = _mm512_abs_ps(widen(t, src, i, mask_of(n - i)));
        top = _mm512_max_ps(top, v);
        odd = _mm512_add_ps(odd, _mm512_sub_ps(v, v)); /* 0, or NaN where one is not finite */
    }
    return _mm512_reduce_max_ps(top) + _mm512_reduce_add_ps(odd);
}

static float largest(pf_dtype t, const void *src, int64_t n) {
    return t == PF_DTYPE_F32    ? largest_of(PF_DTYPE_F32, src, n)
           : t == PF_DTYPE_BF16 ? largest_of(PF_DTYPE_BF16, src, n)
                                : largest_of(PF_DTYPE_F16, src, n);
}

INLINE __m512i rounded(const pf_dtype t, const void *src, int64_t i, __mmask16 m, __m512 factor) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(widen(t, src, i, m), factor));
}

INLINE void pack16(const pf_dtype t, const void *const *rows, const float *factor, int64_t kc,
                   uint32_t *dst) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    for (int64_t k = 0; k < kc; k += 64) {
        __m512i z[16];
        UNROLL
        for (int r = 0; r < 16; r++) {
            const __m512 f = _mm512_set1_ps(factor[r]);
            __m512i q[4];
            UNROLL
            for (int v = 0; v < 4; v++)
                q[v] = rounded(t, rows[r], k + 16 * v, mask_of(kc - k - 16 * v), f);
            z[r] = _mm512_xor_si512(bytes_of(q), flip);
            _mm_prefetch((const char *)rows[r] + k * (t == PF_DTYPE_F32 ? 4 : 2) + AHEAD,
                         _MM_HINT_T0);
        }
        turn16(z);
        const int64_t words = (kc - k + 3) / 4;
        UNROLL
        for (int d = 0; d < 16; d++) {
            const int w = word_in_lane(d);
            if (w < words) _mm512_storeu_si512(dst + (k / 4 + w) * NR, z[d]);
        }
    }
}

static void pack_rows(pf_dtype t, const void *const *rows, const float *factor, int n, int64_t kc,
                      uint32_t *dst) {
    const void *r[NR]; /* a row that is missing is row 0 times zero */
    float f[NR];
    for (int j = 0; j < NR; j++) {
        r[j] = rows[j < n ? j : 0];
        f[j] = j < n ? factor[j] : 0;
    }
    for (int h = 0; h < NR; h += 16) {
        if (t == PF_DTYPE_F32)
            pack16(PF_DTYPE_F32, r + h, f + h, kc, dst + h);
        else if (t == PF_DTYPE_BF16)
            pack16(PF_DTYPE_BF16, r + h, f + h, kc, dst + h);
        else
            pack16(PF_DTYPE_F16, r + h, f + h, kc, dst + h);
    }
}

INLINE __m512i four_rows(const pf_dtype t, const void *const rows[4], const __m512 f[4], int64_t i,
                         __mmask16 m) {
    const __m512i low = _mm512_set1_epi32(0xff);
    __m512i q[4];
    UNROLL
    for (int r = 0; r < 4; r++) q[r] = rounded(t, rows[r], i, m, f[r]);
    __m512i w = _mm512_and_si512(q[0], low);
    w = _mm512_or_si512(w, _mm512_slli_epi32(_mm512_and_si512(q[1], low), 8));
    w = _mm512_or_si512(w, _mm512_slli_epi32(_mm512_and_si512(q[2], low), 16));
    w = _mm512_or_si512(w, _mm512_slli_epi32(q[3], 24));
    return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80));
}

INLINE void pack_four(const pf_dtype t, const void *const rows[4], const float *factor, int64_t n,
                      uint32_t *dst, int64_t stride) {
    __m512 f[4];
    UNROLL
    for (int r = 0; r < 4; r++) f[r] = _mm512_set1_ps(factor[r]);
    for (int64_t i = 0; i < n; i += NR, dst += stride) {
        _mm512_storeu_si512(dst, four_rows(t, rows, f, i, mask_of(n - i)));
        _mm512_storeu_si512(dst + 16, four_rows(t, rows, f, i + 16, mask_of(n - i - 16)));
    }
}

static void pack_terms(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                       int64_t n, uint32_t *dst, int64_t stride) {
    const void *r[4];
    float f[4];
    for (int i = 0; i < 4; i++) {
        r[i] = rows[i < n_rows ? i : 0];
        f[i] = i < n_rows ? factor[i] : 0;
    }
    if (t == PF_DTYPE_F32)
        pack_four(PF_DTYPE_F32, r, f, n, dst, stride);
    else if (t == PF_DTYPE_BF16)
        pack_four(PF_DTYPE_BF16, r, f, n, dst, stride);
    else
        pack_four(PF_DTYPE_F16, r, f, n, dst, stride);
}

/* --- tile ---------------------------------------------------------------------------------- */

/* The instruction by name: gcc copies the accumulator around its intrinsic. */
INLINE __m512i dot(__m512i acc, __m512i b, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(b), "v"(a));
    return acc;
}

INLINE void tile_rows(const int m, const pf_narrow_tile *t) {
    __m512i acc[MR][2];
    UNROLL
    for (int i = 0; i < m; i++) {
        acc[i][0] = acc[i][1] = _mm512_set1_epi32(t->start[i]);
        _mm_prefetch((const char *)t->c[i], _MM_HINT_T0);
        _mm_prefetch((const char *)(t->c[i] + t->n - 1), _MM_HINT_T0);
    }
    PF_NARROW_LOOP(m, t, acc, dot);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __mmask16 keep = mask_of(t->n - 16 * h);
        const __m512 col = t->col_scale != NULL ? _mm512_maskz_loadu_ps(keep, t->col_scale + 16 * h)
                                                : _mm512_set1_ps(1);
        UNROLL
        for (int i = 0; i < m; i++) {
            float *c = t->c[i] + 16 * h;
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[i][h]), _mm512_set1_ps(t->scale[i]));
            v = _mm512_mul_ps(v, col);
            if (!t->first) v = _mm512_add_ps(_mm512_maskz_loadu_ps(keep, c), v);
            _mm512_mask_storeu_ps(c, keep, v);
        }
    }
}

PF_NARROW_TILES(tile_rows)

const pf_narrow_isa pf_narrow_int8_avx512 = {.name = "int8 avx512vnni",
                                             .type = PF_COMPUTE_INT8,
                                             .mr = MR,
                                             .nr = NR,
                                             .row = row,
                                             .pack_rows = pack_rows,
                                             .pack_terms = pack_terms,
                                             .tile = tile,
                                             .largest = largest};
