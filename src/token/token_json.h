/* token_json.h - reading parts out of a tokenizer's JSON files with messages that name the place.
 *
 * A pf_tj is a JSON value and its path ("tokenizer.json: normalizer.normalizers[1]"). A member that
 * is absent and one that is null are the same, as in the library that writes these files. Strings
 * may hold NULs; they borrow from the document. */
#ifndef PF_TOKEN_JSON_H
#define PF_TOKEN_JSON_H

#include "base/arena.h"
#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct pf_tj {
    const json_t *v; /* NULL: absent or null */
    const char *path;
    pf_arena *arena; /* where paths are kept */
} pf_tj;

pf_tj pf_tj_root(const json_t *v, const char *file, pf_arena *arena);
pf_tj pf_tj_get(pf_tj object, const char *key);
pf_tj pf_tj_at(pf_tj array, size_t i);
size_t pf_tj_count(pf_tj array); /* 0 for anything else */

peft_status pf_tj_fail(pf_tj at, peft_status status, const char *what, peft_error *err);
peft_status pf_tj_string(pf_tj t, pf_str *out, peft_error *err); /* fails when absent */
peft_status pf_tj_member(pf_tj object, const char *key, pf_str *out,
                         peft_error *err); /* a string */
/* Absent members leave *out as it is. */
peft_status pf_tj_maybe(pf_tj object, const char *key, pf_str *out, peft_error *err);
peft_status pf_tj_bool(pf_tj object, const char *key, bool *out, peft_error *err);
peft_status pf_tj_int(pf_tj object, const char *key, int64_t low, int64_t high, int64_t *out,
                      peft_error *err);

/* The bytes behind a string of base64 (RFC 4648, padding optional), in the arena. */
peft_status pf_base64_decode(const char *text, size_t n, pf_arena *a, unsigned char **out,
                             size_t *out_n, peft_error *err);

#endif
