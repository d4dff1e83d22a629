/* token_model.h - what BPE and unigram have in common: a piece of text goes in, tokens come out.
 *
 * A model is read-only; what it needs while it works is in a pf_model_scratch, one per thread at
 * work. The scratch keeps the results of short pieces in a small table. Results never depend on
 * what is in that table. */
#ifndef PF_TOKEN_MODEL_H
#define PF_TOKEN_MODEL_H

#include "base/status.h"
#include "token/ntext.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_token {
    int32_t id;
    uint32_t begin, end; /* bytes of the piece */
    bool unknown;
} pf_token;

typedef struct pf_tokens {
    pf_token *v;
    uint32_t n, cap;
} pf_tokens;

static inline peft_status pf_tokens_add(pf_tokens *t, pf_token token, peft_error *err) {
    PF_TOKEN_GROW(t->v, t->cap, (size_t)t->n + 1, err);
    t->v[t->n++] = token;
    return PEFT_OK;
}

enum { PF_RECALL_KEY = 26, PF_RECALL_IDS = 7, PF_RECALL_SLOTS = 8192 };

typedef struct pf_recall { /* one remembered piece, 64 bytes */
    int32_t ids[PF_RECALL_IDS];
    uint8_t lengths[PF_RECALL_IDS], n, count,
        unknown; /* bytes of the key, tokens, bit set of unknown ones */
    char key[PF_RECALL_KEY];
} pf_recall;

typedef struct pf_symbol { /* a part of a word while it is merged */
    int32_t id;
    uint32_t begin, end; /* bytes of the word; end == 0: merged into its left neighbour */
    int32_t prev, next;  /* -1 at the ends */
    bool unknown;
} pf_symbol;

typedef struct pf_merge_event {
    uint32_t rank, at;
    int32_t id;
} pf_merge_event;

typedef struct pf_best { /* best way to reach a byte */
    double score;
    uint32_t start; /* of its last token; UINT32_MAX: not reached */
    int32_t id;
} pf_best;

typedef struct pf_model_scratch {
    pf_recall *recall;
    pf_symbol *symbols;
    uint32_t n_symbols, symbols_cap;
    pf_merge_event *heap;
    uint32_t n_heap, heap_cap;
    pf_best *best;
    uint32_t best_cap;
    uint64_t work; /* elementary steps so far, for the tests of scaling */
} pf_model_scratch;

void pf_model_scratch_release(pf_model_scratch *s);
void pf_tokens_release(pf_tokens *t);

/* Appends the remembered tokens of a piece, `at` added to their places; false if it is not
 * remembered. */
bool pf_recall_find(pf_model_scratch *s, const char *p, uint32_t n, uint32_t at, pf_tokens *out,
                    peft_status *status, peft_error *err);
/* Remembers the last `count` tokens of `out` if they are few, short, and lie end to end from `at`.
 */
void pf_recall_keep(pf_model_scratch *s, const char *p, uint32_t n, uint32_t at,
                    const pf_tokens *out, uint32_t count);

#endif
