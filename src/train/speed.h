/* speed.h - how fast a plan will run on this machine, found in a second or two without weights.
 *
 * The planned training graph is a few dozen kinds of nodes, each many times. One of each kind is
 * run by the kernels that training will use, at the rows of a typical micro-batch, on weights that
 * are zero pages: kernels take the same time whatever the numbers are. The times add up to a
 * micro-batch; the optimizer is timed on a part of its block. Not counted: reading data,
 * evaluations, files. */
#ifndef PF_SPEED_H
#define PF_SPEED_H

#include "train/memory_plan.h"

typedef struct pf_speed {
    double forward, recompute, backward, optimizer; /* seconds of an average step */
    double step;                                    /* their sum */
    double tokens_per_second;                       /* of the samples, as a run counts them */
    double spent;                                   /* seconds that measuring took */
    int64_t rows; /* that kinds were timed at: fewer than a micro-batch has where that is slow */
    int kinds, guessed; /* kinds of nodes; of these not timed but taken at the others' rate */
} pf_speed;

/* About `budget` seconds are spent. */
peft_status pf_speed_predict(pf_speed *out, const pf_memory_request *rq, const pf_memory_plan *plan,
                             pf_backend *be, double budget, peft_error *err);
/* "412 tokens/s, 2.3 s a step (forward 31 %, ...)" */
void pf_speed_text(const pf_speed *s, pf_buf *out);

#endif
