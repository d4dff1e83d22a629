/* json.c - reading: parse, big whole numbers, typed members, lines. Writing is in json_write.c.
 *
 * jansson does the parsing; what stands here is what its callers would otherwise each do
 * differently: limits, positions, messages. */
#include "text/json.h"

#include "base/file.h"

#include <math.h>
#include <string.h>

#include "base/banned.h"

/* ---- parse
 * -------------------------------------------------------------------------------------------------------
 */

/* jansson puts a piece of the input into its text and cuts it at 160 bytes; what is cut in the
 * middle of a character, and control characters, must not reach a terminal. */
static void clean_text(char *s) {
    size_t n = strlen(s), at = 0;
    while (at < n) {
        uint32_t cp = 0;
        int len = pf_utf8_decode(s + at, n - at, &cp);
        if (len == 0 || cp < 0x20 || cp == 0x7f || (cp >= 0x80 && cp < 0xa0)) {
            for (int i = 0; i < (len > 0 ? len : 1); i++) s[at + (size_t)i] = '?';
        }
        at += (size_t)(len > 0 ? len : 1);
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Whole numbers that do not fit in 64 bits, rewritten in place as reals of the same width
 * ("12345678901234567890" -> "1.23456789012345e19"), so that every position in the text stays what
 * it was. Returns how many there were. */
static int rewrite_big_integers(char *s, size_t n) {
    int count = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
            continue;
        }
        if (s[i] == '"') {
            in_string = true;
            continue;
        }
        if (!is_digit(s[i])) continue;
        size_t start = i;
        while (i < n && is_digit(s[i])) i++;
        size_t digits = i - start;
        bool real = i < n && (s[i] == '.' || s[i] == 'e' || s[i] == 'E');
        if (real) /* its fraction and exponent are digits too, but no whole number of their own */
            while (i < n && (is_digit(s[i]) || strchr(".eE+-", s[i]) != NULL) && s[i] != 0) i++;
        if (!real && digits >= 19) {
            bool negative = start > 0 && s[start - 1] == '-';
            const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
            if (digits > 19 || memcmp(s + start, limit, 19) > 0) {
                char exponent[24];
                int e = snprintf(exponent, sizeof exponent, "e%zu", digits - 1);
                memmove(s + start + 2, s + start + 1, digits - 2);
                s[start + 1] = '.';
                memcpy(s + start + digits - (size_t)e, exponent, (size_t)e);
                count++;
            }
        }
        i--; /* the loop steps over the character that ended the number */
    }
    return count;
}

static peft_status parse_at(json_t **out, const char *text, size_t n, const char *name,
                            int64_t first_line, peft_error *err) {
    *out = NULL;
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        n -= 3;
    }
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL;
    json_error_t e;
    json_t *v = json_loadb(n > 0 ? text : "", n, flags, &e);
    if (v == NULL && json_error_code(&e) == json_error_numeric_overflow) {
        pf_buf copy = {0};
        pf_buf_add(&copy, text, n);
        if (!pf_buf_ok(&copy)) {
            pf_buf_free(&copy);
            return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", name);
        }
        if (rewrite_big_integers(copy.data, n) > 0) v = json_loadb(copy.data, n, flags, &e);
        pf_buf_free(&copy);
    }
    if (v == NULL) {
        if (json_error_code(&e) == json_error_out_of_memory)
            return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", name);
        clean_text(e.text);
        int64_t line = first_line + (e.line > 0 ? e.line - 1 : 0);
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld:%d: not valid JSON: %s", name, (long long)line,
                       e.column > 0 ? e.column : 1, n == 0 ? "the text is empty" : e.text);
    }
    *out = v;
    return PEFT_OK;
}

peft_status pf_json_parse(json_t **out, const char *text, size_t n, const char *name,
                          peft_error *err) {
    return parse_at(out, text, n, name, 1, err);
}

peft_status pf_json_load(json_t **out, const char *path, size_t max_size, peft_error *err) {
    *out = NULL;
    pf_buf text = {0};
    peft_status status = pf_read_file(&text, path, max_size, err);
    if (status == PEFT_OK) status = pf_json_parse(out, pf_buf_str(&text), text.len, path, err);
    pf_buf_free(&text);
    return status;
}

/* ---- members
 * -----------------------------------------------------------------------------------------------------
 */

