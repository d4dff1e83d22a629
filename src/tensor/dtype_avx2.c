/* dtype_avx2.c - the rows of the half types with AVX2 and F16C: eight numbers at a time, the rest
 * one by one with the functions of dtype.h. Bit for bit what dtype.c computes, NaNs included
 * (tests/tensor/test_dtype.c tries all of them). */
#include "tensor/dtype.h"

#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>

void pf_f16_to_f32_avx2(const void *src, size_t n, float *dst) {
    const unsigned char *p = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i));
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(h));
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = pf_f16_to_f32(h);
    }
}

void pf_f32_to_f16_avx2(const float *src, size_t n, void *dst) {
    unsigned char *p = dst;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(p + 2 * i), h);
    }
    for (; i < n; i++) {
        uint16_t h = pf_f32_to_f16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}

void pf_bf16_to_f32_avx2(const void *src, size_t n, float *dst) {
    const unsigned char *p = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i));
        __m256i w = _mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16);
        _mm256_storeu_ps(dst + i, _mm256_castsi256_ps(w));
    }
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        dst[i] = pf_bf16_to_f32(h);
    }
}

void pf_f32_to_bf16_avx2(const float *src, size_t n, void *dst) {
    unsigned char *p = dst;
    const __m256i one = _mm256_set1_epi32(1), bias = _mm256_set1_epi32(0x7fff);
    const __m256i quiet = _mm256_set1_epi32(0x40);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 f = _mm256_loadu_ps(src + i);
        __m256i u = _mm256_castps_si256(f), top = _mm256_srli_epi32(u, 16);
        __m256i sum = _mm256_add_epi32(u, _mm256_add_epi32(bias, _mm256_and_si256(top, one)));
        __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
        __m256i r =
            _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_or_si256(top, quiet), nan);
        /* packus works in each half of the register; the permutation puts the two halves together
         */
        r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0xd8);
        _mm_storeu_si128((__m128i *)(void *)(p + 2 * i), _mm256_castsi256_si128(r));
    }
    for (; i < n; i++) {
        uint16_t h = pf_f32_to_bf16(src[i]);
        memcpy(p + 2 * i, &h, sizeof h);
    }
}
#endif
