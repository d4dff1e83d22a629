/* rng.h - counter-based random numbers (Philox4x32-10; Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number depends on a key and a counter alone: no state to save, the
 * same on any number of threads, and a resumed run draws what the uninterrupted one would have
 * drawn. */
#ifndef PF_RNG_H
#define PF_RNG_H

#include <stdint.h>

typedef struct pf_rng_key {
    uint32_t k[2];
} pf_rng_key;

typedef struct pf_rng4 {
    uint32_t v[4];
} pf_rng4;

/* What a stream of numbers is for; part of the key, so that streams never meet. */
typedef enum pf_rng_use {
    PF_RNG_INIT = 1, /* initial weights */
    PF_RNG_DROPOUT,
    PF_RNG_SHUFFLE,   /* sample order */
    PF_RNG_SPLIT,     /* test_size */
    PF_RNG_SAMPLE,    /* generation */
    PF_RNG_DATA,      /* generated data and tests */
    PF_RNG_STEP_MASK, /* what is left out for a whole step */
    PF_RNG_ATTENTION_DROPOUT
} pf_rng_use;

pf_rng_key pf_rng_make_key(uint64_t seed, pf_rng_use use, uint64_t salt);
pf_rng4 pf_philox(pf_rng_key key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3);

/* [0, 1) with 24 bits (float) and 53 bits (double). */
float pf_rng_unit(uint32_t v);
double pf_rng_unit53(uint32_t hi, uint32_t lo);
/* n-th number of a stream: uniform double, standard normal (Box-Muller), integer below `bound`
 * without bias. */
double pf_rng_uniform_at(pf_rng_key key, uint64_t n);
double pf_rng_normal_at(pf_rng_key key, uint64_t n);
uint64_t pf_rng_below_at(pf_rng_key key, uint64_t n, uint64_t bound);

/* A permutation of 0..n-1 (Fisher-Yates), a function of the key alone. */
void pf_rng_permutation(pf_rng_key key, int64_t n, int64_t *out);

#endif
