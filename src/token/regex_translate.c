/* regex_translate.c - a pattern of Oniguruma (Ruby syntax) rewritten for PCRE2.
 *
 * One pass over the pattern. Where the last atom began is remembered, because "x{2,3}+" means
 * "(?:x{2,3})+" there and a possessive repeat in PCRE2. Inside [...] unions of nested classes are
 * flattened; intersections and negated nested classes cannot be, and are refused. */
#include "token/token_regex.h"
#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

enum { MAX_DEPTH = 64, GC_ND = 13 /* Nd in pf_uclass_gc_names */ };

typedef struct translator {
    const char *p, *end;
    pf_buf *out;
    size_t atom;             /* where the last atom began in out */
    size_t group[MAX_DEPTH]; /* where the open groups began */
    int depth;
    peft_error *err;
} translator;

static peft_status refuse(const translator *t, const char *what) {
    return PF_FAIL(t->err, PEFT_E_UNSUPPORTED, "%s is not supported in a pattern", what);
}

/* The code points whose properties have a bit of `any`, except those PCRE2 knows by itself when
 * only_new. */
static void add_ranges(pf_buf *out, uint32_t any, int gc, bool only_new) {
    uint32_t start = 0;
    bool inside = false;
    for (uint32_t cp = 0; cp <= 0x110000; cp++) {
        bool in = false;
        if (cp < 0x110000 && (cp < 0xd800 || cp > 0xdfff)) {
            uint32_t c = pf_uclass(cp);
            in = (c & any) != 0 || (gc >= 0 && (int)(c & PF_U_GC) == gc);
            if (only_new && !(c & PF_U_NEW)) in = false;
        }
        if (in && !inside) start = cp;
        if (!in && inside) {
            if (cp - 1 == start)
                pf_buf_addf(out, "\\x{%x}", start);
            else
                pf_buf_addf(out, "\\x{%x}-\\x{%x}", start, cp - 1);
        }
        inside = in;
    }
}

static const char spaces[] = "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{"
                             "2029}\\x{202f}\\x{205f}\\x{3000}";
static const char non_spaces[] = "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{"
                                 "1681}-\\x{1fff}\\x{200b}-\\x{2027}"
                                 "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{"
                                 "3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}";

/* \p{...} or \P{...}, t->p behind the P. */
static peft_status property(translator *t, bool negated, bool in_class) {
    const char *close =
        t->p < t->end && *t->p == '{' ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    if (close == NULL) return refuse(t, "\\p without {...}");
    const char *name = t->p + 1;
    if (name < close && *name == '^') {
        negated = !negated;
        name++;
    }
    size_t n = (size_t)(close - name);
    if (n == 0 || n > 40) return refuse(t, "\\p{} with this name");
    t->p = close + 1;
    uint32_t major = 0;
    int gc = -1;
    static const char letters[] = "CLMNPSZ";
    if (n == 1 && strchr(letters, *name) != NULL)
        major = (uint32_t)PF_U_C << (strchr(letters, *name) - letters);
    for (int i = 0; i < PF_U_GC_COUNT; i++)
        if (n == 2 && memcmp(name, pf_uclass_gc_names[i], 2) == 0) gc = i;
    if (in_class && negated) {
        pf_buf_adds(t->out, "\\P{");
    } else {
        if (!in_class) pf_buf_adds(t->out, negated ? "[^" : "[");
        pf_buf_adds(t->out, "\\p{");
    }
    pf_buf_add(t->out, name, n);
    pf_buf_addc(t->out, '}');
    if (!(in_class && negated) && (major != 0 || gc >= 0)) add_ranges(t->out, major, gc, true);
    if (!in_class) pf_buf_addc(t->out, ']');
    return PEFT_OK;
}

static void set(translator *t, bool in_class, const char *members, bool negated) {
    if (!in_class) pf_buf_adds(t->out, negated ? "[^" : "[");
    pf_buf_adds(t->out, members);
    if (!in_class) pf_buf_addc(t->out, ']');
}

/* Behind a backslash. */
static peft_status escape(translator *t, bool in_class) {
    if (t->p == t->end) return refuse(t, "a backslash at the end");
    char c = *t->p++;
    switch (c) {
    case 's':
        set(t, in_class, spaces, false);
        return PEFT_OK;
    case 'S':
        set(t, in_class, non_spaces, false);
        return PEFT_OK;
    case 'h':
        set(t, in_class, "0-9A-Fa-f", false);
        return PEFT_OK;
    case 'd':
        if (!in_class) pf_buf_addc(t->out, '[');
        pf_buf_adds(t->out, "\\p{Nd}");
        add_ranges(t->out, 0, GC_ND, true);
        if (!in_class) pf_buf_addc(t->out, ']');
        return PEFT_OK;
    case 'H':
        if (in_class) return refuse(t, "\\H in [...]");
        set(t, false, "0-9A-Fa-f", true);
        return PEFT_OK;
    case 'w':
    case 'W':
        if (in_class && c == 'W') return refuse(t, "\\W in [...]");
        if (!in_class) pf_buf_adds(t->out, c == 'W' ? "[^" : "[");
        add_ranges(t->out, PF_U_ONIG_WORD, -1, false);
        if (!in_class) pf_buf_addc(t->out, ']');
        return PEFT_OK;
    case 'p':
    case 'P':
        return property(t, c == 'P', in_class);
    case 'v':
        pf_buf_adds(t->out, "\\x0b");
        return PEFT_OK;
    case 'u':
        if (t->end - t->p < 4) return refuse(t, "\\u without four digits");
        pf_buf_addf(t->out, "\\x{%.4s}", t->p);
        t->p += 4;
        return PEFT_OK;
    default:
        break;
    }
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter && strchr("abefnrtxADGKRXBzZ", c) == NULL) {
        if (strchr("gkNOQEyY", c) != NULL) return refuse(t, "this escape sequence");
        pf_buf_addc(t->out, c); /* an unknown letter stands for itself */
        return PEFT_OK;
    }
    pf_buf_addc(t->out, '\\');
    pf_buf_addc(t->out, c);
    return PEFT_OK;
}

