/* saved_set.h - what is saved for the backward pass, between the minimal exact set and
 * checkpointing of whole blocks.
 *
 * Blocks are alike, so values are known by their kind: the name inside of the block and the op that
 * makes them ("mlp.gate_proj/linears"). What one node makes goes together: making one of its
 * outputs again makes all. Each kind that the minimal set saves has a price: operations to make it
 * again per byte that it takes. Under a memory limit the cheapest kinds are given up first, block
 * by block from the first one on (a first block is recomputed when the later ones are gone
 * already). Giving up everything is checkpointing.
 *
 * Whatever is chosen computes the same numbers: kernels are deterministic, recomputed values equal
 * the first ones bit for bit. A choice is text, so that a checkpoint can hold it. */
#ifndef PF_SAVED_SET_H
#define PF_SAVED_SET_H

#include "graph/autodiff.h"
#include "graph/plan.h"

enum { PF_SAVED_KINDS = 32, PF_SAVED_TEXT = 4096 };

typedef struct pf_saved_kind {
    char name[96];
    unsigned outs; /* bit k: output k of the node is saved */
    int64_t bytes; /* of all blocks, at capacity */
    double flops;  /* to make them all again */
    int n_blocks;  /* that have it */
    int from;      /* saved in blocks [from, end); in those before it is made again */
} pf_saved_kind;

typedef struct pf_saved_set {
    pf_saved_kind kinds[PF_SAVED_KINDS]; /* cheapest per byte first */
    int n;
    int n_blocks;
} pf_saved_set;

/* The kinds of a planned graph that was differentiated with PF_SAVE_MINIMAL. */
void pf_saved_set_find(pf_saved_set *s, pf_graph *g, const pf_plan *plan);
int pf_saved_set_steps(const pf_saved_set *s); /* kinds x blocks: how far it can be narrowed */
/* Gives up the first n of them. */
void pf_saved_set_narrow(pf_saved_set *s, int n);
/* Marks the values of a forward graph; before pf_autodiff_run with PF_SAVE_SELECTED. */
void pf_saved_set_mark(const pf_saved_set *s, pf_graph *g);

/* "mlp.gate_proj/linears:3:12 ...": kinds, their outputs, the block from which on they are saved.
 */
void pf_saved_set_write(const pf_saved_set *s, char *out, size_t n);
bool pf_saved_set_read(pf_saved_set *s, const char *text);

#endif
