/* charsmap.c - walks the trie of a precompiled_charsmap. The odd rule about graphemes (a short one
 * is replaced by what its shortest prefix stands for) is what SentencePiece's files were made with,
 * and `tokenizers` follows it. */
#include "token/charsmap.h"

#include "token/unicode_class.h"

#include <string.h>
#include <utf8proc.h>

#include "base/banned.h"

static uint32_t unit(const pf_charsmap *m, size_t i) {
    const unsigned char *p = m->units + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static size_t offset(uint32_t u) {
    return (size_t)(u >> 10) << ((u & (1u << 9)) >> 6);
}

peft_status pf_charsmap_init(pf_charsmap *m, const unsigned char *data, size_t n, peft_error *err) {
    memset(m, 0, sizeof *m);
    if (n < 4) return PF_FAIL(err, PEFT_E_FORMAT, "precompiled_charsmap is cut off");
    m->units = data;
    size_t trie = unit(m, 0);
    if (trie > n - 4 || trie < 4)
        return PF_FAIL(err, PEFT_E_FORMAT, "precompiled_charsmap: a trie of %zu bytes in %zu", trie,
                       n);
    m->units = data + 4;
    m->n_units = trie / 4;
    m->strings = (const char *)data + 4 + trie;
    m->strings_n = n - 4 - trie;
    size_t bad;
    if (!pf_utf8_valid(m->strings, m->strings_n, &bad))
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "precompiled_charsmap: replacement text is not UTF-8 at byte %zu", bad);
    return PEFT_OK;
}

bool pf_charsmap_find(const pf_charsmap *m, const char *p, size_t n, pf_str *out) {
    size_t node = offset(unit(m, 0));
    for (size_t i = 0; i < n && p[i] != 0; i++) {
        unsigned char c = (unsigned char)p[i];
        node ^= c;
        if (node >= m->n_units) return false;
        uint32_t u = unit(m, node);
        if ((u & (1u << 31 | 0xff)) != c) return false;
        node ^= offset(u);
        if (!(u >> 8 & 1)) continue;
        if (node >= m->n_units) return false;
        size_t at = unit(m, node) & 0x7fffffff;
        if (at > m->strings_n || (at < m->strings_n && !pf_u8_is_start(m->strings[at])))
            return false;
        const char *end = at < m->strings_n ? memchr(m->strings + at, 0, m->strings_n - at) : NULL;
        out->p = m->strings + at;
        out->n = end == NULL ? m->strings_n - at : (size_t)(end - out->p);
        return true;
    }
    return false;
}

static int64_t count_chars(const char *p, size_t n) {
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) count += pf_u8_is_start(p[i]);
    return count;
}

/* The n_old characters at the cursor become `text`; which offsets they get is `tokenizers`' rule.
 */
static peft_status replace(pf_ncursor *c, int64_t n_old, pf_str text, peft_error *err) {
    int64_t n_new = count_chars(text.p, text.n), i = 0;
    if (n_new == 0) pf_ncursor_skip(c, (uint32_t)n_old);
    for (size_t at = 0; at < text.n; i++) {
        uint32_t cp;
        unsigned len = pf_u8_get(text.p + at, &cp);
        int64_t change = i >= n_old ? 1 : 0;
        if (i == n_new - 1 && n_new < n_old) change = n_new - n_old;
        PF_TRY(pf_ncursor_put(c, cp, change, err));
        at += len;
    }
    return PEFT_OK;
}

/* Byte behind the grapheme that starts at `at`. */
static uint32_t grapheme_end(const pf_ntext *t, uint32_t at) {
    uint32_t a, b;
    utf8proc_int32_t state = 0;
    uint32_t end = at + pf_u8_get(t->text + at, &a);
    while (end < t->n) {
        unsigned len = pf_u8_get(t->text + end, &b);
        if (a < 0x80 && b < 0x80) { /* the usual case, without the library */
            if (!(a == '\r' && b == '\n')) return end;
        } else if (utf8proc_grapheme_break_stateful((utf8proc_int32_t)a, (utf8proc_int32_t)b,
                                                    &state)) {
            return end;
        }
        end += len;
        a = b;
    }
    return end;
}

peft_status pf_charsmap_apply(const pf_charsmap *m, const pf_ntext *in, pf_ntext *out,
                              peft_error *err) {
    pf_ncursor c = {in, out, 0};
    while (c.pos < in->n) {
        uint32_t end = grapheme_end(in, c.pos);
        pf_str text;
        if (end - c.pos < 6 && pf_charsmap_find(m, in->text + c.pos, end - c.pos, &text)) {
            PF_TRY(replace(&c, count_chars(in->text + c.pos, end - c.pos), text, err));
            continue;
        }
        while (c.pos < end) {
            uint32_t len = pf_u8_len(in->text + c.pos);
            if (pf_charsmap_find(m, in->text + c.pos, len, &text))
                PF_TRY(replace(&c, 1, text, err));
            else
                PF_TRY(pf_ncursor_copy(&c, len, err));
        }
    }
    return PEFT_OK;
}
