/* sampler.h - choosing the next token from a row of logits.
 *
 * Order and meaning are those of Hugging Face's generate: repetition penalty (Keskar et al. 2019,
 * arXiv 1909.05858) on every token of prompt and continuation, temperature, top-k, top-p, min-p,
 * softmax, one draw. Without do_sample the largest logit after the penalty wins, the lower id among
 * equals. Draws are counter-based: a function of (seed, sequence, index of the token), not of how
 * sequences are batched. */
#ifndef PF_SAMPLER_H
#define PF_SAMPLER_H

#include "base/arena.h"
#include "tensor/real.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_sampling {
    bool do_sample;
    double temperature;        /* > 0; 1 changes nothing */
    int64_t top_k;             /* 0: off */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;
} pf_sampling;

pf_sampling pf_sampling_greedy(void);

typedef struct pf_sampler {
    pf_sampling how;
    int64_t vocab;
    pf_real *logits;   /* (V) working copy */
    int32_t *order;    /* (V) */
    unsigned char *in; /* (V) token seen */
} pf_sampler;

peft_status pf_sampler_init(pf_sampler *s, pf_arena *a, const pf_sampling *how, int64_t vocab,
                            peft_error *err);
/* The next token of a sequence whose tokens so far are `ids`; `sequence` and n_ids are the counter
 * of the draw. */
int32_t pf_sampler_next(pf_sampler *s, const pf_real *logits, const int32_t *ids, int64_t n_ids,
                        uint64_t sequence);

#endif
