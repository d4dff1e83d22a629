/* dropout_avx2.c - eight calls of Philox at once; the bits of dropout.c. */
#include "ops/matmul/dropout.h"

#include <immintrin.h>

/* High and low halves of the 64-bit products of 8 lanes with m. */
static inline void multiply(__m256i m, __m256i a, __m256i *hi, __m256i *lo) {
    const __m256i even = _mm256_mul_epu32(m, a);
    const __m256i odd = _mm256_mul_epu32(m, _mm256_srli_epi64(a, 32));
    *lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

void pf_dropout_bits_avx2(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                          uint8_t *bits) {
    const __m256i m0 = _mm256_set1_epi32((int)0xD2511F53u),
                  m1 = _mm256_set1_epi32((int)0xCD9E8D57u);
    const __m256i threshold = _mm256_set1_epi16((short)d->threshold);
    __m256i octet = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q += 8) {
        __m256i c0 = octet, c1 = _mm256_set1_epi32((int)pos), c2 = _mm256_set1_epi32((int)sample);
        __m256i c3 = _mm256_set1_epi32((int)d->mask_key);
        uint32_t k0 = d->key.k[0], k1 = d->key.k[1];
        for (int round = 0; round < 10; round++) {
            __m256i hi0, lo0, hi1, lo1;
            multiply(m0, c0, &hi0, &lo0);
            multiply(m1, c2, &hi1, &lo1);
            c0 = _mm256_xor_si256(_mm256_xor_si256(hi1, c1), _mm256_set1_epi32((int)k0));
            c2 = _mm256_xor_si256(_mm256_xor_si256(hi0, c3), _mm256_set1_epi32((int)k1));
            c1 = lo1;
            c3 = lo0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const __m256i word[4] = {c0, c1, c2, c3};
        __m256i sum = _mm256_setzero_si256();
        for (int w = 0; w < 4; w++) { /* low half: bit 2w, high half: bit 2w + 1 */
            const __m256i keep = _mm256_cmpeq_epi16(_mm256_max_epu16(word[w], threshold), word[w]);
            sum = _mm256_or_si256(sum, _mm256_and_si256(keep, _mm256_set1_epi32(0x20001 << 2 * w)));
        }
        sum = _mm256_and_si256(_mm256_or_si256(sum, _mm256_srli_epi32(sum, 16)),
                               _mm256_set1_epi32(0xff));
        /* the low byte of each lane, in order */
        const __m128i half =
            _mm_packus_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        _mm_storel_epi64((__m128i *)(void *)(bits + q), _mm_packus_epi16(half, half));
        octet = _mm256_add_epi32(octet, _mm256_set1_epi32(8));
    }
}
