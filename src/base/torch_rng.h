/* torch_rng.h - the numbers that torch's generator on the CPU draws (at::CPUGeneratorImpl: mt19937,
 * Matsumoto and Nishimura 1998), for files that hold a seed in place of numbers.
 *
 * Checked against torch 2.15: randperm, and uniform_ of f32 tensors. */
#ifndef PF_TORCH_RNG_H
#define PF_TORCH_RNG_H

#include "base/status.h"

#include <stdint.h>

typedef struct pf_torch_rng {
    uint32_t state[624];
    int at;
} pf_torch_rng;

void pf_torch_rng_init(pf_torch_rng *g, uint64_t seed); /* torch.Generator().manual_seed(seed) */
uint32_t pf_torch_rng_next(pf_torch_rng *g);
/* One element of tensor.uniform_(lo, hi), f32 */
float pf_torch_rng_uniform(pf_torch_rng *g, float lo, float hi);
/* The first k numbers of torch.randperm(n, generator=g); room for k numbers, not for n. */
peft_status pf_torch_rng_permutation(pf_torch_rng *g, int64_t n, int64_t k, int64_t *out,
                                     peft_error *err);

#endif
