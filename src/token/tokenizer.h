/* tokenizer.h - text to token ids and back, equal to Hugging Face `tokenizers`.
 *
 * A tokenizer is read from a model folder or from one file:
 *   tokenizer.json                      the whole description
 *   tokenizer.model, spiece.model       SentencePiece (BPE or unigram), or tiktoken ranks as Llama
 * 3's vocab.json with merges.txt          GPT-2's and Qwen's in this order of preference in a
 * folder. Beside the file, tokenizer_config.json, special_tokens_map.json and added_tokens.json
 * name the special tokens; with a tokenizer.json they only add what is missing there. `truncation`
 * and `padding` in a tokenizer.json are ignored: whoever encodes decides what is cut.
 *
 * Invariants
 * - Invalid UTF-8 has one rule everywhere: each maximal invalid sequence counts as one U+FFFD (as
 * Python's errors="replace"); offsets still point into the bytes that were given. NUL bytes are
 * text.
 * - A tokenizer is read-only once open: any number of threads may encode and decode at once.
 * Results depend on nothing but the files and the text.
 * - Encoding takes O(n log n) steps, decoding O(n). Texts up to 1 GiB.
 *
 * Offsets: token i stands for bytes [from[i], to[i]) of the given text, whole characters always
 * (the byte tokens of one character share its range). They tell which bytes a token covers, with
 * its white space; PF_ENCODE_TRIM reports them as `tokenizers` does where the file says
 * trim_offsets. A prefix that was added ("▁") shares the range of the character after it. Special
 * tokens put before the text have [0, 0), those behind it [n, n).
 *
 * Life cycle: open -> (encode | decode)* from any thread -> close. */
#ifndef PF_TOKENIZER_H
#define PF_TOKENIZER_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_tokenizer pf_tokenizer;

peft_status pf_tokenizer_open(pf_tokenizer **out, const char *path,
                              peft_error *err); /* folder or file */
/* From the bytes of one file (which of the formats is seen from them); `name` is for messages. For
 * tests. */
peft_status pf_tokenizer_open_bytes(pf_tokenizer **out, const void *data, size_t n,
                                    const char *name, peft_error *err);
void pf_tokenizer_close(pf_tokenizer *t);

typedef struct pf_encoding {
    int32_t *ids;
    uint32_t *from, *to; /* bytes of the text */
    size_t n, cap;
    size_t n_before, n_after; /* special tokens put around the text, among the n */
    uint64_t work;            /* elementary steps the model took */
} pf_encoding;

void pf_encoding_release(pf_encoding *e);

enum {
    PF_ENCODE_SPECIAL = 1,  /* put the special tokens around the text that the tokenizer asks for */
    PF_ENCODE_CONTINUE = 2, /* the text goes on from another one: no dummy prefix at its start */
    PF_ENCODE_TRIM =
        4 /* offsets as `tokenizers` reports them, without white space where the file says so */
};

/* Zeroed or used encodings are fine; what was in `out` is replaced, its memory reused. */
peft_status pf_tokenizer_encode(const pf_tokenizer *t, const char *text, size_t n, unsigned flags,
                                pf_encoding *out, peft_error *err);
/* What the tokenizer puts around two texts: before the first (part 0), between them (1), behind the
 * second (2). */
const int32_t *pf_tokenizer_pair(const pf_tokenizer *t, int part, int *n);
/* Appends the text of the ids. Ids that are no token are left out. */
peft_status pf_tokenizer_decode(const pf_tokenizer *t, const int32_t *ids, size_t n,
                                bool skip_special, pf_buf *out, peft_error *err);

/* Decoding while tokens arrive: each add appends what is certain by now and holds back what may
 * still change, such as the first bytes of a character. All chunks and the end together are what
 * decoding all ids at once gives, except that a run of byte tokens is let go as soon as it is valid
 * UTF-8. */
typedef struct pf_decode_stream {
    const pf_tokenizer *tokenizer;
    bool skip_special;
    int32_t *ids; /* shown context, then what is held back */
    uint32_t n, cap, n_shown;
    pf_buf shown, all; /* text of the first n_shown ids, and of all */
} pf_decode_stream;

void pf_decode_stream_init(pf_decode_stream *s, const pf_tokenizer *t, bool skip_special);
peft_status pf_decode_stream_add(pf_decode_stream *s, int32_t id, pf_buf *out, peft_error *err);
peft_status pf_decode_stream_end(pf_decode_stream *s, pf_buf *out,
                                 peft_error *err); /* lets go of the rest */
void pf_decode_stream_release(pf_decode_stream *s);

/* ---- looking in ---- */

typedef struct pf_special_ids {
    int32_t bos, eos, pad, unk; /* -1: the tokenizer has none */
} pf_special_ids;

pf_special_ids pf_tokenizer_special(const pf_tokenizer *t);
int32_t pf_tokenizer_size(const pf_tokenizer *t);  /* largest id + 1: the rows an embedding needs */
int32_t pf_tokenizer_count(const pf_tokenizer *t); /* tokens, holes not counted */
int32_t pf_tokenizer_id(const pf_tokenizer *t,
                        const char *token); /* as written in the files; -1: none */
bool pf_tokenizer_token(const pf_tokenizer *t, int32_t id,
                        pf_buf *out); /* appended as written; false: no token */
bool pf_tokenizer_is_special(const pf_tokenizer *t, int32_t id);

typedef struct pf_added_info {
    int32_t id;
    const char *content; /* borrowed from the tokenizer */
    bool special, normalized, single_word, lstrip, rstrip;
} pf_added_info;

int pf_tokenizer_added_count(const pf_tokenizer *t);
pf_added_info pf_tokenizer_added(const pf_tokenizer *t, int i); /* in the order of the files */

const char *pf_tokenizer_model(const pf_tokenizer *t);  /* "BPE" or "Unigram" */
const char *pf_tokenizer_source(const pf_tokenizer *t); /* the file its vocabulary came from */
const char *
pf_tokenizer_chat_template(const pf_tokenizer *t);      /* text of tokenizer_config.json, or NULL */
int64_t pf_tokenizer_max_length(const pf_tokenizer *t); /* model_max_length, -1 if it says none */
/* SHA-256 over the names and bytes of all files that were read. */
const char *pf_tokenizer_fingerprint(const pf_tokenizer *t);

#endif
