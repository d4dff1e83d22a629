/* json_scan.c - a strict scanner for flat JSON, and the knife of json_scan.h. No recursion. */
#include "token/json_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

void pf_json_scan_init(pf_json_scan *s, pf_str value, const char *text, const char *file) {
    *s = (pf_json_scan){.p = value.p, .end = value.p + value.n, .text = text, .file = file};
}

void pf_json_scan_release(pf_json_scan *s) {
    pf_buf_free(&s->string);
}

peft_status pf_json_scan_fail(const pf_json_scan *s, const char *what, peft_error *err) {
    size_t line = 1, column = 1;
    for (const char *p = s->text; p < s->p; p++) {
        column++;
        if (*p != '\n') continue;
        line++;
        column = 1;
    }
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%zu:%zu: %s", s->file, line, column, what);
}

static void blanks(pf_json_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

bool pf_json_scan_peek(pf_json_scan *s, char c) {
    blanks(s);
    return s->p < s->end && *s->p == c;
}

bool pf_json_scan_take(pf_json_scan *s, char c) {
    bool here = pf_json_scan_peek(s, c);
    if (here) s->p++;
    return here;
}

peft_status pf_json_scan_expect(pf_json_scan *s, char c, peft_error *err) {
    char what[] = "expected '?'";
    what[10] = c;
    return pf_json_scan_take(s, c) ? PEFT_OK : pf_json_scan_fail(s, what, err);
}

static int hex4(const char *p) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        int d = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
                : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
                : p[i] >= 'A' && p[i] <= 'F' ? p[i] - 'A' + 10
                                             : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Behind the backslash. */
static peft_status escape(pf_json_scan *s, peft_error *err) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (s->p == s->end) return pf_json_scan_fail(s, "the string does not end", err);
    const char *known = *s->p == 0 ? NULL : strchr(from, *s->p);
    if (known != NULL) {
        pf_buf_addc(&s->string, to[known - from]);
        s->p++;
        return PEFT_OK;
    }
    int v = *s->p == 'u' && s->end - s->p >= 5 ? hex4(s->p + 1) : -1;
    if (v < 0) return pf_json_scan_fail(s, "bad escape in a string", err);
    uint32_t cp = (uint32_t)v;
    s->p += 5;
    if (v >= 0xd800 && v <= 0xdfff) {
        int low = v < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u'
                      ? hex4(s->p + 2)
                      : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return pf_json_scan_fail(s, "half a surrogate pair in a string", err);
        cp = 0x10000 + ((cp - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        s->p += 6;
    }
    char utf8[4];
    pf_buf_add(&s->string, utf8, (size_t)pf_utf8_encode(cp, utf8));
    return PEFT_OK;
}

peft_status pf_json_scan_string(pf_json_scan *s, pf_str *out, peft_error *err) {
    if (!pf_json_scan_take(s, '"')) return pf_json_scan_fail(s, "expected a string", err);
    const char *begin = s->p;
    bool escaped = false;
    pf_buf_clear(&s->string);
    for (;; s->p++) {
        if (s->p == s->end) return pf_json_scan_fail(s, "the string does not end", err);
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') break;
        if (c < 0x20) return pf_json_scan_fail(s, "control character in a string", err);
        if (c != '\\') continue;
        pf_buf_add(&s->string, begin, (size_t)(s->p - begin));
        s->p++;
        escaped = true;
        PF_TRY(escape(s, err));
        begin = s->p--;
    }
    *out = (pf_str){begin, (size_t)(s->p - begin)};
    if (escaped) {
        pf_buf_add(&s->string, begin, out->n);
        if (!pf_buf_ok(&s->string)) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        *out = (pf_str){s->string.data, s->string.len};
    }
    s->p++;
    return pf_utf8_valid(out->p, out->n, NULL)
               ? PEFT_OK
               : pf_json_scan_fail(s, "the string before is not UTF-8", err);
}

/* The characters a number may have; the value is judged by who asked for it. */
static peft_status number(pf_json_scan *s, char *out, size_t size, peft_error *err) {
    size_t n = 0;
    blanks(s);
    while (s->p + n < s->end && n + 1 < size && s->p[n] != 0 &&
           strchr("+-.eE0123456789", s->p[n]) != NULL) {
        out[n] = s->p[n];
        n++;
    }
    out[n] = 0;
    return n > 0 && n + 1 < size ? PEFT_OK : pf_json_scan_fail(s, "expected a number", err);
}

peft_status pf_json_scan_int(pf_json_scan *s, int64_t *out, peft_error *err) {
    char text[32];
    PF_TRY(number(s, text, sizeof text, err));
    if (!pf_parse_int(text, out)) return pf_json_scan_fail(s, "expected an integer", err);
    s->p += strlen(text);
    return PEFT_OK;
}

/* Digits as one integer, divided by a power of ten: up to one unit in the last place off, and that
 * is the point. Scores that tie when rounded so must tie here too, and the library to be equal to
 * reads them this way (serde_json). */
peft_status pf_json_scan_double(pf_json_scan *s, double *out, peft_error *err) {
    char text[64];
    PF_TRY(number(s, text, sizeof text, err));
    const char *p = text;
    bool negative = *p == '-', full = false, point = false, digits = false;
    uint64_t significand = 0;
    int exponent = 0;
    for (p += negative; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        uint64_t d = (uint64_t)(*p - '0');
        digits = true;
        full |= significand > (UINT64_MAX - d) / 10; /* further digits do not count */
        if (!full) significand = significand * 10 + d;
        exponent += (point ? -1 : 0) + (full ? 1 : 0);
    }
    int64_t e = 0;
    if (digits && (*p == 'e' || *p == 'E')) {
        p += p[1] == '+' ? 2 : 1;
        if (!pf_parse_int(p, &e) || e < -100000 || e > 100000)
            return pf_json_scan_fail(s, "expected a number", err);
        p = "";
    }
    if (*p != 0 || !digits) return pf_json_scan_fail(s, "expected a number", err);
    double f = (double)significand;
    int64_t power = exponent + e;
    for (; power < -308 && f != 0; power += 308) f /= 1e308;
    if (power > 308 && f != 0) return pf_json_scan_fail(s, "number out of range", err);
    char ten[16];
    snprintf(ten, sizeof ten, "1e%d", (int)(power < 0 ? -power : power > 308 ? 0 : power));
    f = power < 0 ? f / strtod(ten, NULL) : f * strtod(ten, NULL);
    if (!(f <= 1.7976931348623157e308)) return pf_json_scan_fail(s, "number out of range", err);
    *out = negative ? -f : f;
    s->p += strlen(text);
    return PEFT_OK;
}

peft_status pf_json_scan_done(pf_json_scan *s, peft_error *err) {
    blanks(s);
    return s->p == s->end ? PEFT_OK : pf_json_scan_fail(s, "unexpected text", err);
}

/* ---- the knife ---- */

/* Behind the string that begins at p. */
static const char *skip_string(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return end;
}

/* Behind the array or object that begins at p. */
static const char *skip_container(const char *p, const char *end) {
    int64_t depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if ((*p == '}' || *p == ']') && --depth == 0) return p + 1;
        p++;
    }
    return end;
}

static bool blank(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool names(const char *string, const char *end, const char *name) {
    size_t n = strlen(name);
    return (size_t)(end - string) == n + 2 && memcmp(string + 1, name, n) == 0;
}

peft_status pf_tokenizer_json_cut(const char *text, size_t n, pf_buf *rest, pf_str *vocab,
                                  pf_str *merges, peft_error *err) {
    const char *end = text + n, *p = text, *kept = text;
    int64_t depth = 0;
    bool in_model = false;
    *vocab = *merges = (pf_str){NULL, 0};
    while (p < end) {
        char c = *p;
        if (c != '"') {
            if (c == '{' || c == '[') depth++;
            if (c == '}' || c == ']') depth--;
            if (depth < 2) in_model = false;
            p++;
            continue;
        }
        const char *key = p, *key_end = p = skip_string(p, end);
        while (p < end && blank(*p)) p++;
        if (p == end || *p != ':') continue; /* a value */
        do p++;
        while (p < end && blank(*p));
        if (p == end) break;
        if (depth == 1 && *p == '{' && names(key, key_end, "model")) {
            in_model = true;
            depth++;
            p++;
        } else if (depth == 2 && in_model && (*p == '{' || *p == '[')) {
            pf_str *out = names(key, key_end, "vocab")    ? vocab
                          : names(key, key_end, "merges") ? merges
                                                          : NULL;
            if (out == NULL) continue;
            const char *stop = skip_container(p, end);
            pf_buf_add(rest, kept, (size_t)(p - kept));
            pf_buf_adds(rest, "null");
            *out = (pf_str){p, (size_t)(stop - p)};
            for (; p < stop; p++)
                if (*p == '\n') pf_buf_addc(rest, '\n');
            kept = p;
        }
    }
    pf_buf_add(rest, kept, (size_t)(end - kept));
    return pf_buf_ok(rest) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}
