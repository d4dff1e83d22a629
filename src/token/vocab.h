/* vocab.h - the model's tokens: bytes to id and id to bytes.
 *
 * A token is a string of bytes. With `bytes` set (byte-level vocabularies) tokens whose characters
 * all stand for bytes are kept as those bytes, so that the model can work on raw text; the few
 * others are kept as written and marked literal, and text never matches them. Ids may have holes;
 * two strings may not share an id with both reachable from it: the last one is what the id decodes
 * to. Filled once, then read-only. */
#ifndef PF_VOCAB_H
#define PF_VOCAB_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_vocab_entry {
    uint32_t at, n; /* place in blob */
    int32_t id;
    bool literal;
} pf_vocab_entry;

typedef struct pf_vocab_slot {
    uint32_t entry,
        tag; /* entry + 1, 0 is free; bits of the hash, so that strangers cost one look */
} pf_vocab_slot;

typedef struct pf_vocab {
    char *blob;
    uint32_t blob_n, blob_cap;
    pf_vocab_entry *entries;
    uint32_t n, cap; /* distinct strings */
    pf_vocab_slot *slots;
    uint32_t n_slots;
    int32_t *by_id; /* entry of each id, -1 for holes */
    int32_t n_ids;  /* largest id + 1 */
    bool bytes;
} pf_vocab;

void pf_vocab_init(pf_vocab *v, bool bytes);
void pf_vocab_release(pf_vocab *v);
/* As written in the file. A string that is there already gets the new id. */
peft_status pf_vocab_add(pf_vocab *v, const char *token, size_t n, int64_t id, peft_error *err);
/* Raw bytes of a byte-level vocabulary (tiktoken). */
peft_status pf_vocab_add_bytes(pf_vocab *v, const char *bytes, size_t n, int64_t id,
                               peft_error *err);
peft_status pf_vocab_finish(pf_vocab *v, peft_error *err); /* after the last one: by_id */

int32_t pf_vocab_id(const pf_vocab *v, const char *token, size_t n); /* as written; -1: none */
int32_t pf_vocab_find(const pf_vocab *v, const char *bytes,
                      size_t n); /* as the model sees it; -1: none */
bool pf_vocab_has(const pf_vocab *v, int64_t id);
/* What the model sees; p is NULL for a hole. */
pf_str pf_vocab_text(const pf_vocab *v, int32_t id);
/* As written, appended to out; false for a hole. */
bool pf_vocab_written(const pf_vocab *v, int32_t id, pf_buf *out);

#endif