const char *pf_json_kind(const json_t *v) {
    if (v == NULL) return "missing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* The member, NULL when missing or null. */
static const json_t *member(const json_t *obj, const char *key) {
    const json_t *v = json_object_get(obj, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

static peft_status missing(const json_t *obj, const char *where, const char *key, peft_error *err) {
    if (!json_is_object(obj))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: is %s; it should be an object with the key \"%s\"",
                       where, pf_json_kind(obj), key);
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: the key \"%s\" is missing", where, key);
}

/* "file: "key" is <value>; it should be <what>" */
static peft_status wrong(const json_t *v, const char *where, const char *key, const char *what,
                         peft_error *err) {
    char shown[96];
    if (json_is_integer(v)) {
        snprintf(shown, sizeof shown, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        snprintf(shown, sizeof shown, "%.17g", json_real_value(v));
    } else if (json_is_true(v) || json_is_false(v)) {
        snprintf(shown, sizeof shown, "%s", json_is_true(v) ? "true" : "false");
    } else if (json_is_string(v)) {
        size_t n = json_string_length(v);
        pf_buf b = {0};
        pf_json_add_str(&b, json_string_value(v), n < 40 ? n : 40, PF_JSON_ASCII);
        snprintf(shown, sizeof shown, "%s%s", pf_buf_str(&b), n > 40 ? " ..." : "");
        pf_buf_free(&b);
    } else {
        snprintf(shown, sizeof shown, "%s", pf_json_kind(v));
    }
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: \"%s\" is %s; it should be %s", where, key, shown,
                   what);
}

peft_status pf_json_get_int(const json_t *obj, const char *where, const char *key, int64_t min,
                            int64_t max, int64_t *out, peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    int64_t i = 0;
    if (json_is_integer(v)) {
        i = json_integer_value(v);
    } else {
        double d = json_is_real(v) ? json_real_value(v) : 0.5;
        /* 2^63 itself is no int64 */
        if (d != floor(d) || !(d >= -9223372036854775808.0 && d < 9223372036854775808.0))
            return wrong(v, where, key, "a whole number", err);
        i = (int64_t)d;
    }
    if (i < min || i > max) {
        char range[96];
        if (max == INT64_MAX)
            snprintf(range, sizeof range, "at least %lld", (long long)min);
        else
            snprintf(range, sizeof range, "between %lld and %lld", (long long)min, (long long)max);
        return wrong(v, where, key, range, err);
    }
    *out = i;
    return PEFT_OK;
}

peft_status pf_json_opt_int(const json_t *obj, const char *where, const char *key, int64_t def,
                            int64_t min, int64_t max, int64_t *out, peft_error *err) {
    *out = def;
    return member(obj, key) == NULL ? PEFT_OK
                                    : pf_json_get_int(obj, where, key, min, max, out, err);
}

peft_status pf_json_get_real(const json_t *obj, const char *where, const char *key, double *out,
                             peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    if (!json_is_number(v)) return wrong(v, where, key, "a number", err);
    *out = json_number_value(v);
    return PEFT_OK;
}

peft_status pf_json_opt_real(const json_t *obj, const char *where, const char *key, double def,
                             double *out, peft_error *err) {
    *out = def;
    return member(obj, key) == NULL ? PEFT_OK : pf_json_get_real(obj, where, key, out, err);
}

peft_status pf_json_get_bool(const json_t *obj, const char *where, const char *key, bool *out,
                             peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    if (!json_is_boolean(v)) return wrong(v, where, key, "true or false", err);
    *out = json_is_true(v);
    return PEFT_OK;
}

peft_status pf_json_opt_bool(const json_t *obj, const char *where, const char *key, bool def,
                             bool *out, peft_error *err) {
    *out = def;
    return member(obj, key) == NULL ? PEFT_OK : pf_json_get_bool(obj, where, key, out, err);
}

peft_status pf_json_get_str(const json_t *obj, const char *where, const char *key, const char **out,
                            peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    if (!json_is_string(v)) return wrong(v, where, key, "text", err);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return wrong(v, where, key, "text without NUL characters", err);
    *out = json_string_value(v);
    return PEFT_OK;
}

peft_status pf_json_opt_str(const json_t *obj, const char *where, const char *key, const char *def,
                            const char **out, peft_error *err) {
    *out = def;
    return member(obj, key) == NULL ? PEFT_OK : pf_json_get_str(obj, where, key, out, err);
}

peft_status pf_json_get_object(const json_t *obj, const char *where, const char *key,
                               const json_t **out, peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    if (!json_is_object(v)) return wrong(v, where, key, "an object", err);
    *out = v;
    return PEFT_OK;
}

peft_status pf_json_opt_object(const json_t *obj, const char *where, const char *key,
                               const json_t **out, peft_error *err) {
    *out = NULL;
    return member(obj, key) == NULL ? PEFT_OK : pf_json_get_object(obj, where, key, out, err);
}

peft_status pf_json_get_array(const json_t *obj, const char *where, const char *key,
                              const json_t **out, peft_error *err) {
    const json_t *v = member(obj, key);
    if (v == NULL) return missing(obj, where, key, err);
    if (!json_is_array(v)) return wrong(v, where, key, "a list", err);
    *out = v;
    return PEFT_OK;
}

peft_status pf_json_opt_array(const json_t *obj, const char *where, const char *key,
                              const json_t **out, peft_error *err) {
    *out = NULL;
    return member(obj, key) == NULL ? PEFT_OK : pf_json_get_array(obj, where, key, out, err);
}

/* ---- lines
 * -------------------------------------------------------------------------------------------------------
 */

void pf_jsonl_init(pf_jsonl *r, const char *text, size_t n, const char *name) {
    *r = (pf_jsonl){.text = text, .name = name, .n = n};
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) r->at = 3;
}

peft_status pf_jsonl_next(pf_jsonl *r, json_t **out, peft_error *err) {
    *out = NULL;
    while (r->at < r->n) {
        const char *line = r->text + r->at;
        const char *end = memchr(line, '\n', r->n - r->at);
        size_t n = end != NULL ? (size_t)(end - line) : r->n - r->at;
        r->at += n + (end != NULL ? 1 : 0);
        r->line++;
        if (pf_str_trim((pf_str){line, n}).n == 0) continue;
        return parse_at(out, line, n, r->name, r->line, err);
    }
    return PEFT_OK;
}
