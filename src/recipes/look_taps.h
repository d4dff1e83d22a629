/* look_taps.h - a model with taps at some of its sites: builds its graph without a head, and says
 * which values come in there. Sites that share an input have one value; inputs are numbered in the
 * order in which they come up, which is the same in every build. */
#ifndef PF_LOOK_TAPS_H
#define PF_LOOK_TAPS_H

#include "graph/exec.h"
#include "nn/model.h"

typedef struct pf_look_taps pf_look_taps;
typedef struct pf_look_tap {
    pf_look_taps *all;
    pf_site *site;
    int input; /* -1: this build does not pass it */
} pf_look_tap;

struct pf_look_taps {
    pf_model *model;
    const char *method; /* for messages */
    pf_look_tap *taps;  /* in the order of the model's sites */
    int n;
    pf_value **inputs; /* of the last build */
    int n_inputs;
    const bool *keep; /* by input: it can be read when the graph has run; NULL: none */
};

/* At the sites for which `sites` is true (by site->index). Room is the arena's. */
peft_status pf_look_taps_attach(pf_look_taps *t, pf_arena *a, pf_model *model, const bool *sites,
                                const char *method, peft_error *err);
void pf_look_taps_detach(pf_look_taps *t);

/* capacity: rows by space */
peft_status pf_look_taps_build(pf_look_taps *t, pf_backend *be, const int64_t *capacity,
                               pf_graph **graph, pf_exec **exec, peft_error *err);

#endif
