/* unicode_form.c - Unicode normalization (UAX 15) over aligned text.
 *
 * Most text is normal already. A character at which nothing can happen whatever stands before it is
 * "calm"; a calm character followed by a calm one is copied. Everything from a calm character up to
 * the next calm one that follows others is one stretch, and stretches are normalized on their own:
 * decompose, sort marks by class, compose.
 *
 * A stretch's characters carry the change that tells the cursor what they replace (ntext.h); sums
 * of changes are kept when characters compose, as the library does that made the offsets this has
 * to agree with. */
#include "token/unicode_form.h"

#include "base/mem.h"
#include "token/unicode_class.h"

#include <string.h>
#include <utf8proc.h>

#include "base/banned.h"

enum { HANGUL = 0xac00, HANGUL_N = 11172, JAMO_L = 0x1100, JAMO_V = 0x1161, JAMO_T = 0x11a7 };

typedef struct item {
    uint32_t cp;
    uint32_t ccc; /* canonical combining class */
    int64_t change;
} item;

typedef struct stretch {
    item *items, *sorted;
    uint32_t n, cap, sorted_cap;
} stretch;

static bool known(uint32_t cp) {
    return (pf_uclass(cp) & PF_U_NORMAL) != 0;
}

static uint32_t combining_class(uint32_t cp) {
    if (cp < 0x300 || !known(cp)) return 0;
    return (uint32_t)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

static bool calm(uint32_t cp, bool canonical_compose) {
    if (cp < 0xa0) return true;
    if (cp >= 0x1160 && cp <= 0x11ff) return false; /* vowels and finals of Hangul */
    uint32_t c = pf_uclass(cp);
    return canonical_compose ? !(c & (PF_U_NFC | PF_U_MARK)) : !(c & PF_U_NORMAL);
}

static peft_status decompose(stretch *s, uint32_t cp, bool compatible, peft_error *err) {
    utf8proc_int32_t parts[32];
    int boundclass = 0;
    utf8proc_ssize_t n = 1;
    parts[0] = (utf8proc_int32_t)cp;
    if (cp >= 0x80 && known(cp)) {
        n = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, (utf8proc_ssize_t)PF_COUNT(parts),
                                    UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0),
                                    &boundclass);
        if (n < 1 || n > (utf8proc_ssize_t)PF_COUNT(parts)) {
            n = 1;
            parts[0] = (utf8proc_int32_t)cp;
        }
    }
    PF_TOKEN_GROW(s->items, s->cap, (size_t)s->n + (size_t)n, err);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        s->items[s->n++] =
            (item){(uint32_t)parts[i], combining_class((uint32_t)parts[i]), i == 0 ? 0 : 1};
    return PEFT_OK;
}

/* Stable, by class, of a run of marks: counting sort, since a hostile text may hold a million in a
 * row. */
static peft_status sort_marks(stretch *s, uint32_t begin, uint32_t end, peft_error *err) {
    uint32_t n = end - begin, count[257] = {0};
    bool sorted = true;
    for (uint32_t i = begin + 1; i < end; i++) sorted &= s->items[i - 1].ccc <= s->items[i].ccc;
    if (sorted) return PEFT_OK;
    PF_TOKEN_GROW(s->sorted, s->sorted_cap, n, err);
    for (uint32_t i = begin; i < end; i++) count[s->items[i].ccc + 1]++;
    for (uint32_t i = 1; i < 257; i++) count[i] += count[i - 1];
    for (uint32_t i = begin; i < end; i++) s->sorted[count[s->items[i].ccc]++] = s->items[i];
    memcpy(s->items + begin, s->sorted, n * sizeof *s->items);
    return PEFT_OK;
}

/* The character that a and b compose to, 0 if they do not. */
static uint32_t composed(uint32_t a, uint32_t b) {
    if (a >= JAMO_L && a < JAMO_L + 19 && b >= JAMO_V && b < JAMO_V + 21)
        return HANGUL + ((a - JAMO_L) * 21 + (b - JAMO_V)) * 28;
    if (a >= HANGUL && a < HANGUL + HANGUL_N)
        return (a - HANGUL) % 28 == 0 && b > JAMO_T && b < JAMO_T + 28 ? a + (b - JAMO_T) : 0;
    if (b < 0x300 || !known(b)) return 0;
    utf8proc_int32_t pair[2] = {(utf8proc_int32_t)a, (utf8proc_int32_t)b};
    if (utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1) return 0;
    return known((uint32_t)pair[0]) ? (uint32_t)pair[0] : 0;
}

/* In place: s->items[0..n) composed. A mark stays behind its starter when it is blocked or has no
 * composite. */
static void compose(stretch *s) {
    uint32_t starter = UINT32_MAX, out = 0,
             last = 0; /* last: class of the mark before, 0 when none stands between */
    for (uint32_t i = 0; i < s->n; i++) {
        item it = s->items[i];
        if (starter != UINT32_MAX && (last == 0 || last < it.ccc)) {
            uint32_t c = composed(s->items[starter].cp, it.cp);
            if (c != 0) {
                s->items[starter].cp = c;
                s->items[starter].change += it.change - 1;
                continue;
            }
        }
        if (it.ccc == 0) {
            starter = out;
            last = 0;
        } else {
            last = it.ccc;
        }
        s->items[out++] = it;
    }
    s->n = out;
}

static peft_status one_stretch(stretch *s, pf_ncursor *c, uint32_t end, bool compatible,
                               bool composing, peft_error *err) {
    s->n = 0;
    for (uint32_t at = c->pos; at < end;) {
        uint32_t cp;
        at += pf_u8_get(c->in->text + at, &cp);
        PF_TRY(decompose(s, cp, compatible, err));
    }
    for (uint32_t i = 0; i < s->n;) {
        uint32_t begin = i;
        while (i < s->n && s->items[i].ccc != 0) i++;
        if (i > begin) PF_TRY(sort_marks(s, begin, i, err));
        if (i < s->n) i++;
    }
    if (composing) compose(s);
    for (uint32_t i = 0; i < s->n; i++)
        PF_TRY(pf_ncursor_put(c, s->items[i].cp, s->items[i].change, err));
    c->pos = end;
    return PEFT_OK;
}

peft_status pf_unicode_form(const pf_ntext *in, pf_ntext *out, bool compatible, bool compose_too,
                            peft_error *err) {
    stretch s = {0};
    pf_ncursor c = {in, out, 0};
    bool fast = compose_too && !compatible;
    peft_status status = PEFT_OK;
    while (c.pos < in->n && status == PEFT_OK) {
        uint32_t cp, at = c.pos, prev = c.pos; /* prev: start of the last calm character */
        while (at < in->n) {
            uint32_t len = pf_u8_get(in->text + at, &cp);
            if (!calm(cp, fast)) break;
            prev = at;
            at += len;
        }
        if (at == in->n) prev = at;
        if (prev > c.pos) status = pf_ncursor_copy(&c, prev - c.pos, err);
        if (status != PEFT_OK || c.pos == in->n) break;
        while (at < in->n) { /* up to the next calm character */
            uint32_t len = pf_u8_get(in->text + at, &cp);
            if (calm(cp, fast)) break;
            at += len;
        }
        status = one_stretch(&s, &c, at, compatible, compose_too, err);
    }
    pf_free(s.items);
    pf_free(s.sorted);
    return status;
}
