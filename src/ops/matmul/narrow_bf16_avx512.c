/* narrow_bf16_avx512.c - bfloat16 products of narrow.h with AVX-512 BF16. vdpbf16ps treats
 * subnormal numbers as zero and rounds its two products one after the other. */
#include "ops/matmul/narrow_avx512.h"

/* The instruction by name: gcc copies the accumulator around its intrinsic. */
INLINE __m512i dot(__m512i acc, __m512i b, __m512i a) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(b), "v"(a));
    return acc;
}

/* 32 numbers from i on as bfloat16; those not in the masks are zero. */
INLINE __m512i narrow32(const pf_dtype t, const void *src, int64_t i, int64_t n) {
    if (t == PF_DTYPE_BF16) {
        const __mmask32 m = n >= 32 ? 0xffffffffu : n <= 0 ? 0 : (1u << n) - 1u;
        return _mm512_maskz_loadu_epi16(m, (const uint16_t *)src + i);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(widen(t, src, i + 16, mask_of(n - 16)),
                                        widen(t, src, i, mask_of(n)));
}

static void row(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                int32_t *sums, int32_t *rest_sums, pf_narrow_row *info) {
    (void)fold;
    (void)rest;
    (void)sums;
    (void)rest_sums;
    (void)info;
    for (int64_t i = 0; i < k; i += 32)
        _mm512_mask_storeu_epi32(words + i / 2, mask_of((k - i + 1) / 2),
                                 narrow32(PF_DTYPE_F32, x, i, k - i));
}

INLINE void pack16(const pf_dtype t, const void *const *rows, const int n, int64_t kc,
                   uint32_t *dst) {
    for (int64_t k = 0; k < kc; k += 32) {
        __m512i z[16];
        UNROLL
        for (int r = 0; r < 16; r++) {
            z[r] = narrow32(t, rows[r], k, r < n ? kc - k : 0);
            _mm_prefetch((const char *)rows[r] + k * (t == PF_DTYPE_F32 ? 4 : 2) + AHEAD,
                         _MM_HINT_T0);
        }
        turn16(z);
        const int64_t words = (kc - k + 1) / 2;
        UNROLL
        for (int w = 0; w < 16; w++) {
            if (w < words) _mm512_storeu_si512(dst + (k / 2 + w) * NR, z[w]);
        }
    }
}

static void pack_rows(pf_dtype t, const void *const *rows, const float *factor, int n, int64_t kc,
                      uint32_t *dst) {
    (void)factor;
    const void *r[NR];
    for (int j = 0; j < NR; j++) r[j] = rows[j < n ? j : 0];
    for (int h = 0; h < NR; h += 16) {
        if (t == PF_DTYPE_F32)
            pack16(PF_DTYPE_F32, r + h, n - h, kc, dst + h);
        else if (t == PF_DTYPE_BF16)
            pack16(PF_DTYPE_BF16, r + h, n - h, kc, dst + h);
        else
            pack16(PF_DTYPE_F16, r + h, n - h, kc, dst + h);
    }
}

/* 16 numbers as bfloat16 in the low halves of words. */
INLINE __m512i low16(const pf_dtype t, const void *src, int64_t i, __mmask16 m) {
    if (t == PF_DTYPE_BF16)
        return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const uint16_t *)src + i));
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(widen(t, src, i, m)));
}

INLINE __m512i two_rows(const pf_dtype t, const void *const rows[2], int n_rows, int64_t i,
                        __mmask16 m) {
    const __m512i second = low16(t, rows[1], i, n_rows > 1 ? m : 0);
    return _mm512_or_si512(low16(t, rows[0], i, m), _mm512_slli_epi32(second, 16));
}

INLINE void pack_two(const pf_dtype t, const void *const rows[2], int n_rows, int64_t n,
                     uint32_t *dst, int64_t stride) {
    for (int64_t i = 0; i < n; i += NR, dst += stride) {
        _mm512_storeu_si512(dst, two_rows(t, rows, n_rows, i, mask_of(n - i)));
        _mm512_storeu_si512(dst + 16, two_rows(t, rows, n_rows, i + 16, mask_of(n - i - 16)));
    }
}

static void pack_terms(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                       int64_t n, uint32_t *dst, int64_t stride) {
    (void)factor;
    const void *const r[2] = {rows[0], rows[n_rows - 1]};
    if (t == PF_DTYPE_F32)
        pack_two(PF_DTYPE_F32, r, n_rows, n, dst, stride);
    else if (t == PF_DTYPE_BF16)
        pack_two(PF_DTYPE_BF16, r, n_rows, n, dst, stride);
    else
        pack_two(PF_DTYPE_F16, r, n_rows, n, dst, stride);
}

INLINE void tile_rows(const int m, const pf_narrow_tile *t) {
    __m512i acc[MR][2];
    UNROLL
    for (int i = 0; i < m; i++) {
        acc[i][0] = acc[i][1] = _mm512_setzero_si512();
        _mm_prefetch((const char *)t->c[i], _MM_HINT_T0);
        _mm_prefetch((const char *)(t->c[i] + t->n - 1), _MM_HINT_T0);
    }
    PF_NARROW_LOOP(m, t, acc, dot);
    UNROLL
    for (int h = 0; h < 2; h++) {
        const __mmask16 keep = mask_of(t->n - 16 * h);
        UNROLL
        for (int i = 0; i < m; i++) {
            float *c = t->c[i] + 16 * h;
            __m512 v = _mm512_castsi512_ps(acc[i][h]);
            if (!t->first) v = _mm512_add_ps(_mm512_maskz_loadu_ps(keep, c), v);
            _mm512_mask_storeu_ps(c, keep, v);
        }
    }
}

PF_NARROW_TILES(tile_rows)

const pf_narrow_isa pf_narrow_bf16_avx512 = {.name = "bf16 avx512",
                                             .type = PF_COMPUTE_BF16,
                                             .mr = MR,
                                             .nr = NR,
                                             .row = row,
                                             .pack_rows = pack_rows,
                                             .pack_terms = pack_terms,
                                             .tile = tile};
