/* postprocessor.h - what is put around the tokens of a text, and how their offsets are reported.
 *
 * Whatever the file says comes down to lists of ids: before a text and behind it; for two texts
 * before, between and behind. Each kind is one row of tokenizers.def. */
#ifndef PF_POSTPROCESSOR_H
#define PF_POSTPROCESSOR_H

#include "token/token_json.h"

#include <stdint.h>

enum { PF_POST_MAX = 16, PF_POST_BOS = -2 /* in before[]: the bos token, found out later */ };

typedef struct pf_postprocessor {
    int32_t before[PF_POST_MAX], after[PF_POST_MAX];
    int n_before, n_after;
    int32_t pair[3][PF_POST_MAX]; /* two texts: before, between, behind */
    int n_pair[3];
    bool trim;       /* offsets leave out the white space at a token's ends ... */
    bool keep_first; /* ... but not one space at the start of the text, which was added */
} pf_postprocessor;

typedef struct pf_postprocessor_kind {
    const char *name; /* "type" in tokenizer.json */
    peft_status (*parse)(pf_postprocessor *z, pf_tj json, peft_error *err);
} pf_postprocessor_kind;

const pf_postprocessor_kind *pf_postprocessor_find(const char *name); /* tokenizer_table.c */

/* From the member "post_processor"; null puts nothing. */
peft_status pf_postprocessor_load(pf_postprocessor *z, pf_tj json, peft_error *err);

#endif
