/* dropout.c - masks in plain C; see dropout.h. */
#include "ops/matmul/dropout.h"

pf_dropout pf_dropout_make(double p, uint64_t seed, uint64_t step, uint32_t mask_key) {
    const double threshold = p * 65536 + 0.5;
    return (pf_dropout){.key = pf_rng_make_key(seed, PF_RNG_DROPOUT, step),
                        .threshold = threshold < 65535 ? (uint32_t)threshold : 65535,
                        .scale = 1 / (1 - p),
                        .mask_key = mask_key};
}

void pf_dropout_bits_cpu(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                         uint8_t *bits) {
    const int64_t octets = pf_dropout_bytes(n);
    for (int64_t q = 0; q < octets; q++) {
        pf_rng4 draws = pf_dropout_draw(d, sample, pos, (uint32_t)q);
        uint8_t b = 0;
        for (int i = 0; i < 8; i++) b = (uint8_t)(b | pf_dropout_keeps(d, draws, i) << i);
        bits[q] = b;
    }
}
