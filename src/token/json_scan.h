/* json_scan.h - the two large members of a tokenizer.json, vocabulary and merges, read without
 * building a tree.
 *
 * A tree of 400,000 strings takes longer to build than everything else at start. So the values of
 * model.vocab and model.merges are cut out of the file first; the rest goes to the JSON library,
 * which also judges its syntax. The parts cut out are read by a strict little scanner that gives
 * line and column. */
#ifndef PF_JSON_SCAN_H
#define PF_JSON_SCAN_H

#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_json_scan {
    const char *p, *end; /* what is left */
    const char *text;    /* the whole file, for line and column */
    const char *file;
    pf_buf string; /* the last string that had escapes in it */
} pf_json_scan;

void pf_json_scan_init(pf_json_scan *s, pf_str value, const char *text, const char *file);
void pf_json_scan_release(pf_json_scan *s);

peft_status pf_json_scan_fail(const pf_json_scan *s, const char *what,
                              peft_error *err);  /* at s->p */
bool pf_json_scan_peek(pf_json_scan *s, char c); /* next after white space */
bool pf_json_scan_take(pf_json_scan *s, char c);
peft_status pf_json_scan_expect(pf_json_scan *s, char c, peft_error *err);
/* Borrowed until the next string. Valid UTF-8; may hold NULs. */
peft_status pf_json_scan_string(pf_json_scan *s, pf_str *out, peft_error *err);
peft_status pf_json_scan_int(pf_json_scan *s, int64_t *out, peft_error *err);
peft_status pf_json_scan_double(pf_json_scan *s, double *out, peft_error *err);
peft_status pf_json_scan_done(pf_json_scan *s, peft_error *err); /* nothing is left */

/* The text with the values of model.vocab and model.merges replaced by null; what they were in
 * *vocab and *merges (p is NULL for an absent one). Lines keep their numbers. Any bytes are taken.
 */
peft_status pf_tokenizer_json_cut(const char *text, size_t n, pf_buf *rest, pf_str *vocab,
                                  pf_str *merges, peft_error *err);

#endif
