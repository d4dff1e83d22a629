/* first_look.h - methods whose first weights depend on what their sites see in training.
 *
 * A new adapter of such a method is attached as configured, and says what it wants to see. A recipe
 * runs what the adapter stands on (the bare base, and adapters below it) over batches of the
 * training data and shows what came in at those sites, batch after batch, until the method has seen
 * enough or there have been max_rows. Then it closes the adapter and attaches another one with the
 * section that the method made of what it saw: ranks and targets may be other ones then. What was
 * seen decides everything, so a run that is resumed looks at the same rows and begins alike. The
 * method knows no data, the recipe no method. */
#ifndef PF_FIRST_LOOK_H
#define PF_FIRST_LOOK_H

#include "base/pool.h"
#include "peft/method.h"

typedef struct pf_look_wish {
    int64_t max_rows; /* no batch is begun after so many */
    int64_t least;    /* rows that a batch has at least; small ones are joined */
    bool by_label;    /* rows whose label is `without` are left out; that of a token which is not
                         learned is -100 */
    int64_t without;
    bool *sites; /* by site->index: those whose input is wanted; zeroed room, to be filled */
} pf_look_wish;

typedef struct pf_look_input { /* what came in at sites that share it */
    pf_site *const *sites;
    int n_sites;
    int64_t rows, cols;
    const float *x; /* (rows, cols) */
} pf_look_input;

typedef struct pf_look_bytes {
    int64_t kept; /* from the first batch on */
    int64_t work; /* while it is shown a batch, beside x */
} pf_look_bytes;

/* The arena outlives the adapter; what the next section points to is kept there. */
struct pf_first_look {
    /* false: this adapter needs no look */
    bool (*wants)(const pf_adapter *ad, pf_look_wish *out);
    /* What the input of this site costs, with batches of so many rows */
    pf_look_bytes (*bytes)(const pf_adapter *ad, const pf_site *site, int64_t rows);
    /* Some of the inputs of one batch. The same numbers for any number of threads. */
    peft_status (*show)(pf_adapter *ad, pf_arena *a, const pf_look_input *in, int n, pf_pool *pool,
                        peft_error *err);
    /* A batch was shown: `sites` as in the wish, for the next one; *done: none is wanted */
    peft_status (*turn)(pf_adapter *ad, bool *sites, bool *done, peft_error *err);
    /* The section to attach with, and a line that says what was made of what was seen. */
    peft_status (*settle)(pf_adapter *ad, pf_arena *a, const void **section, const char **line,
                          peft_error *err);
};

#endif
