/* json_scan.h - a forward scanner over the part of JSON that the header of a binary file uses.
 *
 * The caller knows the grammar and asks for the next thing it allows; nothing is built that it did
 * not ask for, nesting is as deep as the caller's own functions, and memory is what the texts need.
 * Whole numbers are exact to 2^63-1. Everything is compared with the length before a byte is looked
 * at; a failure names the file and the byte in it. The text is valid UTF-8 (pf_scan_init checks).
 * For JSON of any other kind: text/json.h. */
#ifndef PF_JSON_SCAN_H
#define PF_JSON_SCAN_H

#include "base/arena.h"

#include <stdbool.h>

typedef struct pf_scan {
    const char *text; /* borrowed, not terminated */
    size_t n, at;
    size_t
        offset; /* where the text begins in the file: messages count from the file's first byte */
    const char *path; /* for messages; borrowed */
    pf_arena *arena;  /* where texts go */
    peft_error *err;
} pf_scan;

/* Fails where the text is not UTF-8. */
peft_status pf_scan_init(pf_scan *s, const char *text, size_t n, size_t offset, const char *path,
                         pf_arena *arena, peft_error *err);
/* "PATH: header, byte N: what", for position `at` of the text. */
peft_status pf_scan_fail(const pf_scan *s, size_t at, const char *what);

/* `what` says in a message what stood to be expected: "':' after a key". White space is passed over
 * first. */
peft_status pf_scan_expect(pf_scan *s, char c, const char *what);
/* An opening bracket; *more is false when `close` follows at once, which is then taken too. */
peft_status pf_scan_begin(pf_scan *s, char open, char close, const char *what, bool *more);
/* After a member: a comma (*more is true) or `close`. */
peft_status pf_scan_another(pf_scan *s, char close, const char *what, bool *more);
/* Quoted text, unescaped and terminated, in the arena. A NUL inside is refused: names are C strings
 * here. */
peft_status pf_scan_text(pf_scan *s, const char *what, const char **out);
/* A whole number from 0 to 2^63-1: digits, no sign, no leading zero, no fraction, no exponent. */
peft_status pf_scan_size(pf_scan *s, const char *what, int64_t *out);
/* Fails where anything but white space is left. */
peft_status pf_scan_end(pf_scan *s);

#endif
