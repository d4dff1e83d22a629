/* dropout_avx2.c - eight calls of Philox at once; the bits of dropout.c. Counters stand as in
 * dropout_avx512.c. */
#include "ops/matmul/dropout.h"

#include <immintrin.h>

typedef struct counters {
    __m256i c0, c1, c2, c3;
} counters;

static inline counters next_round(counters c, __m256i k0, __m256i k1) {
    const __m256i p0 = _mm256_mul_epu32(_mm256_set1_epi64x(0xD2511F53), c.c0);
    const __m256i p1 = _mm256_mul_epu32(_mm256_set1_epi64x(0xCD9E8D57), c.c2);
    return (counters){_mm256_xor_si256(_mm256_srli_epi64(p1, 32), _mm256_xor_si256(c.c1, k0)), p1,
                      _mm256_xor_si256(_mm256_srli_epi64(p0, 32), _mm256_xor_si256(c.c3, k1)), p0};
}

static inline __m256i beside(__m256i even, __m256i odd) {
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

enum { ROUNDS = 10 };

typedef struct round_keys {
    __m256i k0[ROUNDS], k1[ROUNDS];
} round_keys;

static inline round_keys keys_of(const pf_dropout *d) {
    round_keys k;
    for (uint32_t r = 0; r < ROUNDS; r++) {
        k.k0[r] = _mm256_set1_epi32((int)(d->key.k[0] + r * 0x9E3779B9u));
        k.k1[r] = _mm256_set1_epi32((int)(d->key.k[1] + r * 0xBB67AE85u));
    }
    return k;
}

/* The eight bytes of calls a (even numbers) and b (odd), low. */
static inline __m128i bytes_of(const round_keys *k, counters a, counters b, __m256i threshold) {
    for (int r = 0; r < ROUNDS; r++) {
        a = next_round(a, k->k0[r], k->k1[r]);
        b = next_round(b, k->k0[r], k->k1[r]);
    }
    const __m256i word[4] = {beside(a.c0, b.c0), beside(a.c1, b.c1), beside(a.c2, b.c2),
                             beside(a.c3, b.c3)};
    __m256i sum = _mm256_setzero_si256();
    for (int w = 0; w < 4; w++) { /* low half: bit 2w, high half: bit 2w + 1 */
        const __m256i keep = _mm256_cmpeq_epi16(_mm256_max_epu16(word[w], threshold), word[w]);
        sum = _mm256_or_si256(sum, _mm256_and_si256(keep, _mm256_set1_epi32(0x20001 << 2 * w)));
    }
    sum =
        _mm256_and_si256(_mm256_or_si256(sum, _mm256_srli_epi32(sum, 16)), _mm256_set1_epi32(0xff));
    /* the low byte of each lane, in order */
    const __m128i half =
        _mm_packus_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return _mm_packus_epi16(half, half);
}

static inline __m256i load_even(const uint32_t *v) {
    return _mm256_loadu_si256((const __m256i *)(const void *)v);
}

void pf_dropout_lanes_avx2(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                           const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                           uint8_t *bits) {
    const __m256i threshold = _mm256_set1_epi16((short)d->threshold);
    const round_keys k = keys_of(d);
    for (int64_t l = 0; l < n; l += 8) {
        const counters a = {load_even(octet + l), load_even(pos + l), load_even(sample + l),
                            load_even(mask_key + l)};
        const counters b = {_mm256_srli_epi64(a.c0, 32), _mm256_srli_epi64(a.c1, 32),
                            _mm256_srli_epi64(a.c2, 32), _mm256_srli_epi64(a.c3, 32)};
        _mm_storel_epi64((__m128i *)(void *)(bits + l), bytes_of(&k, a, b, threshold));
    }
}

void pf_dropout_bits_avx2(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                          uint8_t *bits) {
    const __m256i threshold = _mm256_set1_epi16((short)d->threshold);
    const __m256i c1 = _mm256_set1_epi64x(pos), c2 = _mm256_set1_epi64x(sample),
                  c3 = _mm256_set1_epi64x(d->mask_key), one = _mm256_set1_epi64x(1);
    const round_keys k = keys_of(d);
    __m256i octet = _mm256_setr_epi64x(0, 2, 4, 6);
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q += 8) {
        const counters a = {octet, c1, c2, c3}, b = {_mm256_add_epi64(octet, one), c1, c2, c3};
        _mm_storel_epi64((__m128i *)(void *)(bits + q), bytes_of(&k, a, b, threshold));
        octet = _mm256_add_epi64(octet, _mm256_set1_epi64x(8));
    }
}
