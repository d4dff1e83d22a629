/* byte_trie.h - a set of byte strings with a number each, walked byte by byte. Filled once, then
 * read-only. */
#ifndef PF_BYTE_TRIE_H
#define PF_BYTE_TRIE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pf_trie_edge {
    uint32_t from, to; /* to == 0: free */
    uint32_t byte;
} pf_trie_edge;

typedef struct pf_trie {
    uint32_t root[256]; /* 0: no string begins with this byte */
    int32_t *value;     /* per node; -1: no string ends here */
    uint32_t n_nodes, cap;
    pf_trie_edge *edges; /* below the first byte, open addressing */
    uint32_t n_edges, n_slots;
} pf_trie;

void pf_trie_release(pf_trie *t);
/* value >= 0; a string that is there already gets the new value. */
peft_status pf_trie_add(pf_trie *t, const char *bytes, size_t n, int32_t value, peft_error *err);

static inline uint32_t pf_trie_hash(uint32_t node, uint32_t byte) {
    return (node * 0x9e3779b1u) ^ (byte * 0x85ebca6bu);
}

/* The node behind `node` (0 is the root) along a byte, 0 if there is none. */
static inline uint32_t pf_trie_step(const pf_trie *t, uint32_t node, unsigned char byte) {
    if (node == 0) return t->root[byte];
    if (t->n_slots == 0) return 0;
    uint32_t mask = t->n_slots - 1, i = pf_trie_hash(node, byte);
    for (i = (i ^ i >> 15) & mask;; i = (i + 1) & mask) {
        const pf_trie_edge *e = &t->edges[i];
        if (e->to == 0) return 0;
        if (e->from == node && e->byte == byte) return e->to;
    }
}

#endif
