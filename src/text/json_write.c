/* json_write.c - JSON out, byte for byte as Python's json module lays it out. */
#include "text/json.h"

#include "base/file.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

/* ---- strings
 * -----------------------------------------------------------------------------------------------------
 */

void pf_json_add_str(pf_buf *out, const char *s, size_t n, unsigned flags) {
    pf_buf_addc(out, '"');
    for (size_t at = 0; at < n;) {
        uint32_t cp = 0;
        int len = pf_utf8_decode(s + at, n - at, &cp);
        if (len == 0) {
            cp = 0xfffd;
            len = 1;
        }
        if (cp == '"' || cp == '\\') {
            pf_buf_addc(out, '\\');
            pf_buf_addc(out, (char)cp);
        } else if (cp == '\n') {
            pf_buf_adds(out, "\\n");
        } else if (cp == '\r') {
            pf_buf_adds(out, "\\r");
        } else if (cp == '\t') {
            pf_buf_adds(out, "\\t");
        } else if (cp == '\b') {
            pf_buf_adds(out, "\\b");
        } else if (cp == '\f') {
            pf_buf_adds(out, "\\f");
        } else if (cp < 0x20 || ((flags & PF_JSON_ASCII) && cp >= 0x7f && cp < 0x10000)) {
            /* Python leaves DEL alone */
            if (cp == 0x7f)
                pf_buf_addc(out, 0x7f);
            else
                pf_buf_addf(out, "\\u%04x", cp);
        } else if ((flags & PF_JSON_ASCII) && cp >= 0x10000) {
            pf_buf_addf(out, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                        0xdc00 + ((cp - 0x10000) & 0x3ff));
        } else {
            char utf8[4];
            int w = pf_utf8_encode(cp, utf8);
            pf_buf_add(out, utf8, (size_t)w);
        }
        at += (size_t)len;
    }
    pf_buf_addc(out, '"');
}

void pf_json_add_cstr(pf_buf *out, const char *s) {
    pf_json_add_str(out, s, strlen(s), 0);
}

/* ---- numbers
 * -----------------------------------------------------------------------------------------------------
 */

/* Add one to the last digit of "d.ddde-05". */
static void bump_last_digit(char *s) {
    char *e = strchr(s, 'e');
    if (e == NULL) return;
    for (char *p = e - 1; p >= s; p--) {
        if (*p == '.') continue;
        if (*p != '9') {
            ++*p;
            return;
        }
        *p = '0';
    }
    s[0] = '0'; /* 9.99 would need another exponent: let the comparison fail, one digit more is
                   tried next */
}

static bool same(const char *s, double v, bool single) {
    return single ? strtof(s, NULL) == (float)v : strtod(s, NULL) == v;
}

/* Python's repr: the shortest digits that read back as v, as 1e-05 below 1e-4 and from 1e16 on. The
 * nearest decimal of a given length is the one to try, except below a power of two, where the
 * numbers lie closer together than above and the next decimal up may do where the nearest does not.
 */
static void add_number(pf_buf *out, double v, bool single) {
    if (!isfinite(v)) {
        pf_buf_adds(out, "null");
        return;
    }
    if (v < 0 || (v == 0 && signbit(v))) {
        pf_buf_addc(out, '-');
        v = -v;
    }
    char s[40];
    int exponent_bits = 0;
    bool edge = frexp(v, &exponent_bits) == 0.5;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*e", digits - 1, v);
        if (same(s, v, single)) break;
        if (!edge) continue;
        bump_last_digit(s);
        if (same(s, v, single)) break;
    }
    char digits[20];
    int n = 0;
    const char *p = s;
    for (; *p != 'e' && *p != 0; p++)
        if (*p != '.') digits[n++] = *p;
    int e = *p == 'e' ? (int)strtol(p + 1, NULL, 10) : 0;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (e < -4 || e >= 16) {
        pf_buf_addc(out, digits[0]);
        if (n > 1) pf_buf_addc(out, '.');
        pf_buf_add(out, digits + 1, (size_t)n - 1);
        pf_buf_addf(out, "e%c%02d", e < 0 ? '-' : '+', e < 0 ? -e : e);
        return;
    }
    if (e < 0) {
        pf_buf_adds(out, "0.");
        for (int i = -1; i > e; i--) pf_buf_addc(out, '0');
        pf_buf_add(out, digits, (size_t)n);
        return;
    }
    for (int i = 0; i <= e; i++) pf_buf_addc(out, i < n ? digits[i] : '0');
    pf_buf_addc(out, '.');
    if (n > e + 1)
        pf_buf_add(out, digits + e + 1, (size_t)(n - e - 1));
    else
        pf_buf_addc(out, '0');
}

