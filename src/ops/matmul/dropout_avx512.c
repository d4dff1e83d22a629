/* dropout_avx512.c - sixteen calls of Philox at once; the bits of dropout.c. */
#include "ops/matmul/dropout.h"

#include <immintrin.h>

/* High and low halves of the 64-bit products of 16 lanes with m. */
static inline void multiply(__m512i m, __m512i a, __m512i *hi, __m512i *lo) {
    const __m512i even = _mm512_mul_epu32(m, a);
    const __m512i odd = _mm512_mul_epu32(m, _mm512_srli_epi64(a, 32));
    *lo = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
    *hi = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
}

void pf_dropout_bits_avx512(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                            uint8_t *bits) {
    const __m512i m0 = _mm512_set1_epi32((int)0xD2511F53u),
                  m1 = _mm512_set1_epi32((int)0xCD9E8D57u);
    const __m512i threshold = _mm512_set1_epi16((short)d->threshold);
    __m512i octet = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q += 16) {
        __m512i c0 = octet, c1 = _mm512_set1_epi32((int)pos), c2 = _mm512_set1_epi32((int)sample);
        __m512i c3 = _mm512_set1_epi32((int)d->mask_key);
        uint32_t k0 = d->key.k[0], k1 = d->key.k[1];
        for (int round = 0; round < 10; round++) {
            __m512i hi0, lo0, hi1, lo1;
            multiply(m0, c0, &hi0, &lo0);
            multiply(m1, c2, &hi1, &lo1);
            c0 = _mm512_ternarylogic_epi32(hi1, c1, _mm512_set1_epi32((int)k0), 0x96);
            c2 = _mm512_ternarylogic_epi32(hi0, c3, _mm512_set1_epi32((int)k1), 0x96);
            c1 = lo1;
            c3 = lo0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const __m512i word[4] = {c0, c1, c2, c3};
        __m512i sum = _mm512_setzero_si512();
        for (int w = 0; w < 4; w++) { /* low half: bit 2w, high half: bit 2w + 1 */
            const __mmask32 keep = _mm512_cmpge_epu16_mask(word[w], threshold);
            sum = _mm512_or_si512(
                sum, _mm512_maskz_mov_epi16(keep, _mm512_set1_epi32(0x20001 << 2 * w)));
        }
        sum = _mm512_or_si512(sum, _mm512_srli_epi32(sum, 16));
        _mm_storeu_si128((__m128i *)(void *)(bits + q), _mm512_cvtepi32_epi8(sum));
        octet = _mm512_add_epi32(octet, _mm512_set1_epi32(16));
    }
}
