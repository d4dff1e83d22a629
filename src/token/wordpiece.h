/* wordpiece.h - BERT's WordPiece: the longest token that a word begins with, then the longest that
 * the rest begins with, written with a prefix ("##"), and so on; a word that cannot be spelled so,
 * or has too many characters, is one unknown token (Wu et al. 2016, arXiv 1609.08144). */
#ifndef PF_WORDPIECE_H
#define PF_WORDPIECE_H

#include "token/token_model.h"
#include "token/vocab.h"

enum { PF_WORDPIECE_WORD_MAX = 1000, PF_WORDPIECE_PREFIX_MAX = 16 };

typedef struct pf_wordpiece {
    const pf_vocab *vocab; /* borrowed */
    int32_t unk_id;        /* -1: none */
    int64_t max_chars;     /* of a word, at most PF_WORDPIECE_WORD_MAX */
    char prefix[PF_WORDPIECE_PREFIX_MAX + 1];
} pf_wordpiece;

/* `out` holds this piece's tokens alone afterwards. */
peft_status pf_wordpiece_encode(const pf_wordpiece *m, pf_model_scratch *s, const char *p,
                                uint32_t n, pf_tokens *out, peft_error *err);

#endif
