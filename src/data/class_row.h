/* class_row.h - a row whose target is a class, or a class for each of its words -> tokens, and the
 * class of each token (-1: none).
 *
 * Tokens are what the tokenizer makes of a text, of two texts, or of words that are cut already
 * (each by itself, as `is_split_into_words`), with its special tokens around them. The class of a
 * text stands on its last token that is no padding, or on the first where rows see what comes after
 * them; that of a word on its first token, as run_ner has it, or on all of them (B-X going on as
 * I-X, where there is such a class). A cut keeps the special tokens behind the text. */
#ifndef PF_CLASS_ROW_H
#define PF_CLASS_ROW_H

#include "data/class_labels.h"
#include "graph/problem.h"
#include "token/tokenizer.h"

typedef struct pf_class_rules {
    pf_class_columns columns;
    pf_problem problem;       /* AUTO is SINGLE */
    bool one_hot;             /* lists have a 0 or 1 for each class */
    const char *pair;         /* template of the second text; NULL: one text */
    const pf_strlist *labels; /* of the model */
    bool all_tokens;          /* data.label_all_tokens */
    bool on_first;            /* the class of a text stands on its first token */
    bool blank_before_words;  /* byte-level vocabularies that tell " word" from "word" */
    bool types;               /* the tokens of a second text are told apart */
    int32_t pad;              /* never the last token of a text; -1: there is none */
} pf_class_rules;

typedef struct pf_class_row { /* how the tokens of a row are made up */
    int32_t label;            /* of a text; -1: words */
    int32_t n_before, n_first, n_between, n_second, n_behind;
} pf_class_row;

/* text: n_first bytes of the first text, then the second, of n_second. Appends ids (int32_t). */
peft_status pf_class_encode_text(const pf_class_rules *opt, const pf_tokenizer *t, const char *text,
                                 size_t n_first, size_t n_second, bool is_pair,
                                 pf_encoding *scratch, pf_buf *ids, pf_class_row *out,
                                 peft_error *err);
/* words: of lengths[i] bytes each, a blank between them; tags[i]: their classes. Appends ids and
 * classes. */
peft_status pf_class_encode_words(const pf_class_rules *opt, const pf_tokenizer *t,
                                  const char *text, const uint32_t *lengths, const int32_t *tags,
                                  int64_t n_words, pf_encoding *scratch, pf_buf *ids,
                                  pf_buf *classes, pf_class_row *out, peft_error *err);

int32_t pf_class_row_tokens(const pf_class_row *r);
/* The row cut to `limit` tokens: of two texts the longer one loses first, as tokenizers'
 * LongestFirst. Copies ids, and classes where the row has words, else sets the one class there is.
 * Returns how many are left. */
int32_t pf_class_row_put(const pf_class_rules *opt, const pf_class_row *r, int32_t limit,
                         const int32_t *ids, const int32_t *classes, int32_t *out_ids,
                         int32_t *out_classes, int32_t *second_from);

#endif
