/* bpe.c - merging. */
#include "token/bpe.h"

#include "base/mem.h"
#include "token/unicode_class.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

enum { SCAN = 40, NEIGHBOUR_BITS = 18, CHAR_ROOM = 256 };

void pf_bpe_init(pf_bpe *m, const pf_vocab *vocab) {
    memset(m, 0, sizeof *m);
    m->vocab = vocab;
    m->unk_id = -1;
}

void pf_bpe_release(pf_bpe *m) {
    if (m == NULL) return;
    pf_free(m->merges);
    pf_free(m->neighbours);
    memset(m, 0, sizeof *m);
}

/* ---- the table of merges ---- */

static uint32_t pair_slot(const pf_bpe *m, int32_t left, int32_t right) {
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32 ^ h >> 51) & (m->n_slots - 1);
}

static const pf_merge *find_merge(const pf_bpe *m, int32_t left, int32_t right) {
    if (m->n_slots == 0) return NULL;
    for (uint32_t i = pair_slot(m, left, right);; i = (i + 1) & (m->n_slots - 1)) {
        const pf_merge *e = &m->merges[i];
        if (e->left == left && e->right == right) return e;
        if (e->left < 0) return NULL;
    }
}

peft_status pf_bpe_reserve(pf_bpe *m, size_t n, peft_error *err) {
    uint32_t slots = 16;
    if (n > (1u << 28)) return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%zu merges are too many", n);
    while (slots < n + n / 2) slots *= 2;
    m->merges = pf_malloc(slots * sizeof *m->merges);
    if (m->merges == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for %zu merges", n);
    m->n_slots = slots;
    for (uint32_t i = 0; i < slots; i++) m->merges[i] = (pf_merge){-1, -1, 0, -1};
    return PEFT_OK;
}

peft_status pf_bpe_merge(pf_bpe *m, uint32_t rank, int32_t left, int32_t right, int32_t id,
                         peft_error *err) {
    if (m->n_merges + 1 >= m->n_slots)
        return PF_FAIL(err, PEFT_E_STATE, "more merges than pf_bpe_reserve was told");
    uint32_t i = pair_slot(m, left, right);
    while (m->merges[i].left >= 0 && !(m->merges[i].left == left && m->merges[i].right == right))
        i = (i + 1) & (m->n_slots - 1);
    if (m->merges[i].left < 0) m->n_merges++;
    m->merges[i] = (pf_merge){left, right, rank, id};
    return PEFT_OK;
}

static uint32_t neighbour_bit(uint32_t a, uint32_t b) {
    uint32_t h = (a * 0x9e3779b1u) ^ (b * 0x85ebca6bu);
    return (h ^ h >> 16) & ((1u << NEIGHBOUR_BITS) - 1);
}

static bool neighbours(const pf_bpe *m, uint32_t a, uint32_t b) {
    uint32_t bit = neighbour_bit(a, b);
    return (m->neighbours[bit >> 5] >> (bit & 31) & 1) != 0;
}

static bool byte_token(pf_str s) {
    return s.n == 6 && memcmp(s.p, "<0x", 3) == 0 && s.p[5] == '>';
}

/* Collects the pairs of characters that meet in some merge. Cutting is given up where a symbol may
 * stand for anything but the characters it is written with, or where what is unknown depends on
 * more than the cut-off part. */
static peft_status find_cuts(pf_bpe *m, peft_error *err) {
    int n_bytes = 0;
    for (int i = 0; i < 256; i++) n_bytes += m->byte_id[i] >= 0;
    m->cuts = !m->vocab->bytes && m->prefix.n == 0 && m->suffix.n == 0 &&
              !(m->byte_fallback && n_bytes != 0 && n_bytes != 256);
    if (!m->cuts) return PEFT_OK;
    m->neighbours = pf_calloc((1u << NEIGHBOUR_BITS) / 32, sizeof *m->neighbours);
    if (m->neighbours == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
    for (uint32_t i = 0; i < m->n_slots; i++) {
        const pf_merge *e = &m->merges[i];
        if (e->left < 0) continue;
        pf_str a = pf_vocab_text(m->vocab, e->left), b = pf_vocab_text(m->vocab, e->right);
        bool plain = a.n > 0 && b.n > 0 && e->left != m->unk_id && e->right != m->unk_id &&
                     e->id != m->unk_id;
        if (m->byte_fallback &&
            (byte_token(a) || byte_token(b) || byte_token(pf_vocab_text(m->vocab, e->id))))
            plain = false;
        if (!plain) {
            m->cuts = false;
            return PEFT_OK;
        }
        uint32_t x, y;
        size_t last = a.n - 1;
        while (last > 0 && !pf_u8_is_start(a.p[last])) last--;
        pf_u8_get(a.p + last, &x);
        pf_u8_get(b.p, &y);
        uint32_t bit = neighbour_bit(x, y);
        m->neighbours[bit >> 5] |= 1u << (bit & 31);
    }
    return PEFT_OK;
}

peft_status pf_bpe_finish(pf_bpe *m, peft_error *err) {
    m->unk_id = m->has_unk ? pf_vocab_id(m->vocab, m->unk.p, m->unk.n) : -1;
    for (int i = 0; i < 256; i++) {
        char text[8] = {(char)i, 0};
        size_t n = 1;
        if (!m->vocab->bytes) n = (size_t)snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
        m->byte_id[i] = pf_vocab_find(m->vocab, text, n);
    }
    return find_cuts(m, err);
}

/* ---- the symbols a word starts with ---- */

typedef struct starter {
    const pf_bpe *m;
    pf_model_scratch *s;
    bool pending; /* an unknown symbol waits for more of its kind */
    uint32_t pending_begin, pending_end;
    peft_error *err;
} starter;

static peft_status push_symbol(starter *st, int32_t id, uint32_t begin, uint32_t end,
                               bool unknown) {
    pf_model_scratch *s = st->s;
    PF_TOKEN_GROW(s->symbols, s->symbols_cap, (size_t)s->n_symbols + 1, st->err);
    int32_t i = (int32_t)s->n_symbols++;
    if (i > 0) s->symbols[i - 1].next = i;
    s->symbols[i] = (pf_symbol){id, begin, end, i - 1, -1, unknown};
    return PEFT_OK;
}

static peft_status push_pending(starter *st) {
    if (!st->pending) return PEFT_OK;
    st->pending = false;
    return push_symbol(st, st->m->unk_id, st->pending_begin, st->pending_end, true);
}

/* One character that is no token by itself; `spelt` has prefix and suffix on it. Unknown ones wait,
 * so that a run may become one token. (Byte tokens do not end such a run: the order then is odd,
 * and that of `tokenizers`.) */
static peft_status push_unknown(starter *st, const char *spelt, size_t spelt_n, uint32_t begin,
                                uint32_t end) {
    const pf_bpe *m = st->m;
    if (m->byte_fallback) {
        bool all = true;
        for (size_t i = 0; i < spelt_n; i++) all &= m->byte_id[(unsigned char)spelt[i]] >= 0;
        if (all) {
            for (size_t i = 0; i < spelt_n; i++)
                PF_TRY(push_symbol(st, m->byte_id[(unsigned char)spelt[i]], begin, end, false));
            return PEFT_OK;
        }
    }
    if (!m->has_unk) return PEFT_OK;
    if (st->pending && m->fuse_unk) {
        st->pending_end = end;
        return PEFT_OK;
    }
    PF_TRY(push_pending(st));
    if (m->unk_id < 0)
        return PF_FAIL(st->err, PEFT_E_FORMAT,
                       "the tokenizer's unk_token \"%.*s\" is not in its vocabulary", (int)m->unk.n,
                       m->unk.p);
    st->pending = true;
    st->pending_begin = begin;
    st->pending_end = end;
    return PEFT_OK;
}

static peft_status start_symbols(const pf_bpe *m, pf_model_scratch *s, const char *p, uint32_t n,
                                 peft_error *err) {
    starter st = {.m = m, .s = s, .err = err};
    bool bytes = m->vocab->bytes, decorated = m->prefix.n > 0 || m->suffix.n > 0;
    s->n_symbols = 0;
    s->work += n;
    for (uint32_t at = 0; at < n;) {
        uint32_t len = bytes ? 1 : pf_u8_len(p + at);
        const char *spelt = p + at;
        size_t spelt_n = len;
        char room[CHAR_ROOM];
        if (decorated) {
            size_t pre = at > 0 ? m->prefix.n : 0, post = at + len == n ? m->suffix.n : 0;
            spelt_n = pre + len + post; /* pf_bpe's loader sees to it that this fits */
            memcpy(room, m->prefix.p == NULL ? "" : m->prefix.p, pre);
            memcpy(room + pre, p + at, len);
            memcpy(room + pre + len, m->suffix.p == NULL ? "" : m->suffix.p, post);
            spelt = room;
        }
        int32_t id = bytes && !decorated ? m->byte_id[(unsigned char)*spelt]
                                         : pf_vocab_find(m->vocab, spelt, spelt_n);
        if (id >= 0) {
            PF_TRY(push_pending(&st));
            PF_TRY(push_symbol(&st, id, at, at + len, false));
        } else {
            PF_TRY(push_unknown(&st, spelt, spelt_n, at, at + len));
        }
        at += len;
    }
    return push_pending(&st);
}

/* ---- merging ---- */

/* Few symbols: look for the best pair again after each merge. */
static void merge_scanning(const pf_bpe *m, pf_model_scratch *s) {
    pf_symbol *v = s->symbols;
    uint32_t n = s->n_symbols, rank[SCAN];
    int32_t id[SCAN];
    for (uint32_t i = 0; i + 1 < n; i++) {
        const pf_merge *e = find_merge(m, v[i].id, v[i + 1].id);
        rank[i] = e == NULL ? UINT32_MAX : e->rank;
        id[i] = e == NULL ? -1 : e->id;
    }
    for (;;) {
        uint32_t best = 0;
        s->work += n;
        for (uint32_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (n < 2 || rank[best] == UINT32_MAX) break;
        v[best].id = id[best];
        v[best].end = v[best + 1].end;
        v[best].unknown = false;
        n--;
        for (uint32_t i = best + 1; i < n; i++) {
            v[i] = v[i + 1];
            rank[i - 1] = rank[i];
            id[i - 1] = id[i];
        }
        for (uint32_t i = best > 0 ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const pf_merge *e = find_merge(m, v[i].id, v[i + 1].id);
            rank[i] = e == NULL ? UINT32_MAX : e->rank;
            id[i] = e == NULL ? -1 : e->id;
        }
    }
    s->n_symbols = n;
}

static bool before(pf_merge_event a, pf_merge_event b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static peft_status heap_push(pf_model_scratch *s, pf_merge_event e, peft_error *err) {
    PF_TOKEN_GROW(s->heap, s->heap_cap, (size_t)s->n_heap + 1, err);
    uint32_t i = s->n_heap++;
    while (i > 0 && before(e, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
        s->work++;
    }
    s->heap[i] = e;
    return PEFT_OK;
}

static pf_merge_event heap_pop(pf_model_scratch *s) {
    pf_merge_event top = s->heap[0], last = s->heap[--s->n_heap];
    uint32_t i = 0, n = s->n_heap;
    for (;;) {
        uint32_t child = 2 * i + 1;
        s->work++;
        if (child >= n) break;
        if (child + 1 < n && before(s->heap[child + 1], s->heap[child])) child++;
        if (!before(s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (n > 0) s->heap[i] = last;
    return top;
}

static peft_status offer(const pf_bpe *m, pf_model_scratch *s, int32_t at, peft_error *err) {
    const pf_symbol *v = s->symbols;
    if (at < 0 || v[at].next < 0) return PEFT_OK;
    const pf_merge *e = find_merge(m, v[at].id, v[v[at].next].id);
    return e == NULL ? PEFT_OK : heap_push(s, (pf_merge_event){e->rank, (uint32_t)at, e->id}, err);
}

/* Many symbols: a heap of possible merges. An entry is stale when its pair is no longer there. */
static peft_status merge_with_heap(const pf_bpe *m, pf_model_scratch *s, peft_error *err) {
    pf_symbol *v = s->symbols;
    s->n_heap = 0;
    for (uint32_t i = 0; i + 1 < s->n_symbols; i++) PF_TRY(offer(m, s, (int32_t)i, err));
    while (s->n_heap > 0) {
        pf_merge_event e = heap_pop(s);
        pf_symbol *left = &v[e.at];
        if (left->end == 0 || left->next < 0) continue;
        pf_symbol *right = &v[left->next];
        const pf_merge *now = find_merge(m, left->id, right->id);
        if (now == NULL || now->id != e.id) continue;
        left->id = e.id;
        left->end = right->end;
        left->unknown = false;
        left->next = right->next;
        right->end = 0;
        if (left->next >= 0) v[left->next].prev = (int32_t)e.at;
        PF_TRY(offer(m, s, left->prev, err));
        PF_TRY(offer(m, s, (int32_t)e.at, err));
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_symbols; i++)
        if (v[i].end != 0) v[n++] = v[i];
    s->n_symbols = n;
    return PEFT_OK;
}

static peft_status whole_token(const pf_bpe *m, const char *p, uint32_t n, uint32_t at,
                               pf_tokens *out, bool *found, peft_error *err) {
    int32_t id = pf_vocab_find(m->vocab, p, n);
    *found = id >= 0;
    return id < 0 ? PEFT_OK : pf_tokens_add(out, (pf_token){id, at, at + n, false}, err);
}

/* Tokens of the word at byte `at` of the piece. */
static peft_status encode_word(const pf_bpe *m, pf_model_scratch *s, const char *p, uint32_t n,
                               uint32_t at, pf_tokens *out, peft_error *err) {
    uint32_t before_n = out->n;
    peft_status status;
    bool done = pf_recall_find(s, p, n, at, out, &status, err);
    PF_TRY(status);
    if (!done) {
        if (m->ignore_merges && !m->cuts) PF_TRY(whole_token(m, p, n, at, out, &done, err));
        if (!done) {
            PF_TRY(start_symbols(m, s, p, n, err));
            if (s->n_symbols > SCAN)
                PF_TRY(merge_with_heap(m, s, err));
            else
                merge_scanning(m, s);
            for (uint32_t i = 0; i < s->n_symbols; i++) {
                const pf_symbol *y = &s->symbols[i];
                PF_TRY(pf_tokens_add(out, (pf_token){y->id, at + y->begin, at + y->end, y->unknown},
                                     err));
            }
        }
        pf_recall_keep(s, p, n, at, out, out->n - before_n);
    }
    if (m->cuts && m->fuse_unk && before_n > 0 && out->n > before_n &&
        out->v[before_n - 1].unknown &&
        out->v[before_n].unknown) { /* a run of unknown characters is one token across the cuts */
        out->v[before_n - 1].end = out->v[before_n].end;
        memmove(out->v + before_n, out->v + before_n + 1, (out->n - before_n - 1) * sizeof *out->v);
        out->n--;
    }
    return PEFT_OK;
}

peft_status pf_bpe_encode(const pf_bpe *m, pf_model_scratch *s, const char *p, uint32_t n,
                          pf_tokens *out, peft_error *err) {
    out->n = 0;
    if (!m->cuts) return encode_word(m, s, p, n, 0, out, err);
    if (m->ignore_merges) {
        bool found;
        PF_TRY(whole_token(m, p, n, 0, out, &found, err));
        if (found) return PEFT_OK;
    }
    uint32_t begin = 0, i = 0, cp, next;
    while (i < n) { /* the token text between two cuts is a word of its own */
        i += pf_u8_get(p + i, &cp);
        while (i < n) {
            unsigned len = pf_u8_get(p + i, &next);
            if (!neighbours(m, cp, next)) break;
            cp = next;
            i += len;
        }
        s->work += i - begin;
        PF_TRY(encode_word(m, s, p + begin, i - begin, begin, out, err));
        begin = i;
    }
    return PEFT_OK;
}
