/* byte_trie.c - building a trie whose edges live in one hash table. */
#include "token/byte_trie.h"

#include "base/mem.h"
#include "token/ntext.h"

#include <string.h>

#include "base/banned.h"

void pf_trie_release(pf_trie *t) {
    if (t == NULL) return;
    pf_free(t->value);
    pf_free(t->edges);
    memset(t, 0, sizeof *t);
}

static void place(pf_trie *t, pf_trie_edge edge) {
    uint32_t mask = t->n_slots - 1, i = pf_trie_hash(edge.from, edge.byte);
    for (i = (i ^ i >> 15) & mask; t->edges[i].to != 0; i = (i + 1) & mask) continue;
    t->edges[i] = edge;
}

static peft_status grow_edges(pf_trie *t, peft_error *err) {
    uint32_t n = t->n_slots == 0 ? 256 : t->n_slots * 2, old_n = t->n_slots;
    pf_trie_edge *old = t->edges, *edges = n > (1u << 29) ? NULL : pf_calloc(n, sizeof *edges);
    if (edges == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
    t->edges = edges;
    t->n_slots = n;
    for (uint32_t i = 0; i < old_n; i++)
        if (old[i].to != 0) place(t, old[i]);
    pf_free(old);
    return PEFT_OK;
}

static peft_status new_node(pf_trie *t, uint32_t *node, peft_error *err) {
    PF_TOKEN_GROW(t->value, t->cap, (size_t)t->n_nodes + 2, err);
    if (t->n_nodes == 0) t->value[t->n_nodes++] = -1; /* the root */
    *node = t->n_nodes;
    t->value[t->n_nodes++] = -1;
    return PEFT_OK;
}

peft_status pf_trie_add(pf_trie *t, const char *bytes, size_t n, int32_t value, peft_error *err) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        uint32_t next = pf_trie_step(t, node, byte);
        if (next == 0) {
            PF_TRY(new_node(t, &next, err));
            if (node == 0) {
                t->root[byte] = next;
            } else {
                if (t->n_edges >= t->n_slots / 2) PF_TRY(grow_edges(t, err));
                place(t, (pf_trie_edge){node, next, byte});
                t->n_edges++;
            }
        }
        node = next;
    }
    if (node != 0) t->value[node] = value;
    return PEFT_OK;
}
