/* prefix_tree.c - sort, compare neighbours, keep what pays, walk.
 *
 * The trie of the samples is never built token by token: in sorted order its inner nodes are the
 * intervals of the array of common lengths (Abouelhoda, Kurtz, Ohlebusch, "Replacing suffix trees
 * with enhanced suffix arrays", 2004). All of it is a function of the samples alone. */
#include "data/prefix_tree.h"

#include <string.h>

bool pf_prefix_tree_reserve(pf_prefix_tree *t, pf_arena *a, int32_t n) {
    int32_t **arrays[] = {&t->order,       &t->shared,    &t->sorted,  &t->merged,
                          &t->lcp,         &t->leaf_next, &t->node_at, &t->node_after,
                          &t->leaf_parent, &t->stack,     &t->closed};
    for (size_t i = 0; i < PF_COUNT(arrays); i++)
        if ((*arrays[i] = PF_NEW_ARRAY(a, int32_t, n)) == NULL) return false;
    t->nodes = PF_NEW_ARRAY(a, pf_prefix_node, n);
    return t->nodes != NULL;
}

/* Samples of different classes turn their keys differently, so they have no row in common. */
static int32_t rope_class(const pf_sample *s, int32_t original) {
    return original > 0 && s->n_tokens > original ? s->n_tokens : 0;
}

static int32_t common(const pf_sample *a, const pf_sample *b, const pf_prefix_tree_options *opt) {
    if (rope_class(a, opt->rope_original) != rope_class(b, opt->rope_original)) return 0;
    int32_t la = pf_sample_rows(a, opt->keep_tail), lb = pf_sample_rows(b, opt->keep_tail);
    int32_t n = la < lb ? la : lb, i = 0;
    while (i < n && a->tokens[i] == b->tokens[i]) i++;
    return i;
}

/* By class, then by tokens, a prefix before what goes on from it. */
static bool in_order(const pf_sample *a, const pf_sample *b, const pf_prefix_tree_options *opt) {
    int32_t ca = rope_class(a, opt->rope_original), cb = rope_class(b, opt->rope_original);
    if (ca != cb) return ca < cb;
    int32_t la = pf_sample_rows(a, opt->keep_tail), lb = pf_sample_rows(b, opt->keep_tail);
    int32_t i = common(a, b, opt);
    if (i == la || i == lb) return la <= lb;
    return a->tokens[i] < b->tokens[i];
}

/* Merge sort: stable, and unlike qsort it never allocates. */
static void sort_samples(pf_prefix_tree *t, const pf_sample *samples, int32_t n,
                         const pf_prefix_tree_options *opt) {
    for (int32_t width = 1; width<n; width = width> n / 2 ? n : 2 * width) {
        for (int32_t begin = 0; begin < n;) {
            int32_t mid = n - begin < width ? n : begin + width;
            int32_t end = n - mid < width ? n : mid + width;
            for (int32_t i = begin, j = mid, k = begin; k < end; k++) {
                bool left = j == end || (i < mid && in_order(&samples[t->sorted[i]],
                                                             &samples[t->sorted[j]], opt));
                t->merged[k] = t->sorted[left ? i++ : j++];
            }
            begin = end;
        }
        int32_t *swap = t->sorted;
        t->sorted = t->merged;
        t->merged = swap;
    }
}

static int32_t new_node(pf_prefix_tree *t, int32_t depth, int32_t first) {
    t->nodes[t->n_nodes] =
        (pf_prefix_node){.depth = depth, .parent = -1, .first = first, .child = -1, .next = -1};
    return t->n_nodes++;
}

/* All below node v is known: keep it, or hand its branches to its parent. */
static void close_node(pf_prefix_tree *t, int32_t v, const pf_prefix_tree_options *opt) {
    pf_prefix_node *node = &t->nodes[v];
    pf_prefix_node *parent = node->parent < 0 ? NULL : &t->nodes[node->parent];
    int64_t edge = node->depth - (parent == NULL ? 0 : parent->depth);
    const int64_t cost = opt->overhead + (opt->below > 0 ? node->rows / opt->below : 0);
    node->kept = edge * (node->branches - 1) >= cost;
    if (parent != NULL) {
        const int32_t branches = node->kept ? 1 : node->branches;
        parent->branches += branches;
        parent->rows += node->rows + edge * branches;
        if (node->first < parent->first) parent->first = node->first;
    }
    t->closed[t->n_closed++] = v;
}

