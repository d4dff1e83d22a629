/* str.h - slices of text, lists of strings, and the nearest known name for a misspelt one. */
#ifndef PF_STR_H
#define PF_STR_H

#include "base/arena.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_str {
    const char *p; /* borrowed, not terminated */
    size_t n;
} pf_str;

typedef struct pf_strlist {
    const char **items; /* terminated strings in the owner's arena */
    int n;
} pf_strlist;

pf_str pf_str_of(const char *s);
bool pf_str_eq(pf_str a, pf_str b);
bool pf_streq(const char *a, const char *b); /* NULL equals NULL only */
bool pf_starts_with(const char *s, const char *prefix);
bool pf_ends_with(const char *s, const char *suffix);
pf_str pf_str_trim(pf_str s); /* ASCII white space off both ends */

peft_status pf_strlist_add(pf_strlist *l, pf_arena *a, const char *s, peft_error *err);
bool pf_strlist_has(const pf_strlist *l, const char *s);

/* Index of the candidate nearest to `name` (edit distance with transpositions, case folded), or -1
 * when none is near enough to be worth suggesting. */
int pf_nearest(const char *name, const char *const *candidates, int n);

/* Whole-string numbers: false unless all of s is a number in range. "2e-4" and "1_000" are numbers;
 * "nan" is not. */
bool pf_parse_int(const char *s, int64_t *out);
bool pf_parse_float(const char *s, double *out);
bool pf_parse_size(const char *s, uint64_t *out); /* "7G", "512MiB", "1.5GB" in bytes */

/* 1536 -> "1.5 KiB"; into a caller's buffer of at least 16 bytes, which is returned. */
char *pf_format_bytes(double bytes, char *out, size_t n);

/* 4530 -> "1 h 16 min"; likewise. */
char *pf_format_duration(double seconds, char *out, size_t n);

/* UTF-8: length in bytes of the sequence that starts at p (at most n), 0 if it is not valid there.
 * Overlong forms, surrogates and values above U+10FFFF are not valid. *cp receives the code point.
 */
int pf_utf8_decode(const char *p, size_t n, uint32_t *cp);
int pf_utf8_encode(uint32_t cp, char out[4]);
bool pf_utf8_valid(const char *p, size_t n, size_t *bad_offset);

#endif