void pf_json_add_real(pf_buf *out, double v) {
    add_number(out, v, false);
}

void pf_json_add_float(pf_buf *out, float v) {
    add_number(out, (double)v, true);
}

/* ---- whole values
 * ------------------------------------------------------------------------------------------------
 */

typedef struct member {
    const char *key;
    size_t key_len;
    const json_t *value;
} member;

static int by_key(const void *a, const void *b) {
    const member *x = a, *y = b;
    size_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
    int c = n > 0 ? memcmp(x->key, y->key, n) : 0; /* UTF-8 sorts as its code points do */
    return c != 0 ? c : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static void new_line(pf_buf *out, int indent, int depth) {
    if (indent <= 0) return;
    pf_buf_addc(out, '\n');
    for (int i = 0; i < indent * depth; i++) pf_buf_addc(out, ' ');
}

static peft_status dump(pf_buf *out, const json_t *v, int indent, unsigned flags, int depth,
                        peft_error *err);

static peft_status dump_object(pf_buf *out, const json_t *v, int indent, unsigned flags, int depth,
                               peft_error *err) {
    size_t n = json_object_size(v), i = 0;
    if (n == 0) {
        pf_buf_adds(out, "{}");
        return PEFT_OK;
    }
    member *members = pf_calloc(n, sizeof *members);
    PF_CHECK_ALLOC(members, err);
    json_t *object = (json_t *)v; /* jansson's iterators take no const, and change nothing */
    for (void *it = json_object_iter(object); it != NULL && i < n;
         it = json_object_iter_next(object, it)) {
        members[i].key = json_object_iter_key(it);
        members[i].key_len = strlen(members[i].key);
        members[i++].value = json_object_iter_value(it);
    }
    if (flags & PF_JSON_SORT) qsort(members, i, sizeof *members, by_key);
    peft_status status = PEFT_OK;
    pf_buf_addc(out, '{');
    for (size_t k = 0; k < i && status == PEFT_OK; k++) {
        if (k > 0) pf_buf_adds(out, indent > 0 ? "," : ", ");
        new_line(out, indent, depth + 1);
        pf_json_add_str(out, members[k].key, members[k].key_len, flags);
        pf_buf_adds(out, ": ");
        status = dump(out, members[k].value, indent, flags, depth + 1, err);
    }
    new_line(out, indent, depth);
    pf_buf_addc(out, '}');
    pf_free(members);
    return status;
}

static peft_status dump(pf_buf *out, const json_t *v, int indent, unsigned flags, int depth,
                        peft_error *err) {
    if (depth > PF_JSON_MAX_DEPTH)
        return PF_FAIL(err, PEFT_E_FORMAT, "a JSON value is nested more than %d deep",
                       PF_JSON_MAX_DEPTH);
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return dump_object(out, v, indent, flags, depth, err);
    case JSON_ARRAY: {
        size_t n = json_array_size(v);
        pf_buf_addc(out, '[');
        for (size_t i = 0; i < n; i++) {
            if (i > 0) pf_buf_adds(out, indent > 0 ? "," : ", ");
            new_line(out, indent, depth + 1);
            PF_TRY(dump(out, json_array_get(v, i), indent, flags, depth + 1, err));
        }
        if (n > 0) new_line(out, indent, depth);
        pf_buf_addc(out, ']');
        break;
    }
    case JSON_STRING:
        pf_json_add_str(out, json_string_value(v), json_string_length(v), flags);
        break;
    case JSON_INTEGER:
        pf_buf_add_int(out, json_integer_value(v));
        break;
    case JSON_REAL:
        pf_json_add_real(out, json_real_value(v));
        break;
    case JSON_TRUE:
        pf_buf_adds(out, "true");
        break;
    case JSON_FALSE:
        pf_buf_adds(out, "false");
        break;
    case JSON_NULL:
        pf_buf_adds(out, "null");
        break;
    }
    return PEFT_OK;
}

peft_status pf_json_dump(pf_buf *out, const json_t *v, int indent, unsigned flags,
                         peft_error *err) {
    PF_TRY(dump(out, v, indent, flags, 0, err));
    if (!pf_buf_ok(out)) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return PEFT_OK;
}

peft_status pf_json_write(const char *path, const json_t *v, unsigned flags, peft_error *err) {
    pf_buf text = {0};
    peft_status status = pf_json_dump(&text, v, 2, flags, err);
    if (status == PEFT_OK && !pf_buf_ok(&text))
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory to write %s", path);
    if (status == PEFT_OK) status = pf_write_file(path, text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}
