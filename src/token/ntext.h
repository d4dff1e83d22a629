/* ntext.h - text on its way through the tokenizer that knows where it came from.
 *
 * A pf_ntext is valid UTF-8; each of its bytes carries the range of bytes of the original text that
 * it stands for (all bytes of one character carry the same range). As long as nothing was changed
 * the ranges are not stored: a byte then stands for its own character, `origin` bytes into the
 * original text.
 *
 * A normalizer reads one pf_ntext and appends to another through a pf_ncursor, which follows the
 * alignment rules of Hugging Face's NormalizedString::transform, so that offsets come out as
 * theirs: change  0   the character stands in the place of the next one of the input change  n   n
 * > 0: it is added; it shares the range of what came before change -n   it stands in the place of
 * the next one, and the n after that are gone */
#ifndef PF_NTEXT_H
#define PF_NTEXT_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PF_NTEXT_MAX 0x3fffffffu /* bytes; offsets are 32 bits */

typedef struct pf_ntext {
    const char *text; /* n bytes: `own`, or borrowed from the caller */
    uint32_t n;
    bool aligned;        /* from[] and to[] are in use */
    uint32_t origin;     /* place of text[0] in the original text while not aligned */
    uint32_t *from, *to; /* per byte */
    char *own;
    uint32_t cap, align_cap;
    uint32_t limit; /* most bytes it may grow to; 0 is PF_NTEXT_MAX */
} pf_ntext;

void pf_ntext_release(pf_ntext *t);
void pf_ntext_clear(pf_ntext *t); /* empty, aligned, memory kept */
/* Borrow a run of the original text that is valid UTF-8, unchanged; or make a copy of [begin, end)
 * of another. */
void pf_ntext_borrow(pf_ntext *t, const char *text, uint32_t n, uint32_t origin);
peft_status pf_ntext_append(pf_ntext *t, const pf_ntext *src, uint32_t begin, uint32_t end,
                            peft_error *err);
peft_status pf_ntext_add(pf_ntext *t, const char *bytes, uint32_t n, uint32_t from, uint32_t to,
                         peft_error *err);
/* Any bytes: every maximal invalid sequence becomes U+FFFD. Borrows when there is none. */
peft_status pf_ntext_set(pf_ntext *t, const char *text, size_t n, peft_error *err);

/* Bytes of the original text that [begin, end) stands for. */
void pf_ntext_range(const pf_ntext *t, uint32_t begin, uint32_t end, uint32_t *from, uint32_t *to);

typedef struct pf_ncursor {
    const pf_ntext *in;
    pf_ntext *out; /* aligned */
    uint32_t pos;  /* byte of the input that the next change takes */
} pf_ncursor;

void pf_ncursor_skip(pf_ncursor *c, uint32_t n_chars); /* gone, before anything was put */
peft_status pf_ncursor_put(pf_ncursor *c, uint32_t cp, int64_t change, peft_error *err);
peft_status pf_ncursor_copy(pf_ncursor *c, uint32_t n_bytes,
                            peft_error *err); /* unchanged characters */

/* Memory that grows to hold `need` elements, contents kept; NULL when it cannot, and then the old
 * block is still good. */
void *pf_token_grown(void *data, uint32_t *cap, size_t need, size_t size);
/* Inside a function that returns peft_status: `ptr` (any object type) holds `need` elements
 * afterwards, or it fails. */
#define PF_TOKEN_GROW(ptr, cap, need, err)                                                         \
    do {                                                                                           \
        if ((size_t)(need) > (cap)) {                                                              \
            void *grown_ = pf_token_grown((ptr), &(cap), (size_t)(need), sizeof *(ptr));           \
            if (grown_ == NULL)                                                                    \
                return PF_FAIL((err), PEFT_E_NOMEM, "out of memory in the tokenizer");             \
            (ptr) = grown_;                                                                        \
        }                                                                                          \
    } while (0)

#endif
