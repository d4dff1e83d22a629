/* added_tokens.h - tokens that are found in the text before the model sees it: <s>, <|im_end|>,
 * runs of spaces.
 *
 * Tokens that are not `normalized` are looked for in the text as given; the others, themselves
 * normalized, in what the normalizer made of the rest. Of several that begin at one place the
 * longest wins, and the search goes on behind it.
 *
 * An id decodes to the token's normalized form, if that differs ("▁<s>"), and then does not count
 * as special when special tokens are skipped: so does `tokenizers` 0.23, and decoded text has to be
 * equal. `special` tells by id. */
#ifndef PF_ADDED_TOKENS_H
#define PF_ADDED_TOKENS_H

#include "base/map.h"
#include "token/byte_trie.h"
#include "token/normalizer.h"
#include "token/pretokenizer.h"
#include "token/vocab.h"

typedef struct pf_added_token {
    pf_str content; /* in the arena, terminated */
    pf_str text;    /* what it decodes to: content, or its normalized form */
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool skipped; /* left out when special tokens are skipped */
} pf_added_token;

typedef struct pf_added_tokens {
    pf_added_token *v;
    uint32_t n, cap;
    pf_map names;              /* content -> index */
    pf_trie plain, normalized; /* values are indices */
    int32_t *by_id;            /* index per id, -1: none */
    int32_t n_ids;
    int32_t next_id; /* for the next one that the model does not know */
} pf_added_tokens;

enum { PF_ADDED_TOKEN_MAX = 4096 }; /* bytes; it bounds the steps per byte of text */

void pf_added_tokens_init(pf_added_tokens *a);
void pf_added_tokens_release(pf_added_tokens *a);
/* Before each list of tokens: which id the first unknown one gets. */
void pf_added_tokens_begin(pf_added_tokens *a, const pf_vocab *model);
/* `wanted_id` is the file's, -1 if it gives none; the model's own id comes first, then the next
 * free one, as in `tokenizers`; exact: the file's id comes first. A content that is there already
 * takes the new properties. */
peft_status pf_added_tokens_add(pf_added_tokens *a, pf_arena *arena, const pf_vocab *model,
                                pf_added_token token, int64_t wanted_id, bool exact,
                                peft_error *err);
/* After the last one: normalized forms and the tries. */
peft_status pf_added_tokens_finish(pf_added_tokens *a, pf_arena *arena, const pf_normalizers *z,
                                   peft_error *err);

const pf_added_token *pf_added_token_by_id(const pf_added_tokens *a, int64_t id); /* or NULL */
const pf_added_token *pf_added_token_by_text(const pf_added_tokens *a, const char *text,
                                             size_t n); /* or NULL */

/* Cuts [begin, end) of t into tokens and text between; appends to out. */
peft_status pf_added_tokens_cut(const pf_added_tokens *a, const pf_trie *trie, const pf_ntext *t,
                                uint32_t begin, uint32_t end, pf_pieces *out, peft_error *err);

#endif
