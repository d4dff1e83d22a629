/* step_cut.h - how large the micro-batches of a run will be, found by cutting its steps before any
 * is computed.
 *
 * A budget says how many rows a micro-batch may have; what the steps really fill is often less, and
 * memory is planned for that. A builder whose budget is the largest micro-batch found cuts as the
 * one with the larger budget did: whatever was put together still fits, and whatever was refused
 * is refused again. */
#ifndef PF_STEP_CUT_H
#define PF_STEP_CUT_H

#include "data/batch_builder.h"
#include "data/step_plan.h"

typedef struct pf_step_cut {
    bool exact;              /* every step was cut; else rows and labels are upper bounds */
    int64_t rows, labels;    /* of the largest micro-batch (labels: of the one that has most) */
    int64_t target, source;  /* rows of each kind, likewise: with an encoder `rows` is of both */
    int64_t steps, micro;    /* steps that were looked at, and their micro-batches */
    int64_t computed;        /* their rows, common prefixes counted once */
    int64_t computed_source; /* how many of them are sources */
    int64_t tokens, supervised;
    double row_pairs; /* sum over their samples of rows squared: what attention grows with */
} pf_step_cut;

/* Steps [0, n_steps) with the builder's options. Looks at steps until `most_tokens` tokens were
 * seen; what then follows is bounded, not cut. */
peft_status pf_step_cut_find(pf_step_cut *out, pf_step_plan *plan, const pf_dataset *set,
                             const pf_batch_builder_options *opt, int64_t n_steps,
                             int64_t most_tokens, peft_error *err);

#endif
