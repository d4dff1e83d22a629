/* dropout_avx512.c - sixteen calls of Philox at once; the bits of dropout.c.
 *
 * A counter stands in the low half of a 64-bit lane, where the multiply reads it; what is above it
 * means nothing. So a product is its own low half, one shift makes the high half, and the calls
 * with even and odd numbers are put side by side only at the end. */
#include "ops/matmul/dropout.h"

#include <immintrin.h>

typedef struct counters {
    __m512i c0, c1, c2, c3;
} counters;

static inline counters next_round(counters c, __m512i k0, __m512i k1) {
    const __m512i p0 = _mm512_mul_epu32(_mm512_set1_epi64(0xD2511F53), c.c0);
    const __m512i p1 = _mm512_mul_epu32(_mm512_set1_epi64(0xCD9E8D57), c.c2);
    return (counters){_mm512_ternarylogic_epi32(_mm512_srli_epi64(p1, 32), c.c1, k0, 0x96), p1,
                      _mm512_ternarylogic_epi32(_mm512_srli_epi64(p0, 32), c.c3, k1, 0x96), p0};
}

static inline __m512i beside(__m512i even, __m512i odd) {
    return _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

enum { ROUNDS = 10 };

typedef struct round_keys {
    __m512i k0[ROUNDS], k1[ROUNDS];
} round_keys;

static inline round_keys keys_of(const pf_dropout *d) {
    round_keys k;
    for (uint32_t r = 0; r < ROUNDS; r++) {
        k.k0[r] = _mm512_set1_epi32((int)(d->key.k[0] + r * 0x9E3779B9u));
        k.k1[r] = _mm512_set1_epi32((int)(d->key.k[1] + r * 0xBB67AE85u));
    }
    return k;
}

/* The bytes of calls a (even numbers) and b (odd). */
static inline __m128i bytes_of(const round_keys *k, counters a, counters b, __m512i threshold) {
    for (int r = 0; r < ROUNDS; r++) {
        a = next_round(a, k->k0[r], k->k1[r]);
        b = next_round(b, k->k0[r], k->k1[r]);
    }
    const __m512i word[4] = {beside(a.c0, b.c0), beside(a.c1, b.c1), beside(a.c2, b.c2),
                             beside(a.c3, b.c3)};
    __m512i sum = _mm512_setzero_si512();
    for (int w = 0; w < 4; w++) { /* low half: bit 2w, high half: bit 2w + 1 */
        const __mmask32 keep = _mm512_cmpge_epu16_mask(word[w], threshold);
        sum =
            _mm512_or_si512(sum, _mm512_maskz_mov_epi16(keep, _mm512_set1_epi32(0x20001 << 2 * w)));
    }
    sum = _mm512_or_si512(sum, _mm512_srli_epi32(sum, 16));
    return _mm512_cvtepi32_epi8(sum);
}

static inline __m512i load_even(const uint32_t *v) {
    return _mm512_loadu_si512((const void *)v);
}

void pf_dropout_lanes_avx512(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                             const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                             uint8_t *bits) {
    const __m512i threshold = _mm512_set1_epi16((short)d->threshold);
    const round_keys k = keys_of(d);
    for (int64_t l = 0; l < n; l += 16) {
        const counters a = {load_even(octet + l), load_even(pos + l), load_even(sample + l),
                            load_even(mask_key + l)};
        const counters b = {_mm512_srli_epi64(a.c0, 32), _mm512_srli_epi64(a.c1, 32),
                            _mm512_srli_epi64(a.c2, 32), _mm512_srli_epi64(a.c3, 32)};
        _mm_storeu_si128((__m128i *)(void *)(bits + l), bytes_of(&k, a, b, threshold));
    }
}

void pf_dropout_bits_avx512(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                            uint8_t *bits) {
    const __m512i threshold = _mm512_set1_epi16((short)d->threshold);
    const __m512i c1 = _mm512_set1_epi64(pos), c2 = _mm512_set1_epi64(sample),
                  c3 = _mm512_set1_epi64(d->mask_key), one = _mm512_set1_epi64(1);
    const round_keys k = keys_of(d);
    __m512i octet = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q += 16) {
        const counters a = {octet, c1, c2, c3}, b = {_mm512_add_epi64(octet, one), c1, c2, c3};
        _mm_storeu_si128((__m128i *)(void *)(bits + q), bytes_of(&k, a, b, threshold));
        octet = _mm512_add_epi64(octet, _mm512_set1_epi64(16));
    }
}
