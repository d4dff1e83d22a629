/* first_weights.c - see first_weights.h. */
#include "peft/first_weights.h"

#include "base/hash.h"
#include "base/rng.h"

#include <string.h>

static pf_rng_key key_of(const pf_param *p, uint64_t seed) {
    return pf_rng_make_key(seed, PF_RNG_INIT, pf_hash64(p->name, strlen(p->name), 0));
}

void pf_fill_constant(pf_param *p, double value) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) p->data[i] = (pf_real)value;
}

void pf_fill_uniform(pf_param *p, uint64_t seed, double bound) {
    const pf_rng_key key = key_of(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(bound * (2 * pf_rng_uniform_at(key, (uint64_t)i) - 1));
    }
}

void pf_fill_normal(pf_param *p, uint64_t seed, double std) {
    const pf_rng_key key = key_of(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(std * pf_rng_normal_at(key, (uint64_t)i));
    }
}
