/* torch_rng.c - see torch_rng.h. */
#include "base/torch_rng.h"

#include "base/mem.h"

#include <math.h>

enum { N = 624, M = 397 };

void pf_torch_rng_init(pf_torch_rng *g, uint64_t seed) {
    g->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++) {
        const uint32_t before = g->state[i - 1];
        g->state[i] = UINT32_C(1812433253) * (before ^ (before >> 30)) + i;
    }
    g->at = N;
}

uint32_t pf_torch_rng_next(pf_torch_rng *g) {
    if (g->at == N) {
        for (int k = 0; k < N; k++) {
            const uint32_t y = (g->state[k] & UINT32_C(0x80000000)) |
                               (g->state[(k + 1) % N] & UINT32_C(0x7fffffff));
            g->state[k] =
                g->state[(k + M) % N] ^ (y >> 1) ^ ((y & 1) != 0 ? UINT32_C(0x9908b0df) : 0);
        }
        g->at = 0;
    }
    uint32_t y = g->state[g->at++];
    y ^= y >> 11;
    y ^= (y << 7) & UINT32_C(0x9d2c5680);
    y ^= (y << 15) & UINT32_C(0xefc60000);
    return y ^ (y >> 18);
}

float pf_torch_rng_uniform(pf_torch_rng *g, float lo, float hi) {
    const float unit = (float)(pf_torch_rng_next(g) & 0xffffffu) * 0x1p-24f;
    return fmaf(unit, hi - lo, lo); /* torch's compiler contracts it */
}

/* Places of the array 0 .. n-1 that were exchanged; all others hold their own number. */
typedef struct places {
    int64_t *key, *value; /* key -1: free */
    uint64_t mask;
} places;

static int64_t *place(const places *p, int64_t i) {
    uint64_t h = (uint64_t)i * UINT64_C(0x9e3779b97f4a7c15);
    for (h = (h >> 20) & p->mask; p->key[h] != i; h = (h + 1) & p->mask) {
        if (p->key[h] >= 0) continue;
        p->key[h] = p->value[h] = i;
        break;
    }
    return &p->value[h];
}

/* torch exchanges element i with one of those from i on, in ascending i: the first k are done after
 * k exchanges. */
peft_status pf_torch_rng_permutation(pf_torch_rng *g, int64_t n, int64_t k, int64_t *out,
                                     peft_error *err) {
    uint64_t room = 16;
    while (room < 4 * (uint64_t)k) room *= 2;
    places p = {.key = pf_calloc(2 * room, sizeof *p.key), .mask = room - 1};
    if (p.key == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    p.value = p.key + room;
    for (uint64_t i = 0; i < room; i++) p.key[i] = -1;
    for (int64_t i = 0; i < k && i < n; i++) {
        const int64_t z = i < n - 1 ? (int64_t)(pf_torch_rng_next(g) % (uint64_t)(n - i)) : 0;
        int64_t *a = place(&p, i), *b = place(&p, i + z);
        const int64_t t = *a;
        *a = *b;
        *b = t;
        out[i] = *a;
    }
    pf_free(p.key);
    return PEFT_OK;
}
