/* rng.c - Philox4x32-10 and what is drawn from it; see rng.h. */
#include "base/rng.h"

#include <math.h>

pf_rng4 pf_philox(pf_rng_key key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = key.k[0], k1 = key.k[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0;
        c1 = (uint32_t)p1;
        c2 = n2;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (pf_rng4){{c0, c1, c2, c3}};
}

pf_rng_key pf_rng_make_key(uint64_t seed, pf_rng_use use, uint64_t salt) {
    pf_rng_key seed_key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    pf_rng4 r =
        pf_philox(seed_key, (uint32_t)use, (uint32_t)salt, (uint32_t)(salt >> 32), 0x70656674u);
    return (pf_rng_key){{r.v[0], r.v[1]}};
}

float pf_rng_unit(uint32_t v) {
    return (float)(v >> 8) * 0x1p-24f;
}

double pf_rng_unit53(uint32_t hi, uint32_t lo) {
    return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}

static pf_rng4 draw_at(pf_rng_key key, uint64_t n, uint32_t attempt) {
    return pf_philox(key, (uint32_t)n, (uint32_t)(n >> 32), attempt, 0);
}

double pf_rng_uniform_at(pf_rng_key key, uint64_t n) {
    pf_rng4 r = draw_at(key, n, 0);
    return pf_rng_unit53(r.v[0], r.v[1]);
}

double pf_rng_normal_at(pf_rng_key key, uint64_t n) {
    pf_rng4 r = draw_at(key, n, 0);
    double u = 1.0 - pf_rng_unit53(r.v[0], r.v[1]); /* (0, 1] */
    double angle = 6.283185307179586476925 * pf_rng_unit53(r.v[2], r.v[3]);
    return sqrt(-2.0 * log(u)) * cos(angle);
}

uint64_t pf_rng_below_at(pf_rng_key key, uint64_t n, uint64_t bound) {
    if (bound <= 1) return 0;
    uint64_t limit =
        UINT64_MAX - UINT64_MAX % bound; /* draws at or above it would favour small numbers */
    for (uint32_t attempt = 0;; attempt++) {
        pf_rng4 r = draw_at(key, n, attempt);
        uint64_t v = (uint64_t)r.v[0] << 32 | r.v[1];
        if (v < limit) return v % bound;
    }
}

void pf_rng_permutation(pf_rng_key key, int64_t n, int64_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)pf_rng_below_at(key, (uint64_t)i, (uint64_t)i + 1);
        int64_t t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
}
