/* token_regex.h - regular expressions of tokenizer files, run by PCRE2.
 *
 * The files are written for Oniguruma with Ruby's syntax and Unicode 16. The pattern is translated:
 * what \s, \h, \w, ^, $,
 * (?m), {n}+ and nested classes mean differs, and properties get the code points that are newer
 * than PCRE2's tables. What cannot be translated is refused. A match that takes too many steps is
 * an error, never a hang. */
#ifndef PF_TOKEN_REGEX_H
#define PF_TOKEN_REGEX_H

#include "base/buf.h"
#include "base/status.h"
#include "token/token_json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_regex pf_regex;

/* `where` names the place in the file, for messages. A literal pattern matches itself. */
peft_status pf_regex_new(pf_regex **out, const char *pattern, size_t n, bool literal,
                         const char *where, peft_error *err);
/* From {"String": "..."} or {"Regex": "..."}. */
peft_status pf_regex_from_json(pf_regex **out, pf_tj pattern, peft_error *err);
void pf_regex_free(pf_regex *r);

/* All matches in text (valid UTF-8) in order, as Oniguruma's find_iter gives them: an empty match
 * where the last one ended is not one. Thread-safe. Life cycle: begin -> next until not found ->
 * end. */
typedef struct pf_regex_iter {
    const pf_regex *regex;
    const char *text;
    uint32_t n, at, last_end;
    bool any;
    void *match;
} pf_regex_iter;

void pf_regex_begin(pf_regex_iter *it, const pf_regex *r, const char *text, uint32_t n);
peft_status pf_regex_next(pf_regex_iter *it, bool *found, uint32_t *begin, uint32_t *end,
                          peft_error *err);
void pf_regex_end(pf_regex_iter *it);

/* The translation alone, for the tests. */
peft_status pf_regex_translate(pf_buf *out, const char *pattern, size_t n, peft_error *err);

#endif
