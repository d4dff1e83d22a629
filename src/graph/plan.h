/* plan.h - where every value of a graph lives, before anything runs.
 *
 * One arena holds all activations, gradients and scratch of all phases of a step; offsets are found
 * once, for the capacities of the row spaces, by a greedy best fit over lifetimes. The peak is
 * known then, to the byte. Nothing is allocated while the graph runs.
 *
 * What is made of weights and parameters alone (a rotation from a skew-symmetric matrix, the norms
 * of DoRA) goes to the front of the list, and what others read of it keeps its room for good: while
 * the weights stay as they are, passes begin behind it (pf_exec_weights_stay). What the backward
 * pass recomputes, to save memory, is not among it. */
#ifndef PF_PLAN_H
#define PF_PLAN_H

#include "backend/backend.h"
#include "graph/graph.h"

/* Classes of the memory table, by what a buffer is for. */
typedef enum pf_mem_class {
    PF_MEM_SAVED,     /* made in the forward pass, read in the backward pass */
    PF_MEM_FORWARD,   /* forward only */
    PF_MEM_BACKWARD,  /* gradients and recomputed values */
    PF_MEM_WORKSPACE, /* scratch of kernels */
    PF_MEM_CLASS_COUNT
} pf_mem_class;
const char *pf_mem_class_name(pf_mem_class c);

typedef struct pf_plan {
    int64_t capacity[PF_SPACE_COUNT];    /* rows of each space that the arena has room for */
    int64_t arena_bytes;                 /* the peak */
    int64_t peak_node;                   /* where it is reached */
    int64_t at_peak[PF_MEM_CLASS_COUNT]; /* bytes live at the peak, by class; sums to at most
                                            arena_bytes */
    int64_t sum[PF_MEM_CLASS_COUNT];     /* bytes of all buffers of a class, were none shared */
    int n_of_weights;   /* the first nodes, which read weights and parameters only */
    int first_backward; /* index of the first backward node; n_nodes if none */
    double forward_flops, backward_flops, recompute_flops; /* at capacity */
} pf_plan;

/* Chooses kernels for the backend, orders nothing anew, places everything. May be called again with
 * other capacities. Fails with PEFT_E_UNSUPPORTED naming the op when the backend has no kernel for
 * it. */
peft_status pf_plan_make(pf_plan *plan, pf_graph *g, const pf_backend *be, const int64_t *capacity,
                         peft_error *err);

#endif
