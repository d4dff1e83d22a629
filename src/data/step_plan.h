/* step_plan.h - which samples make which optimizer step, and what their loss is divided by.
 *
 * As in the Hugging Face Trainer (5.x): an epoch's items stand in an order;
 * per_device_train_batch_size of them are a batch, the last one may be smaller;
 * gradient_accumulation_steps batches are a step, and the last step of an epoch takes what is left.
 * So an epoch has ceil(ceil(items / batch) / accumulation) steps, and none goes over its end.
 *
 * An item is a sample, or with packing a row of samples (bfd_pack.h). The order of an epoch is a
 * function of (seed, epoch): going to any step costs one permutation and needs nothing from the
 * steps before. */
#ifndef PF_STEP_PLAN_H
#define PF_STEP_PLAN_H

#include "data/dataset.h"

typedef struct pf_step_plan_options {
    int64_t batch_size, accumulation;
    bool shuffle; /* else the order of the view */
    uint64_t seed;
    bool packing;
    int64_t pack_length; /* rows of so many tokens; at least the longest sample */
} pf_step_plan_options;

typedef struct pf_step {
    int64_t step, epoch, step_in_epoch; /* from 0 */
    const int64_t *examples;            /* (n) of the data set; valid until the next get */
    int32_t n;
    int64_t tokens, supervised; /* supervised: the denominator of the loss */
    double epochs_done;         /* after this step, as the Trainer logs it */
} pf_step;

typedef struct pf_step_plan pf_step_plan;

/* The view is borrowed. Everything is allocated here. */
peft_status pf_step_plan_new(pf_step_plan **out, const pf_data_view *view,
                             const pf_step_plan_options *opt, peft_error *err);
void pf_step_plan_free(pf_step_plan *plan);
/* Any step, in any order; step 0 is the first. */
void pf_step_plan_get(pf_step_plan *plan, int64_t step, pf_step *out);

int64_t pf_step_plan_items(const pf_step_plan *plan); /* samples, or packed rows */
int64_t pf_step_plan_steps_per_epoch(const pf_step_plan *plan);
/* max_steps where it is positive, else ceil(epochs x steps per epoch). */
int64_t pf_step_plan_total(const pf_step_plan *plan, double epochs, int64_t max_steps);
/* Most samples that any step can have. */
int32_t pf_step_plan_max_samples(const pf_step_plan *plan);
/* An upper bound of the labels that a micro-batch of max_tokens rows can get, without shared
 * prefixes: what room for label entries is worth planning. At least the labels of the sample that
 * has most. */
int32_t pf_step_plan_max_labels(const pf_step_plan *plan, int32_t max_tokens, bool keep_tail);

#endif
