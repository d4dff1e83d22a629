/* normalizer.h - what is done to the text before it is split: steps from aligned text to aligned
 * text.
 *
 * A "Sequence" is not a step: its members take its place. Each kind is one row of tokenizers.def
 * and one descriptor in normalizer.c. Steps are read-only once loaded. */
#ifndef PF_NORMALIZER_H
#define PF_NORMALIZER_H

#include "token/charsmap.h"
#include "token/ntext.h"
#include "token/token_json.h"
#include "token/token_regex.h"

typedef struct pf_normalizer pf_normalizer;

typedef struct pf_normalizer_kind {
    const char *name; /* "type" in tokenizer.json */
    peft_status (*parse)(pf_normalizer *z, pf_tj json, peft_error *err); /* NULL: nothing to read */
    /* `bare`: the text continues another one, so it gets no prefix. */
    peft_status (*run)(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out, bool bare,
                       peft_error *err);
} pf_normalizer_kind;

struct pf_normalizer {
    const pf_normalizer_kind *kind;
    pf_str content; /* Prepend, Replace */
    pf_regex *regex;
    bool left, right; /* Strip */
    pf_charsmap charsmap;
};

typedef struct pf_normalizers {
    pf_normalizer *steps; /* in the tokenizer's arena */
    int n;
} pf_normalizers;

const pf_normalizer_kind *pf_normalizer_find(const char *name); /* tokenizer_table.c */

/* From the member "normalizer"; null gives no steps. A Precompiled without its map takes `charsmap`
 * (a SentencePiece model has it as bytes). Release before the arena ends. */
peft_status pf_normalizers_load(pf_normalizers *z, pf_tj json, pf_str charsmap, peft_error *err);
void pf_normalizers_release(pf_normalizers *z);

/* Runs the steps over `in`. The result is one of the two scratch texts, or `in` itself when there
 * are no steps. */
peft_status pf_normalizers_run(const pf_normalizers *z, const pf_ntext *in, pf_ntext scratch[2],
                               bool bare, const pf_ntext **out, peft_error *err);

#endif