static void find_nodes(pf_prefix_tree *t, const pf_sample *samples, int32_t n,
                       const pf_prefix_tree_options *opt) {
    int32_t open = 0; /* nodes on the stack, each deeper than the one below it */
    t->n_nodes = t->n_closed = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t sample = t->sorted[i];
        int32_t left = t->lcp[i], right = i + 1 < n ? t->lcp[i + 1] : 0;
        if (right > left) t->stack[open++] = new_node(t, right, sample);
        t->leaf_parent[sample] = -1;
        if (open > 0) { /* the deepest open node is as deep as the longer of left and right */
            pf_prefix_node *top = &t->nodes[t->stack[open - 1]];
            t->leaf_parent[sample] = t->stack[open - 1];
            top->branches++;
            top->rows += pf_sample_rows(&samples[sample], opt->keep_tail) - top->depth;
            if (sample < top->first) top->first = sample;
        }
        while (open > 0 && t->nodes[t->stack[open - 1]].depth > right) {
            int32_t v = t->stack[--open];
            if (right > 0 && (open == 0 || t->nodes[t->stack[open - 1]].depth < right))
                t->stack[open++] = new_node(t, right, t->nodes[v].first);
            t->nodes[v].parent = open > 0 ? t->stack[open - 1] : -1;
            close_node(t, v, opt);
        }
    }
}

/* Lists of children with the nodes that are not kept left out, by the first sample below each. */
static int32_t link_items(pf_prefix_tree *t, int32_t n) {
    enum { NO_ROWS = -2 };
    for (int32_t i = 0; i < n; i++) {
        t->node_at[i] = -1;
        t->leaf_next[i] = NO_ROWS;
    }
    for (int32_t i = t->n_closed - 1; i >= 0; i--) { /* parents before their children */
        int32_t v = t->closed[i];
        pf_prefix_node *node = &t->nodes[v];
        if (node->parent >= 0 && !t->nodes[node->parent].kept)
            node->parent = t->nodes[node->parent].parent;
        if (!node->kept) continue;
        t->node_after[v] = t->node_at[node->first];
        t->node_at[node->first] = v;
    }
    for (int32_t i = 0; i < t->n_order; i++) {
        int32_t sample = t->sorted[i], parent = t->leaf_parent[sample];
        if (parent >= 0 && !t->nodes[parent].kept) t->leaf_parent[sample] = t->nodes[parent].parent;
        t->leaf_next[sample] = -1;
    }
    /* backwards, each item before those already there: the nodes and the sample of one step have
     * different parents */
    int32_t roots = -1;
    for (int32_t i = n - 1; i >= 0; i--) {
        if (t->leaf_next[i] == NO_ROWS) continue;
        int32_t parent = t->leaf_parent[i];
        int32_t *head = parent < 0 ? &roots : &t->nodes[parent].child;
        t->leaf_next[i] = *head;
        *head = i;
        for (int32_t v = t->node_at[i]; v >= 0; v = t->node_after[v]) {
            parent = t->nodes[v].parent;
            head = parent < 0 ? &roots : &t->nodes[parent].child;
            t->nodes[v].next = *head;
            *head = -2 - v;
        }
    }
    return roots;
}

static void walk(pf_prefix_tree *t, int32_t item) {
    int32_t open = 0, shared = 0, n = 0;
    for (;;) {
        if (item == -1) {
            if (open == 0) break;
            const pf_prefix_node *v = &t->nodes[t->stack[--open]];
            item = v->next;
            shared = v->parent < 0 ? 0 : t->nodes[v->parent].depth;
        } else if (item < 0) {
            t->stack[open++] = -2 - item;
            item = t->nodes[-2 - item].child;
        } else {
            t->order[n] = item;
            t->shared[n++] = shared;
            shared = t->leaf_parent[item] < 0 ? 0 : t->nodes[t->leaf_parent[item]].depth;
            item = t->leaf_next[item];
        }
    }
    PF_ASSERT(n == t->n_order);
}

void pf_prefix_tree_build(pf_prefix_tree *t, const pf_sample *samples, int32_t n,
                          const pf_prefix_tree_options *opt) {
    t->n_order = 0;
    for (int32_t i = 0; i < n; i++)
        if (pf_sample_rows(&samples[i], opt->keep_tail) > 0) t->sorted[t->n_order++] = i;
    if (!opt->share) {
        memcpy(t->order, t->sorted, sizeof *t->order * (size_t)t->n_order);
        memset(t->shared, 0, sizeof *t->shared * (size_t)t->n_order);
        for (int32_t i = 0; i < n; i++) t->leaf_parent[i] = -1;
        return;
    }
    sort_samples(t, samples, t->n_order, opt);
    for (int32_t i = 0; i < t->n_order; i++)
        t->lcp[i] = i == 0 ? 0 : common(&samples[t->sorted[i - 1]], &samples[t->sorted[i]], opt);
    find_nodes(t, samples, t->n_order, opt);
    walk(t, link_items(t, n));
}
