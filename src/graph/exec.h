/* exec.h - runs a planned graph over batches.
 *
 * Life cycle: new (allocates the arena: the only allocation) -> (bind a batch, forward, fill the
 * seed, backward)* -> free. One exec per thread of control; kernels inside use the backend's pool.
 */
#ifndef PF_EXEC_H
#define PF_EXEC_H

#include "graph/plan.h"

typedef struct pf_profile_row { /* per node, filled while profiling is on */
    int64_t calls;
    double seconds, flops, bytes;
    double busy; /* seconds of work, of all threads */
} pf_profile_row;

struct pf_exec {
    pf_graph *graph;
    pf_backend *backend;
    pf_plan plan;
    pf_buffer arena;
    bool arena_is_lent;    /* another exec's: not ours to free */
    const pf_batch *batch; /* bound batch */
    pf_batch with_routed;  /* it, with the rows of experts; where the graph has experts */
    pf_routing *routing;   /* by group of the graph */
    pf_batch *routed;      /* by routed space */
    int64_t *routed_row;   /* by routed space: first packed row */
    void *routed_room;
    int64_t rows[PF_SPACE_COUNT]; /* its row counts */
    bool weights_stay;            /* pf_exec_weights_stay */
    bool made;                    /* what is made of them alone is in the arena */
    bool training;                /* random masks are active */
    bool check_finite;        /* look at every output; the first bad one is named in the error */
    unsigned char *workspace; /* of the node that runs */
    pf_profile_row *profile;  /* NULL: off */
};

peft_status pf_exec_new(pf_exec **out, pf_graph *g, pf_backend *be, const int64_t *capacity,
                        peft_error *err);
/* The same in the arena of another exec that never runs at the same time, where the plan fits it
 * (NULL, or too small: one of its own). Results are read before the other runs again. The lender
 * is freed last. */
peft_status pf_exec_new_in(pf_exec **out, pf_graph *g, pf_backend *be, const int64_t *capacity,
                           const pf_exec *lender, peft_error *err);
void pf_exec_free(pf_exec *x);
/* Row counts are taken from the batch; fails when one exceeds its capacity. The batch is borrowed
 * until the next bind. */
peft_status pf_exec_bind(pf_exec *x, const pf_batch *batch, peft_error *err);
/* true: until the caller takes it back, weights and parameters do not change, the step of training
 * is the same, and nobody else runs in the arena. What is made of them alone is then made in the
 * first pass and kept. */
void pf_exec_weights_stay(pf_exec *x, bool stay);
peft_status pf_exec_forward(pf_exec *x, peft_error *err);
peft_status pf_exec_backward(pf_exec *x, peft_error *err);
peft_status pf_exec_profile(pf_exec *x, bool on, peft_error *err); /* on: starts from zero */

/* --- for kernels and for readers of results
 * ------------------------------------------------------------------------ */
pf_real *pf_exec_data(const pf_exec *x,
                      const pf_value *v); /* NULL for a NULL value and for WEIGHT */
int64_t pf_exec_rows(const pf_exec *x, const pf_value *v);
/* Takes the choices of a router: expert[t · per_row + j] in [0, n) is the j-th of token t. `first`
 * is the first space of the group. */
void pf_exec_route(pf_exec *x, int first, const int32_t *expert);
const pf_routing *pf_exec_routing(const pf_exec *x, int first);
static inline pf_pool *pf_exec_pool(const pf_exec *x) {
    return x->backend->pool;
}

#endif
