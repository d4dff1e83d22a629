/* match.h - which module does a name in a configuration mean? PEFT's rules, with Python's `re`
 * played by PCRE2.
 *
 * A list entry means a module whose path is it, or ends in "." and it. One text alone is a regular
 * expression for the whole path. Keys of rank_pattern and alpha_pattern are regular expressions for
 * the end of a path, from a dot on. Patterns come from people and from files: matching is bounded,
 * and a pattern that runs into the bound is an error that names it. */
#ifndef PF_MATCH_H
#define PF_MATCH_H

#include "base/str.h"

typedef struct pf_pattern pf_pattern;

/* Compiles before + text + after; `key` is what messages call it ("peft.lora.target_modules").
 * whole: the subject must match to its end. */
peft_status pf_pattern_new(pf_pattern **out, const char *key, const char *before, const char *text,
                           const char *after, bool whole, peft_error *err);
void pf_pattern_free(pf_pattern *p);
/* Matches from the start of the subject. `number` (may be NULL) receives the first group read as a
 * number, -1 if none. */
peft_status pf_pattern_match(const pf_pattern *p, const char *subject, bool *hit, int64_t *number,
                             peft_error *err);

/* path == name, or path ends with "." name */
bool pf_path_has_suffix(const char *path, const char *name);

#endif
