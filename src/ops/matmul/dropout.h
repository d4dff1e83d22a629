/* dropout.h - the random masks of rows and of attention, shared by every kernel so that they cannot
 * differ.
 *
 * The mask is a function of (adapter seed, step, sample, position, mask_key, column) alone. Eight
 * neighbouring columns take their 16-bit draws from one call of Philox: column 8q + i of the row
 * (sample, pos) is kept when draw i of (q, pos, sample, mask_key) is at least `threshold`. So p is
 * met to 1/131072; what is kept is scaled by 1 / (1 - p) as given.
 *
 * Of attention's probabilities, those of row (sample, pos), head h and the keys at positions 8q + i
 * take draw i of (q, pos, sample, mask_key + h), under a key of their own: a row sees one key at a
 * position. */
#ifndef PF_DROPOUT_H
#define PF_DROPOUT_H

#include "base/rng.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_dropout {
    pf_rng_key key;
    uint32_t threshold; /* of 65536; 0 keeps everything */
    double scale;       /* 1 / (1 - p) */
    uint32_t mask_key;
} pf_dropout;

pf_dropout pf_dropout_make(double p, uint64_t seed, uint64_t step, uint32_t mask_key);
pf_dropout pf_dropout_make_attention(double p, uint64_t seed, uint64_t step, uint32_t mask_key);

/* Draw i (0..7) of columns 8 * octet .. 8 * octet + 7: half i % 2, low first, of word i / 2. */
static inline bool pf_dropout_keeps(const pf_dropout *d, pf_rng4 draws, int i) {
    return (draws.v[i / 2] >> (16 * (i % 2)) & 0xffffu) >= d->threshold;
}
static inline pf_rng4 pf_dropout_draw(const pf_dropout *d, uint32_t sample, uint32_t pos,
                                      uint32_t octet) {
    return pf_philox(d->key, octet, pos, sample, d->mask_key);
}

/* Bytes of a row's mask of n columns, so many that a kernel may write and read whole vectors. */
static inline int64_t pf_dropout_bytes(int64_t n) {
    return (n + 127) / 128 * 16;
}

/* The mask of one row: bit i of bits[q] is 1 when column 8q + i is kept. Fills pf_dropout_bytes(n)
 * bytes; the bits beyond n mean nothing. */
typedef void (*pf_dropout_fn)(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                              uint8_t *bits);
void pf_dropout_bits_cpu(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                         uint8_t *bits);
void pf_dropout_bits_avx2(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                          uint8_t *bits);
void pf_dropout_bits_avx512(const pf_dropout *d, uint32_t sample, uint32_t pos, int64_t n,
                            uint8_t *bits);

/* n counters at once, a multiple of 16: bit i of bits[l] is 1 when draw i of (octet[l], pos[l],
 * sample[l], mask_key[l]) keeps. */
typedef void (*pf_dropout_lanes_fn)(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                                    const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                                    uint8_t *bits);
void pf_dropout_lanes_cpu(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                          const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                          uint8_t *bits);
void pf_dropout_lanes_avx2(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                           const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                           uint8_t *bits);
void pf_dropout_lanes_avx512(const pf_dropout *d, const uint32_t *octet, const uint32_t *pos,
                             const uint32_t *sample, const uint32_t *mask_key, int64_t n,
                             uint8_t *bits);

#endif
