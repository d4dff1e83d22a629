/* dropout.h - the random masks of the low-rank ops, shared by every kernel so that they cannot
 * differ. */
#ifndef PF_DROPOUT_H
#define PF_DROPOUT_H

#include "base/rng.h"

#include <stdbool.h>

typedef struct pf_dropout {
    pf_rng_key key;
    uint32_t threshold; /* keep while the draw is >= threshold */
    float scale;        /* 1 / (1 - p) */
    uint32_t mask_key;
} pf_dropout;

pf_dropout pf_dropout_make(double p, uint64_t seed, uint64_t step, uint32_t mask_key);
/* The four draws for columns 4 * quad .. 4 * quad + 3 of the row (sample, pos). */
static inline pf_rng4 pf_dropout_draw(const pf_dropout *d, uint32_t sample, uint32_t pos,
                                      uint32_t quad) {
    return pf_philox(d->key, quad, pos, sample, d->mask_key);
}

#endif
