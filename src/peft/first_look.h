/* first_look.h - methods whose first weights depend on what their sites see in training.
 *
 * A new adapter of such a method is attached as configured, and says what it wants to see. A recipe
 * runs the bare base over rows of the training data, shows what came in at those sites, closes the
 * adapter and attaches another one with the section that the method made of what it saw: ranks and
 * targets may be other ones then. What was seen decides everything, so a run that is resumed looks
 * at the same rows and begins alike. The method knows no data, the recipe no method. */
#ifndef PF_FIRST_LOOK_H
#define PF_FIRST_LOOK_H

#include "base/pool.h"
#include "peft/method.h"

typedef struct pf_look_wish {
    int64_t rows;      /* at most so many are shown */
    bool learned_only; /* only rows of tokens that are learned */
    bool *sites;       /* by site->index: those whose input is wanted; zeroed room, to be filled */
} pf_look_wish;

typedef struct pf_look_input { /* what came in at sites that share it */
    pf_site *const *sites;
    int n_sites;
    int64_t rows, cols;
    const float *x; /* (rows, cols) */
} pf_look_input;

/* The arena outlives the adapter; what the next section points to is kept there. */
struct pf_first_look {
    /* false: this adapter needs no look */
    bool (*wants)(const pf_adapter *ad, pf_look_wish *out);
    /* Some of the inputs; called until each was shown once. The same numbers for any number of
     * threads. */
    peft_status (*show)(pf_adapter *ad, pf_arena *a, const pf_look_input *in, int n, pf_pool *pool,
                        peft_error *err);
    /* All were shown: the section to attach with, and a line that says what was made of them. */
    peft_status (*settle)(pf_adapter *ad, pf_arena *a, const void **section, const char **line,
                          peft_error *err);
};

#endif
