/* json_scan.c - see json_scan.h. RFC 8259 to the letter for what is there: escapes, surrogate
 * pairs, white space. */
#include "formats/json_scan.h"

#include "base/str.h"

#include <string.h>

#include "base/banned.h"

peft_status pf_scan_init(pf_scan *s, const char *text, size_t n, size_t offset, const char *path,
                         pf_arena *arena, peft_error *err) {
    *s =
        (pf_scan){.text = text, .n = n, .offset = offset, .path = path, .arena = arena, .err = err};
    size_t bad;
    return pf_utf8_valid(text, n, &bad) ? PEFT_OK : pf_scan_fail(s, bad, "not valid UTF-8");
}

peft_status pf_scan_fail(const pf_scan *s, size_t at, const char *what) {
    return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: header, byte %zu: %s", s->path, s->offset + at,
                   what);
}

/* The next character that is not white space, or 0 at the end (a NUL is no token either). */
static char peek(pf_scan *s) {
    while (s->at < s->n) {
        char c = s->text[s->at];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
        s->at++;
    }
    return '\0';
}

peft_status pf_scan_expect(pf_scan *s, char c, const char *what) {
    if (peek(s) != c) {
        return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: header, byte %zu: expected %s%s", s->path,
                       s->offset + s->at, what, s->at >= s->n ? ", but the header ends" : "");
    }
    s->at++;
    return PEFT_OK;
}

peft_status pf_scan_begin(pf_scan *s, char open, char close, const char *what, bool *more) {
    PF_TRY(pf_scan_expect(s, open, what));
    *more = peek(s) != close;
    if (!*more) s->at++;
    return PEFT_OK;
}

peft_status pf_scan_another(pf_scan *s, char close, const char *what, bool *more) {
    char c = peek(s);
    if (c != ',' && c != close) return pf_scan_expect(s, ',', what);
    s->at++;
    *more = c == ',';
    return PEFT_OK;
}

static bool hex4(const pf_scan *s, size_t at, uint32_t *out) {
    uint32_t v = 0;
    if (at > s->n || s->n - at < 4) return false;
    for (size_t i = at; i < at + 4; i++) {
        char c = s->text[i];
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t)(c - 'A') + 10;
        else
            return false;
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

/* s->at stands behind "\u". A pair of surrogates makes one code point; a lone one is no text. */
static peft_status escaped_unicode(pf_scan *s, uint32_t *cp) {
    size_t start = s->at - 2;
    uint32_t low;
    if (!hex4(s, s->at, cp)) return pf_scan_fail(s, start, "\\u needs four hexadecimal digits");
    s->at += 4;
    bool lone = *cp >= 0xdc00 && *cp < 0xe000;
    if (*cp >= 0xd800 && *cp < 0xdc00) {
        lone = s->n - s->at < 6 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u' ||
               !hex4(s, s->at + 2, &low) || low < 0xdc00 || low > 0xdfff;
        if (!lone) {
            s->at += 6;
            *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    if (lone) return pf_scan_fail(s, start, "a \\u surrogate without its other half");
    if (*cp == 0) return pf_scan_fail(s, start, "a NUL character in text");
    return PEFT_OK;
}

/* Unescaping never makes text longer, so the room it takes in the file is room enough; finding the
 * closing quote first keeps the allocation to that. */
peft_status pf_scan_text(pf_scan *s, const char *what, const char **out) {
    static const char escapes[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    PF_TRY(pf_scan_expect(s, '"', what));
    size_t end = s->at, n = 0;
    while (end < s->n && s->text[end] != '"') end += s->text[end] == '\\' ? 2 : 1;
    if (end >= s->n) return pf_scan_fail(s, s->at - 1, "text without a closing quote");
    char *buf = pf_arena_alloc(s->arena, end - s->at + 1);
    PF_CHECK_ALLOC(buf, s->err);
    while (s->at < end) {
        char c = s->text[s->at++];
        if ((unsigned char)c < 0x20)
            return pf_scan_fail(s, s->at - 1, "a bare control character in text");
        if (c != '\\') {
            buf[n++] = c;
            continue;
        }
        char e = s->text[s->at++];
        const char *known = e != '\0' ? strchr(escapes, e) : NULL;
        if (known != NULL) {
            buf[n++] = values[known - escapes];
        } else if (e == 'u') {
            uint32_t cp;
            PF_TRY(escaped_unicode(s, &cp));
            n += (size_t)pf_utf8_encode(cp, buf + n);
        } else {
            return pf_scan_fail(s, s->at - 2, "an unknown escape in text");
        }
    }
    s->at = end + 1;
    buf[n] = '\0';
    *out = buf;
    return PEFT_OK;
}

peft_status pf_scan_size(pf_scan *s, const char *what, int64_t *out) {
    uint64_t v = 0;
    bool fits = true;
    char first = peek(s);
    size_t start = s->at;
    while (s->at < s->n && s->text[s->at] >= '0' && s->text[s->at] <= '9') {
        uint64_t digit = (uint64_t)(s->text[s->at++] - '0');
        if (v > ((uint64_t)INT64_MAX - digit) / 10)
            fits = false;
        else
            v = v * 10 + digit;
    }
    size_t digits = s->at - start;
    char after = s->at < s->n ? s->text[s->at] : '\0';
    bool whole = digits > 0 && (first != '0' || digits == 1);
    if (!whole || after == '.' || after == 'e' || after == 'E' || !fits) {
        return PF_FAIL(s->err, PEFT_E_FORMAT,
                       "%s: header, byte %zu: %s must be a whole number from 0 to 2^63-1", s->path,
                       s->offset + start, what);
    }
    *out = (int64_t)v;
    return PEFT_OK;
}

peft_status pf_scan_end(pf_scan *s) {
    if (peek(s) == '\0' && s->at >= s->n) return PEFT_OK;
    return pf_scan_fail(s, s->at, "something stands after the closing '}'; only white space may");
}
