/* ntext.c - aligned text: growth, slices, and the cursor that normalizers write through. */
#include "token/ntext.h"

#include "base/mem.h"
#include "base/str.h"
#include "token/unicode_class.h"

#include <string.h>

void *pf_token_grown(void *data, uint32_t *cap, size_t need, size_t size) {
    size_t want = (size_t)*cap + *cap / 2 + 64, bytes;
    if (want < need) want = need;
    if (want > UINT32_MAX || !pf_mul_size(want, size, &bytes)) return NULL;
    void *p = pf_realloc(data, bytes);
    if (p != NULL) *cap = (uint32_t)want;
    return p;
}

void pf_ntext_release(pf_ntext *t) {
    if (t == NULL) return;
    pf_free(t->own);
    pf_free(t->from);
    pf_free(t->to);
    memset(t, 0, sizeof *t);
}

void pf_ntext_clear(pf_ntext *t) {
    t->text = t->own != NULL ? t->own : "";
    t->n = 0;
    t->aligned = true;
    t->origin = 0;
}

void pf_ntext_borrow(pf_ntext *t, const char *text, uint32_t n, uint32_t origin) {
    t->text = text;
    t->n = n;
    t->aligned = false;
    t->origin = origin;
}

static peft_status reserve(pf_ntext *t, uint32_t more, peft_error *err) {
    size_t need = (size_t)t->n + more;
    uint32_t limit = t->limit == 0 ? PF_NTEXT_MAX : t->limit;
    if (need > limit)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "the tokenizer's normalizers make the text longer than %u bytes", limit);
    PF_TOKEN_GROW(t->own, t->cap, need, err);
    t->text = t->own;
    uint32_t cap = t->align_cap;
    PF_TOKEN_GROW(t->from, cap, need, err);
    PF_TOKEN_GROW(t->to, t->align_cap, need, err);
    return PEFT_OK;
}

peft_status pf_ntext_add(pf_ntext *t, const char *bytes, uint32_t n, uint32_t from, uint32_t to,
                         peft_error *err) {
    PF_TRY(reserve(t, n, err));
    if (n == 0) return PEFT_OK; /* own may be NULL still */
    memcpy(t->own + t->n, bytes, n);
    for (uint32_t i = 0; i < n; i++) {
        t->from[t->n + i] = from;
        t->to[t->n + i] = to;
    }
    t->n += n;
    return PEFT_OK;
}

peft_status pf_ntext_append(pf_ntext *t, const pf_ntext *src, uint32_t begin, uint32_t end,
                            peft_error *err) {
    uint32_t n = end - begin, at = t->n;
    if (n == 0) return PEFT_OK;
    PF_TRY(reserve(t, n, err));
    memcpy(t->own + at, src->text + begin, n);
    t->n += n;
    if (src->aligned) {
        memcpy(t->from + at, src->from + begin, n * sizeof *t->from);
        memcpy(t->to + at, src->to + begin, n * sizeof *t->to);
        return PEFT_OK;
    }
    for (uint32_t i = begin; i < end;) {
        uint32_t len = pf_u8_len(src->text + i), from = src->origin + i;
        for (uint32_t k = 0; k < len; k++, at++) {
            t->from[at] = from;
            t->to[at] = from + len;
        }
        i += len;
    }
    return PEFT_OK;
}

peft_status pf_ntext_set(pf_ntext *t, const char *text, size_t n, peft_error *err) {
    size_t bad;
    if (n > PF_NTEXT_MAX)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "text of %zu bytes: the tokenizer takes up to 1 GiB", n);
    if (pf_utf8_valid(text, n, &bad)) {
        pf_ntext_borrow(t, text, (uint32_t)n, 0);
        return PEFT_OK;
    }
    pf_ntext_clear(t);
    for (uint32_t i = 0; i < n;) {
        bool valid;
        uint32_t len = pf_u8_scan(text + i, n - i, &valid);
        PF_TRY(
            pf_ntext_add(t, valid ? text + i : "\xef\xbf\xbd", valid ? len : 3, i, i + len, err));
        i += len;
    }
    return PEFT_OK;
}

void pf_ntext_range(const pf_ntext *t, uint32_t begin, uint32_t end, uint32_t *from, uint32_t *to) {
    if (t->aligned) {
        if (begin < t->n) {
            *from = t->from[begin];
            *to = end > begin ? t->to[end - 1] : *from;
        } else {
            *from = *to = t->n > 0 ? t->to[t->n - 1] : t->origin;
        }
        return;
    }
    while (begin > 0 && begin < t->n && !pf_u8_is_start(t->text[begin])) begin--;
    while (end < t->n && !pf_u8_is_start(t->text[end])) end++;
    *from = t->origin + begin;
    *to = t->origin + end;
}

/* The range of the character that byte i of the input belongs to; past the end, of the last one. */
static void range_at(const pf_ntext *t, uint32_t i, uint32_t *from, uint32_t *to) {
    if (t->n == 0) {
        *from = *to = t->origin;
        return;
    }
    if (i >= t->n) i = t->n - 1;
    pf_ntext_range(t, i, i + 1, from, to);
}

void pf_ncursor_skip(pf_ncursor *c, uint32_t n_chars) {
    for (; n_chars > 0 && c->pos < c->in->n; n_chars--) c->pos += pf_u8_len(c->in->text + c->pos);
}

peft_status pf_ncursor_put(pf_ncursor *c, uint32_t cp, int64_t change, peft_error *err) {
    uint32_t from, to;
    if (change > 0) {
        if (c->pos > 0) {
            range_at(c->in, c->pos - 1, &from, &to);
        } else {
            range_at(c->in, 0, &from, &to);
            to = from;
        }
    } else {
        range_at(c->in, c->pos, &from, &to);
        if (change < -(int64_t)c->in->n) change = -(int64_t)c->in->n;
        pf_ncursor_skip(c, (uint32_t)(1 - change));
    }
    char utf8[4];
    return pf_ntext_add(c->out, utf8, (uint32_t)pf_utf8_encode(cp, utf8), from, to, err);
}

peft_status pf_ncursor_copy(pf_ncursor *c, uint32_t n_bytes, peft_error *err) {
    PF_TRY(pf_ntext_append(c->out, c->in, c->pos, c->pos + n_bytes, err));
    c->pos += n_bytes;
    return PEFT_OK;
}
