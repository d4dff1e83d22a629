/* map.h - hash map from byte strings to one pointer or integer. Keys are copied into the map's own
 * arena; values are borrowed. Iteration is in order of insertion, so whatever is printed from a map
 * is deterministic. */
#ifndef PF_MAP_H
#define PF_MAP_H

#include "base/arena.h"

#include <stdbool.h>

typedef struct pf_map_entry {
    const char *key; /* terminated; may hold NULs inside when key_len says so */
    size_t key_len;
    uint64_t hash;
    int64_t value;
    void *ptr;
} pf_map_entry;

typedef struct pf_map {
    pf_arena arena;
    pf_map_entry *entries; /* in order of insertion */
    int n, cap;
    int *slots; /* index + 1, 0 is free */
    int n_slots;
} pf_map;

void pf_map_init(pf_map *m);
void pf_map_release(pf_map *m);
/* Insert or overwrite. *existed (may be NULL) says which. The entry pointer is valid until the next
 * put. */
peft_status pf_map_put(pf_map *m, const char *key, size_t key_len, int64_t value, void *ptr,
                       bool *existed, peft_error *err);
const pf_map_entry *pf_map_find(const pf_map *m, const char *key, size_t key_len); /* or NULL */
const pf_map_entry *pf_map_finds(const pf_map *m, const char *key);

#endif
