/* prefix_tree.h - which leading tokens the samples of a step share, as an order of the samples.
 *
 * order[] lists the samples that have rows, depth first through the tree of the prefixes that are
 * kept; shared[i] is the number of leading rows that sample order[i] has in common with order[i -
 * 1] in that tree, 0 where a tree begins. Two samples of one tree share the least of shared[]
 * between them. Siblings stand in the order in which the first sample below each was given, so
 * without anything to share order[] is the order given.
 *
 * The walk up from a sample (leaf_parent, then parent) passes the kept prefixes that it starts
 * with, deepest first.
 *
 * A prefix is kept when what it saves, (rows in it) x (branches below it - 1), is at least
 * `overhead`, for the segments it adds, plus the rows below it over `below`, for the tile of keys
 * that each of them then meets apart from its own. The decision goes from the leaves to the root: a
 * prefix that is not kept hands its rows and branches to the one above it. */
#ifndef PF_PREFIX_TREE_H
#define PF_PREFIX_TREE_H

#include "base/arena.h"
#include "data/batch_builder.h"

typedef struct pf_prefix_tree_options {
    bool share;
    int64_t overhead;
    int64_t below;         /* 0: rows below cost nothing */
    int32_t rope_original; /* as in pf_batch_builder_options */
    bool keep_tail;
} pf_prefix_tree_options;

typedef struct pf_prefix_node {
    int32_t depth;    /* leading rows that all samples below share */
    int32_t parent;   /* nearest node above that is kept; -1: none */
    int32_t branches; /* samples and kept nodes directly below */
    int32_t first;    /* of the samples below, the one that was given first */
    int64_t rows;     /* to be computed below it */
    int32_t
        child; /* first item below. Item i >= 0 is sample i, -2 - n is node n, -1 ends the list */
    int32_t next; /* item after this one below the same parent */
    bool kept;
} pf_prefix_node;

typedef struct pf_prefix_tree {
    int32_t *order, *shared;
    int32_t n_order;
    pf_prefix_node *nodes;
    int32_t *leaf_parent; /* per sample, as parent of a node */
    /* scratch; all of it is sized by reserve */
    int32_t *sorted, *merged;      /* samples by their tokens */
    int32_t *lcp;                  /* rows in common with the sample before, in sorted order */
    int32_t *leaf_next;            /* per sample, as next of a node */
    int32_t *node_at, *node_after; /* nodes by `first`: head per sample, chain per node */
    int32_t *stack, *closed;
    int32_t n_nodes, n_closed;
} pf_prefix_tree;

/* Memory for steps of up to n samples; false when it is out. */
bool pf_prefix_tree_reserve(pf_prefix_tree *t, pf_arena *a, int32_t n);
void pf_prefix_tree_build(pf_prefix_tree *t, const pf_sample *samples, int32_t n,
                          const pf_prefix_tree_options *opt);

#endif
