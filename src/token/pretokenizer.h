/* pretokenizer.h - cutting normalized text into the pieces that the model sees.
 *
 * A step goes over the list of pieces: it cuts them, drops parts, or (Metaspace, ByteLevel)
 * rewrites the text. Pieces that are already tokens (added tokens found in the text) pass
 * untouched. A "Sequence" is not a step: its members take its place. Each kind is one row of
 * tokenizers.def and one descriptor in pretokenizer.c.
 *
 * ByteLevel spells every byte as a character. When it is the last step that spelling is left out,
 * `bytes` is set, and the model works on raw bytes with a vocabulary that was turned into raw bytes
 * when it was loaded. */
#ifndef PF_PRETOKENIZER_H
#define PF_PRETOKENIZER_H

#include "token/ntext.h"
#include "token/split_pattern.h"
#include "token/token_json.h"
#include "token/token_regex.h"

typedef struct pf_piece {
    uint32_t begin, end; /* bytes of the text */
    int32_t id;          /* -1: text for the model; else an added token */
} pf_piece;

typedef struct pf_pieces {
    pf_piece *v;
    uint32_t n, cap;
} pf_pieces;

peft_status pf_pieces_add(pf_pieces *p, uint32_t begin, uint32_t end, int32_t id, peft_error *err);

/* The text being cut; owned by whoever encodes. */
typedef struct pf_cutting {
    const pf_ntext *text; /* one of scratch[], or the caller's */
    pf_ntext scratch[2];
    pf_pieces pieces, next;
    bool bare; /* the text continues another one: no prefix before its very first piece */
} pf_cutting;

void pf_cutting_release(pf_cutting *c);

typedef struct pf_pretokenizer pf_pretokenizer;

typedef struct pf_pretokenizer_kind {
    const char *name; /* "type" in tokenizer.json */
    peft_status (*parse)(pf_pretokenizer *z, pf_tj json, peft_error *err);
    peft_status (*run)(const pf_pretokenizer *z, pf_cutting *c, peft_error *err);
} pf_pretokenizer_kind;

typedef enum pf_split_behavior {
    PF_SPLIT_REMOVED,
    PF_SPLIT_ISOLATED,
    PF_SPLIT_MERGED_WITH_PREVIOUS,
    PF_SPLIT_MERGED_WITH_NEXT,
    PF_SPLIT_CONTIGUOUS
} pf_split_behavior;

typedef enum pf_prepend_scheme {
    PF_PREPEND_ALWAYS,
    PF_PREPEND_FIRST,
    PF_PREPEND_NEVER
} pf_prepend_scheme;

struct pf_pretokenizer {
    const pf_pretokenizer_kind *kind;
    bool last;            /* nothing comes after it */
    bool prefix, by_rule; /* ByteLevel: add_prefix_space, use_regex; Metaspace: by_rule is split;
                             Digits: one by one */
    pf_prepend_scheme scheme;
    pf_str replacement; /* Metaspace's "▁", CharDelimiterSplit's delimiter */
    pf_split_fn fn;     /* Split by a known pattern ... */
    pf_regex *regex;    /* ... or by any other */
    pf_split_behavior behavior;
    bool invert;
};

typedef struct pf_pretokenizers {
    pf_pretokenizer *steps; /* in the tokenizer's arena */
    int n;
    bool bytes; /* the last step is ByteLevel: pieces are raw bytes */
} pf_pretokenizers;

const pf_pretokenizer_kind *pf_pretokenizer_find(const char *name); /* tokenizer_table.c */

peft_status pf_pretokenizers_load(pf_pretokenizers *z, pf_tj json, peft_error *err);
void pf_pretokenizers_release(pf_pretokenizers *z);
peft_status pf_pretokenizers_run(const pf_pretokenizers *z, pf_cutting *c, peft_error *err);

peft_status pf_prepend_scheme_parse(pf_tj json, pf_prepend_scheme *out,
                                    peft_error *err); /* Metaspace's members */

#endif
