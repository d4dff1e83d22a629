/* dropout.c - masks in plain C; see dropout.h. */
#include "ops/matmul/dropout.h"

static pf_dropout make(double p, pf_rng_key key, uint32_t mask_key) {
    const double threshold = p * 65536 + 0.5;
    return (pf_dropout){.key = key,
                        .threshold = threshold < 65535 ? (uint32_t)threshold : 65535,
                        .scale = 1 / (1 - p),
                        .mask_key = mask_key};
}

pf_dropout pf_dropout_make(double p, uint64_t seed, uint64_t step, uint32_t mask_key) {
    return make(p, pf_rng_make_key(seed, PF_RNG_DROPOUT, step), mask_key);
}

pf_dropout pf_dropout_make_attention(double p, uint64_t seed, uint64_t step, uint32_t mask_key) {
    return make(p, pf_rng_make_key(seed, PF_RNG_ATTENTION_DROPOUT, step), mask_key);
}

static uint8_t byte_of(const pf_dropout *d, pf_rng4 draws) {
    uint8_t b = 0;
    for (int i = 0; i < 8; i++) b = (uint8_t)(b | pf_dropout_keeps(d, draws, i) << i);
    return b;
}

void pf_dropout_lanes_cpu(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                          const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                          uint8_t *bits) {
    for (int64_t l = 0; l < n; l++)
        bits[l] = byte_of(d, pf_philox(d->key, octet[l], pos[l], sample[l], mask_key[l]));
}

void pf_dropout_bits_cpu(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                         uint8_t *bits) {
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q++)
        bits[q] = byte_of(d, pf_dropout_draw(d, sample, pos, (uint32_t)q));
}