/* The inside of [...], t->p behind the bracket. */
static peft_status char_class(translator *t) {
    pf_buf_addc(t->out, '[');
    if (t->p < t->end && *t->p == '^') {
        pf_buf_addc(t->out, '^');
        t->p++;
    }
    int nested = 0;
    bool first = true;
    while (t->p < t->end) {
        char c = *t->p++;
        if (c == ']' && !first) {
            if (nested-- == 0) {
                pf_buf_addc(t->out, ']');
                return PEFT_OK;
            }
            continue;
        }
        first = false;
        if (c == '[' && t->p < t->end && *t->p == ':') {
            const char *close = memchr(t->p, ']', (size_t)(t->end - t->p));
            size_t n = close == NULL ? 0 : (size_t)(close - t->p);
            if (n == 7 && memcmp(t->p, ":space:", 7) == 0)
                set(t, true, spaces, false);
            else if (n == 8 && memcmp(t->p, ":xdigit:", 8) == 0)
                set(t, true, "0-9A-Fa-f", false);
            else
                return refuse(t, "this [:class:]"); /* what is in them is not what is in PCRE2's */
            t->p = close + 1;
        } else if (c == '[') {
            if (t->p < t->end && *t->p == '^') return refuse(t, "[^...] inside [...]");
            nested++;
        } else if (c == '&' && t->p < t->end && *t->p == '&') {
            return refuse(t, "&& inside [...]");
        } else if (c == '\\') {
            PF_TRY(escape(t, true));
        } else if (c == ']') {
            pf_buf_adds(t->out, "\\]");
        } else {
            pf_buf_addc(t->out, c);
        }
    }
    return refuse(t, "[ without ]");
}

static peft_status open_group(translator *t) {
    if (t->depth == MAX_DEPTH) return refuse(t, "nesting deeper than 64 groups");
    t->group[t->depth++] = t->out->len;
    pf_buf_addc(t->out, '(');
    if (t->end - t->p < 2 || *t->p != '?') return PEFT_OK;
    pf_buf_addc(t->out, *t->p++);
    while (t->p < t->end && strchr("imx-", *t->p) != NULL) { /* Ruby's m is dot-all */
        pf_buf_addc(t->out, *t->p == 'm' ? 's' : *t->p);
        t->p++;
    }
    if (t->p == t->end) return refuse(t, "( without )");
    if (strchr(":=!<>)", *t->p) == NULL) return refuse(t, "this kind of group");
    if (*t->p == ')') { /* (?i) : switches for the rest of the enclosing group */
        t->depth--;
        pf_buf_addc(t->out, *t->p++);
        return PEFT_OK;
    }
    pf_buf_addc(t->out, *t->p++);
    return PEFT_OK;
}

/* {n}, {n,}, {n,m} or {,m} at t->p (behind the brace); anything else is a plain brace. */
static void braces(translator *t) {
    const char *q = t->p;
    char text[24];
    size_t n = 0;
    bool comma = false, digit = false;
    while (q < t->end && n < sizeof text - 2 &&
           ((*q >= '0' && *q <= '9') || (*q == ',' && !comma))) {
        if (*q == ',') {
            comma = true;
            if (n == 0) text[n++] = '0';
        } else {
            digit = true;
        }
        text[n++] = *q++;
    }
    if (!digit || q == t->end || *q != '}') {
        t->atom = t->out->len;
        pf_buf_adds(t->out, "\\{");
        return;
    }
    t->p = q + 1;
    bool again = t->p < t->end && *t->p == '+';
    if (again) { /* open a group before the atom */
        size_t tail = t->out->len - t->atom;
        pf_buf_adds(t->out, "(?:");
        if (!pf_buf_ok(t->out)) return;
        memmove(t->out->data + t->atom + 3, t->out->data + t->atom, tail);
        memcpy(t->out->data + t->atom, "(?:", 3);
    }
    pf_buf_addc(t->out, '{');
    pf_buf_add(t->out, text, n);
    pf_buf_addc(t->out, '}');
    if (again) {
        pf_buf_adds(t->out, ")+");
        t->p++;
    }
}

peft_status pf_regex_translate(pf_buf *out, const char *pattern, size_t n, peft_error *err) {
    translator t = {.p = pattern, .end = pattern + n, .out = out, .err = err};
    while (t.p < t.end) {
        size_t before = out->len;
        char c = *t.p++;
        switch (c) {
        case '\\':
            PF_TRY(escape(&t, false));
            break;
        case '[':
            PF_TRY(char_class(&t));
            break;
        case '(':
            PF_TRY(open_group(&t));
            break;
        case ')':
            if (t.depth == 0) return refuse(&t, ") without (");
            before = t.group[--t.depth];
            pf_buf_addc(out, c);
            break;
        case '{':
            braces(&t);
            continue;
        case '*':
        case '+':
        case '?':
            pf_buf_addc(out, c);
            continue;
        default:
            pf_buf_addc(out, c); /* the bytes of one character are one atom */
            while (t.p < t.end && !pf_u8_is_start(*t.p)) pf_buf_addc(out, *t.p++);
            break;
        }
        t.atom = before;
    }
    if (t.depth != 0) return refuse(&t, "( without )");
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}
