/* json.h - JSON in and out, a thin layer over jansson.
 *
 * Reading: size and depth are limited, duplicate keys are refused, errors read `file:line:column:
 * what`. Integers are exact in 64 bits; a whole number beyond that (tokenizer_config.json likes
 * 1000000000000000019884624838656) becomes a real. Strings may hold \u0000, so their length is
 * json_string_length; keys may not. A byte order mark is skipped. A value is a json_t of jansson's;
 * the caller ends it with json_decref. Iteration follows the order of the file.
 *
 * Writing: numbers and layout are those of Python's json.dump, so that a file we rewrite differs
 * only where we changed it. Everything goes to a pf_buf. */
#ifndef PF_JSON_H
#define PF_JSON_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define PF_JSON_MAX_DEPTH JSON_PARSER_MAX_DEPTH /* 2048, held by the parser and by the writer */

/* `name` is what messages call the text (a path). Any JSON value may stand at the top. */
peft_status pf_json_parse(json_t **out, const char *text, size_t n, const char *name,
                          peft_error *err);
peft_status pf_json_load(json_t **out, const char *path, size_t max_size, peft_error *err);

/* ---- members of an object, by type
 * ------------------------------------------------------------------------------- `where` names the
 * object in messages ("model/config.json", or "model/config.json: rope_scaling"). pf_json_get_*
 * fail when the key is missing; pf_json_opt_* give `def` then. null counts as missing. Text,
 * objects and arrays are borrowed from obj. An integer may be written as 512.0; bounds are
 * inclusive. Text with a NUL inside is refused here. */
peft_status pf_json_get_int(const json_t *obj, const char *where, const char *key, int64_t min,
                            int64_t max, int64_t *out, peft_error *err);
peft_status pf_json_opt_int(const json_t *obj, const char *where, const char *key, int64_t def,
                            int64_t min, int64_t max, int64_t *out, peft_error *err);
peft_status pf_json_get_real(const json_t *obj, const char *where, const char *key, double *out,
                             peft_error *err);
peft_status pf_json_opt_real(const json_t *obj, const char *where, const char *key, double def,
                             double *out, peft_error *err);
peft_status pf_json_get_bool(const json_t *obj, const char *where, const char *key, bool *out,
                             peft_error *err);
peft_status pf_json_opt_bool(const json_t *obj, const char *where, const char *key, bool def,
                             bool *out, peft_error *err);
peft_status pf_json_get_str(const json_t *obj, const char *where, const char *key, const char **out,
                            peft_error *err);
peft_status pf_json_opt_str(const json_t *obj, const char *where, const char *key, const char *def,
                            const char **out, peft_error *err);
peft_status pf_json_get_object(const json_t *obj, const char *where, const char *key,
                               const json_t **out, peft_error *err);
peft_status pf_json_opt_object(const json_t *obj, const char *where, const char *key,
                               const json_t **out, peft_error *err); /* NULL when missing */
peft_status pf_json_get_array(const json_t *obj, const char *where, const char *key,
                              const json_t **out, peft_error *err);
peft_status pf_json_opt_array(const json_t *obj, const char *where, const char *key,
                              const json_t **out, peft_error *err); /* NULL when missing */
/* "text", "a whole number", ... for messages. */
const char *pf_json_kind(const json_t *v);

/* ---- one value per line
 * ------------------------------------------------------------------------------------------ Over
 * text that the caller keeps (a mapped file, standard input read whole). Lines end in LF or CRLF;
 * empty ones are passed over. `line` counts from 1 and is the line of the value that next gave. */
typedef struct pf_jsonl {
    const char *text, *name; /* borrowed */
    size_t n, at;
    int64_t line;
} pf_jsonl;

void pf_jsonl_init(pf_jsonl *r, const char *text, size_t n, const char *name);
/* *out is NULL at the end. After an error the reader stands behind the bad line and may go on. */
peft_status pf_jsonl_next(pf_jsonl *r, json_t **out, peft_error *err);

/* ---- writing
 * -----------------------------------------------------------------------------------------------------
 */
enum {
    PF_JSON_SORT = 1, /* keys by code point */
    PF_JSON_ASCII = 2 /* \uXXXX for everything beyond ASCII, as Python does unless told otherwise */
};
/* What transformers and peft write: json.dumps(x, indent=2, sort_keys=True). */
#define PF_JSON_HF (PF_JSON_SORT | PF_JSON_ASCII)

/* A quoted string. Bytes that are not UTF-8 become U+FFFD. */
void pf_json_add_str(pf_buf *out, const char *s, size_t n, unsigned flags);
void pf_json_add_cstr(pf_buf *out, const char *s);
/* The shortest digits that read back as the same double, in Python's layout (1e-05, 0.0001, 3.0).
 * NaN and the infinities have no place in JSON: null. */
void pf_json_add_real(pf_buf *out, double v);
/* The same with the shortest digits that read back as the same float. */
void pf_json_add_float(pf_buf *out, float v);
/* indent 0 gives one line with ", " and ": " between things. */
peft_status pf_json_dump(pf_buf *out, const json_t *v, int indent, unsigned flags, peft_error *err);
/* The value as a file, with an indent of 2; whole or not at all (base/file.h). */
peft_status pf_json_write(const char *path, const json_t *v, unsigned flags, peft_error *err);

#endif
