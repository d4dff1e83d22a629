/* decoder.h - from tokens back to text: steps over a list of strings, which are joined at the end.
 *
 * A "Sequence" is not a step: its members take its place. Each kind is one row of tokenizers.def.
 * Without any step the tokens are joined by spaces, as in `tokenizers`. */
#ifndef PF_DECODER_H
#define PF_DECODER_H

#include "base/buf.h"
#include "token/pretokenizer.h"

typedef struct pf_strings { /* a list of strings, back to back */
    pf_buf bytes;
    uint32_t *ends;
    uint32_t n, cap;
    size_t limit; /* most bytes it may hold; 0 is 1 GiB */
} pf_strings;

void pf_strings_release(pf_strings *s);
void pf_strings_clear(pf_strings *s);
peft_status pf_strings_close(pf_strings *s,
                             peft_error *err); /* what was added to bytes since is one string */
pf_str pf_strings_at(const pf_strings *s, uint32_t i);

typedef struct pf_decoder pf_decoder;

typedef struct pf_decoder_kind {
    const char *name; /* "type" in tokenizer.json */
    peft_status (*parse)(pf_decoder *z, pf_tj json, peft_error *err);
    peft_status (*run)(const pf_decoder *z, const pf_strings *in, pf_strings *out, peft_error *err);
} pf_decoder_kind;

struct pf_decoder {
    const pf_decoder_kind *kind;
    pf_regex *regex;     /* Replace */
    pf_str content;      /* Replace, Strip, Metaspace, BPEDecoder's suffix, WordPiece's prefix */
    int64_t start, stop; /* Strip */
    bool flag;           /* Metaspace: the first one stands for nothing; WordPiece: cleanup */
};

typedef struct pf_decoders {
    pf_decoder *steps; /* in the tokenizer's arena */
    int n;
} pf_decoders;

const pf_decoder_kind *pf_decoder_find(const char *name); /* tokenizer_table.c */

peft_status pf_decoders_load(pf_decoders *z, pf_tj json, peft_error *err);
void pf_decoders_release(pf_decoders *z);
/* Both lists are used up; the text is appended to out. */
peft_status pf_decoders_run(const pf_decoders *z, pf_strings *tokens, pf_strings *spare,
                            pf_buf *out, peft_error *err);

#endif
