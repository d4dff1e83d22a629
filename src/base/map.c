/* map.c - open addressing over an array in order of insertion; see map.h. */
#include "base/map.h"

#include "base/hash.h"
#include "base/mem.h"

#include <string.h>

void pf_map_init(pf_map *m) {
    memset(m, 0, sizeof *m);
    pf_arena_init(&m->arena, "map");
}

void pf_map_release(pf_map *m) {
    if (m == NULL) return;
    pf_free(m->entries);
    pf_free(m->slots);
    pf_arena_release(&m->arena);
    memset(m, 0, sizeof *m);
}

/* The slot that holds the key, or the free one where it would go. */
static int find_slot(const pf_map *m, const char *key, size_t key_len, uint64_t hash) {
    int mask = m->n_slots - 1;
    int at = (int)(hash & (uint64_t)mask);
    while (m->slots[at] != 0) {
        const pf_map_entry *e = &m->entries[m->slots[at] - 1];
        if (e->hash == hash && e->key_len == key_len && memcmp(e->key, key, key_len) == 0) break;
        at = (at + 1) & mask;
    }
    return at;
}

static peft_status grow(pf_map *m, peft_error *err) {
    if (m->cap > (1 << 28))
        return PF_FAIL(err, PEFT_E_NOMEM, "a table of %d names is too large", m->n);
    int cap = m->cap == 0 ? 16 : 2 * m->cap;
    pf_map_entry *entries = pf_realloc(m->entries, (size_t)cap * sizeof *entries);
    PF_CHECK_ALLOC(entries, err);
    m->entries = entries;
    int n_slots = 2 * cap;
    int *slots = pf_calloc((size_t)n_slots, sizeof *slots);
    PF_CHECK_ALLOC(slots, err);
    pf_free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
    m->cap = cap;
    for (int i = 0; i < m->n; i++) {
        int at = (int)(entries[i].hash & (uint64_t)(n_slots - 1));
        while (slots[at] != 0) at = (at + 1) & (n_slots - 1);
        slots[at] = i + 1;
    }
    return PEFT_OK;
}

peft_status pf_map_put(pf_map *m, const char *key, size_t key_len, int64_t value, void *ptr,
                       bool *existed, peft_error *err) {
    uint64_t hash = pf_hash64(key, key_len, 0);
    if (m->n_slots > 0) {
        int at = find_slot(m, key, key_len, hash);
        if (m->slots[at] != 0) {
            pf_map_entry *e = &m->entries[m->slots[at] - 1];
            e->value = value;
            e->ptr = ptr;
            if (existed != NULL) *existed = true;
            return PEFT_OK;
        }
    }
    if (m->n == m->cap) PF_TRY(grow(m, err));
    const char *copy = pf_arena_strndup(&m->arena, key, key_len);
    PF_CHECK_ALLOC(copy, err);
    m->slots[find_slot(m, key, key_len, hash)] = m->n + 1;
    m->entries[m->n++] = (pf_map_entry){copy, key_len, hash, value, ptr};
    if (existed != NULL) *existed = false;
    return PEFT_OK;
}

const pf_map_entry *pf_map_find(const pf_map *m, const char *key, size_t key_len) {
    if (m->n_slots == 0) return NULL;
    int at = find_slot(m, key, key_len, pf_hash64(key, key_len, 0));
    return m->slots[at] != 0 ? &m->entries[m->slots[at] - 1] : NULL;
}

const pf_map_entry *pf_map_finds(const pf_map *m, const char *key) {
    return pf_map_find(m, key, strlen(key));
}
