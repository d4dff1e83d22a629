/* vocab.c - one blob of bytes, one entry per token, an open-addressing table of entries. */
#include "token/vocab.h"

#include "base/hash.h"
#include "base/mem.h"
#include "token/byte_level.h"
#include "token/ntext.h"

#include <string.h>

#include "base/banned.h"

/* Seeds keep literal tokens apart from raw ones with the same bytes. */
enum { RAW = 0, LITERAL = 1 };

void pf_vocab_init(pf_vocab *v, bool bytes) {
    memset(v, 0, sizeof *v);
    v->bytes = bytes;
}

void pf_vocab_release(pf_vocab *v) {
    if (v == NULL) return;
    pf_free(v->blob);
    pf_free(v->entries);
    pf_free(v->slots);
    pf_free(v->by_id);
    memset(v, 0, sizeof *v);
}

static pf_vocab_slot *slot_of(const pf_vocab *v, const char *p, size_t n, bool literal,
                              uint32_t *tag) {
    uint64_t hash = pf_hash64(p, n, literal ? LITERAL : RAW);
    uint32_t mask = v->n_slots - 1, i = (uint32_t)hash & mask;
    *tag = (uint32_t)(hash >> 32);
    for (;; i = (i + 1) & mask) {
        pf_vocab_slot *s = &v->slots[i];
        if (s->entry == 0) return s;
        if (s->tag != *tag) continue;
        const pf_vocab_entry *e = &v->entries[s->entry - 1];
        if (e->n == n && e->literal == literal && memcmp(v->blob + e->at, p, n) == 0) return s;
    }
}

static peft_status grow_slots(pf_vocab *v, peft_error *err) {
    uint32_t n = v->n_slots == 0 ? 1024 : v->n_slots * 2, tag;
    pf_vocab_slot *slots = pf_calloc(n, sizeof *slots);
    if (slots == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
    pf_free(v->slots);
    v->slots = slots;
    v->n_slots = n;
    for (uint32_t i = 0; i < v->n; i++) {
        const pf_vocab_entry *e = &v->entries[i];
        pf_vocab_slot *s = slot_of(v, v->blob + e->at, e->n, e->literal, &tag);
        *s = (pf_vocab_slot){i + 1, tag};
    }
    return PEFT_OK;
}

static peft_status add(pf_vocab *v, const char *p, size_t n, bool literal, int64_t id,
                       peft_error *err) {
    if (id < 0 || id > INT32_MAX - 1)
        return PF_FAIL(err, PEFT_E_FORMAT, "token id %lld is out of range", (long long)id);
    if (v->n >= v->n_slots / 2) PF_TRY(grow_slots(v, err));
    uint32_t tag;
    pf_vocab_slot *slot = slot_of(v, p, n, literal, &tag);
    if (slot->entry != 0) {
        v->entries[slot->entry - 1].id = (int32_t)id;
        return PEFT_OK;
    }
    PF_TOKEN_GROW(v->blob, v->blob_cap, (size_t)v->blob_n + n + 1, err);
    PF_TOKEN_GROW(v->entries, v->cap, (size_t)v->n + 1, err);
    memcpy(v->blob + v->blob_n, p, n);
    v->blob[v->blob_n + n] = 0;
    v->entries[v->n++] = (pf_vocab_entry){v->blob_n, (uint32_t)n, (int32_t)id, literal};
    v->blob_n += (uint32_t)n + 1;
    *slot = (pf_vocab_slot){v->n, tag};
    return PEFT_OK;
}

peft_status pf_vocab_add_bytes(pf_vocab *v, const char *bytes, size_t n, int64_t id,
                               peft_error *err) {
    return add(v, bytes, n, false, id, err);
}

enum { SHORT = 512 }; /* tokens up to this are turned into bytes on the stack */

peft_status pf_vocab_add(pf_vocab *v, const char *token, size_t n, int64_t id, peft_error *err) {
    if (!v->bytes) return add(v, token, n, false, id, err);
    char room[SHORT], *raw = n <= SHORT ? room : pf_malloc(n);
    if (raw == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
    int64_t len = pf_byte_level_bytes(token, n, raw);
    peft_status status =
        len >= 0 ? add(v, raw, (size_t)len, false, id, err) : add(v, token, n, true, id, err);
    if (raw != room) pf_free(raw);
    return status;
}

peft_status pf_vocab_finish(pf_vocab *v, peft_error *err) {
    int32_t largest = -1;
    for (uint32_t i = 0; i < v->n; i++)
        if (v->entries[i].id > largest) largest = v->entries[i].id;
    if (largest > 65536 && (uint32_t)largest / 8 > v->n) /* a row of the embedding matrix per id */
        return PF_FAIL(err, PEFT_E_FORMAT, "token id %d in a vocabulary of %u tokens", largest,
                       v->n);
    v->by_id = pf_malloc(((size_t)largest + 2) * sizeof *v->by_id);
    if (v->by_id == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
    v->n_ids = largest + 1;
    for (int32_t i = 0; i <= v->n_ids; i++) v->by_id[i] = -1;
    for (uint32_t i = 0; i < v->n; i++) v->by_id[v->entries[i].id] = (int32_t)i;
    return PEFT_OK;
}

static int32_t look_up(const pf_vocab *v, const char *p, size_t n, bool literal) {
    if (v->n_slots == 0) return -1;
    uint32_t tag, entry = slot_of(v, p, n, literal, &tag)->entry;
    return entry == 0 ? -1 : v->entries[entry - 1].id;
}

int32_t pf_vocab_find(const pf_vocab *v, const char *bytes, size_t n) {
    return look_up(v, bytes, n, false);
}

int32_t pf_vocab_id(const pf_vocab *v, const char *token, size_t n) {
    char raw[SHORT];
    if (!v->bytes) return look_up(v, token, n, false);
    if (n >
        SHORT) { /* too long for a lookup worth a block of memory: spell the candidates instead */
        pf_buf text = {0};
        int32_t id = -1;
        for (uint32_t i = 0; i < v->n && id < 0; i++) {
            if (v->entries[i].n < n / 2) continue;
            pf_buf_clear(&text);
            pf_vocab_written(v, v->entries[i].id, &text);
            if (text.len == n && memcmp(text.data, token, n) == 0) id = v->entries[i].id;
        }
        pf_buf_free(&text);
        return id;
    }
    int64_t len = pf_byte_level_bytes(token, n, raw);
    return len >= 0 ? look_up(v, raw, (size_t)len, false) : look_up(v, token, n, true);
}

bool pf_vocab_has(const pf_vocab *v, int64_t id) {
    return id >= 0 && id < v->n_ids && v->by_id[id] >= 0;
}

pf_str pf_vocab_text(const pf_vocab *v, int32_t id) {
    if (!pf_vocab_has(v, id)) return (pf_str){NULL, 0};
    const pf_vocab_entry *e = &v->entries[v->by_id[id]];
    return (pf_str){v->blob + e->at, e->n};
}

bool pf_vocab_written(const pf_vocab *v, int32_t id, pf_buf *out) {
    if (!pf_vocab_has(v, id)) return false;
    const pf_vocab_entry *e = &v->entries[v->by_id[id]];
    if (v->bytes && !e->literal)
        pf_byte_level_spell(v->blob + e->at, e->n, out);
    else
        pf_buf_add(out, v->blob + e->at, e->n);
    return true;
}
