/* unigram.h - SentencePiece's unigram model: of all ways to spell a piece with tokens, the one with
 * the highest sum of scores (Viterbi; scores are log probabilities, in double as `tokenizers` has
 * them). A character that no token covers costs the lowest score minus 10; runs of such characters
 * become one unknown token, or bytes. */
#ifndef PF_UNIGRAM_H
#define PF_UNIGRAM_H

#include "token/byte_trie.h"
#include "token/token_model.h"
#include "token/vocab.h"

typedef struct pf_unigram {
    const pf_vocab *vocab; /* borrowed; ids are places in the list */
    double *scores;        /* per id */
    uint32_t n, cap;
    double lowest;
    int32_t unk_id; /* -1: none */
    bool byte_fallback;
    pf_trie trie;
    int32_t byte_id[256]; /* <0xNN>, -1: none; made by finish */
    bool all_bytes;
} pf_unigram;

enum { PF_UNIGRAM_TOKEN_MAX = 4096 }; /* bytes; it bounds the steps per byte of text */

void pf_unigram_init(pf_unigram *m, const pf_vocab *vocab);
void pf_unigram_release(pf_unigram *m);
peft_status pf_unigram_add(pf_unigram *m, int32_t id, double score,
                           peft_error *err); /* ids in order */
peft_status pf_unigram_finish(pf_unigram *m, peft_error *err);
/* `out` holds this piece's tokens alone afterwards. */
peft_status pf_unigram_encode(const pf_unigram *m, pf_model_scratch *s, const char *p, uint32_t n,
                              pf_tokens *out, peft_error *err);

#endif
