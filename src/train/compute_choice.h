/* compute_choice.h - f32, bf16 or int8: which type the products with frozen weights are computed in
 * when a run leaves that to the machine (training.compute: auto, training.bf16: true).
 *
 * The candidates multiply a weight of the model forward and backward, and the fastest is taken; a
 * narrow type has to win by a tenth. What was taken is said, recorded with the checkpoint, and
 * taken again on resume. */
#ifndef PF_COMPUTE_CHOICE_H
#define PF_COMPUTE_CHOICE_H

#include "base/pool.h"
#include "nn/model.h"
#include "tensor/compute.h"

typedef struct pf_compute_choice {
    pf_compute type;
    double rate[PF_COMPUTE_INT8 + 1]; /* 1e9 operations a second on all threads; 0: not measured */
    char note[256];                   /* what the user should know; "" */
} pf_compute_choice;

/* `words`: the candidates, by name, blanks between them. */
peft_status pf_compute_choose(pf_compute_choice *out, const char *words, const pf_model *m,
                              pf_pool *pool, peft_error *err);

#endif
