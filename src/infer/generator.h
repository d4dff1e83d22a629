/* generator.h - continuing sequences with a KV cache.
 *
 * A generator is one build of a model in GENERATE mode with a cache of `max_sequences` slots of
 * `max_length` rows. A run takes any number of prompts, keeps as many as there are slots in work,
 * and fills a slot with the next prompt as soon as its sequence ends; every pass is one ragged
 * batch of new tokens (prefill chunks and single tokens together). What a sequence becomes does not
 * depend on its neighbours.
 *
 * A model with an encoder reads the prompt there, once; the decoder continues from its start.
 *
 * Life cycle: new -> run* -> free. The model, its adapter's weights and the backend are borrowed.
 */
#ifndef PF_GENERATOR_H
#define PF_GENERATOR_H

#include "backend/backend.h"
#include "graph/exec.h"
#include "infer/sampler.h"
#include "nn/model.h"

#include <signal.h>

typedef struct pf_generator pf_generator;

typedef struct pf_generator_options {
    int max_sequences;
    int64_t max_length; /* prompt and continuation together; cut to the model's positions, less
                           those that an adapter's learned prompt or prefix takes */
    int64_t max_source; /* with an encoder: prompts of so many tokens, and max_length is that of the
                           continuation and its start; 0: as max_length */
    int64_t max_tokens; /* rows of a pass; 0: 512, at least max_sequences */
    bool adapters;      /* false: the bare base */
    bool fuse;
    const pf_exec *lender; /* whose arena may be used (graph/exec.h), or NULL */
} pf_generator_options;

typedef enum pf_finish {
    PF_FINISH_EOS,    /* an end-of-sequence token, not part of the continuation */
    PF_FINISH_STOP,   /* the callback said so */
    PF_FINISH_LENGTH, /* max_new_tokens */
    PF_FINISH_CONTEXT /* max_length */
} pf_finish;

/* Called for each new token of a sequence; returns true to stop it after this token. */
typedef bool (*pf_token_fn)(void *ctx, int sequence, int32_t id);

typedef struct pf_generation {
    const int32_t *prompt; /* in */
    int32_t n_prompt;
    int32_t *ids; /* out: room for max_new_tokens, by the caller */
    int32_t n_ids;
    pf_finish finish;
} pf_generation;

typedef struct pf_generate_options {
    pf_sampling sampling;
    int32_t max_new_tokens;
    const int32_t *eos; /* ids that end a sequence */
    int n_eos;
    pf_token_fn on_token; /* or NULL */
    void *ctx;
    const volatile sig_atomic_t *stop_signal; /* not 0: give up with PEFT_E_INTERRUPTED; or NULL */
} pf_generate_options;

peft_status pf_generator_new(pf_generator **out, pf_model *model, pf_backend *be,
                             const pf_generator_options *opt, peft_error *err);
void pf_generator_free(pf_generator *g);
/* A prompt that leaves no room for a token fails with its index, its length and the limit. */
peft_status pf_generator_run(pf_generator *g, const pf_generate_options *opt, pf_generation *items,
                             int n, peft_error *err);
int64_t pf_generator_cache_bytes(const pf_generator *g);
int64_t pf_generator_arena_bytes(const pf_generator *g); /* needed, lent or not */
int64_t pf_generator_other_bytes(const pf_generator *g); /* graph and batch */

#endif
