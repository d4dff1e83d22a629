/* bpe.h - byte-pair encoding: byte-level, or over characters with fall-back to bytes or to an
 * unknown token.
 *
 * A word starts as its characters (or raw bytes); of all neighbouring pairs that may merge, the one
 * with the lowest rank, leftmost first, merges, until none is left. Short words do that by
 * scanning, long ones with a heap: O(n log n).
 *
 * Models without a pre-tokenizer (SentencePiece's) hand over a whole document as one word. It is
 * cut where no merge can ever reach across, that is between two characters that stand side by side
 * in no merge; the result is the same. */
#ifndef PF_BPE_H
#define PF_BPE_H

#include "token/token_model.h"
#include "token/vocab.h"

typedef struct pf_merge {
    int32_t left, right; /* left == -1: free slot */
    uint32_t rank;
    int32_t id; /* what they become */
} pf_merge;

typedef struct pf_bpe {
    const pf_vocab *vocab; /* borrowed */
    pf_merge *merges;      /* open addressing */
    uint32_t n_merges, n_slots;
    /* options, set before pf_bpe_finish */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool has_unk;
    pf_str unk;            /* unk_token, as written */
    pf_str prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix, as the model sees them;
                              up to 200 bytes */
    /* from here on made by pf_bpe_finish */
    int32_t unk_id;       /* -1: not in the vocabulary */
    int32_t byte_id[256]; /* byte-level: the byte's own token; else its <0xNN>; -1: none */
    bool cuts;            /* a word may be cut between characters that are neighbours in no merge */
    uint32_t *neighbours; /* which pairs of characters are, as a hashed bit set */
} pf_bpe;

void pf_bpe_init(pf_bpe *m, const pf_vocab *vocab);
void pf_bpe_release(pf_bpe *m);
/* Room for n merges; then one call each in order of rank (0 first). A pair given twice keeps its
 * last rank. */
peft_status pf_bpe_reserve(pf_bpe *m, size_t n, peft_error *err);
peft_status pf_bpe_merge(pf_bpe *m, uint32_t rank, int32_t left, int32_t right, int32_t id,
                         peft_error *err);
peft_status pf_bpe_finish(pf_bpe *m, peft_error *err);

/* `out` holds this piece's tokens alone afterwards. */
peft_status pf_bpe_encode(const pf_bpe *m, pf_model_scratch *s, const char *p, uint32_t n,
                          pf_tokens *out, peft_error *err);

#endif
