/* class_weights.h - what an entry of each class counts in the training loss
 * (training.class_weights): numbers by id, or "balanced" for the inverse of how often a class
 * occurs, n / (K count) as scikit-learn has it. The loss of a step is then the weighted mean, as
 * torch's CrossEntropyLoss(weight) makes it. Evaluations do not weigh. */
#ifndef PF_CLASS_WEIGHTS_H
#define PF_CLASS_WEIGHTS_H

#include "data/dataset.h"

/* *out (labels->n), in the arena; NULL where none are given. */
peft_status pf_class_weights_make(const pf_strlist *given, const pf_strlist *labels,
                                  const pf_data_view *train, pf_arena *a, const float **out,
                                  peft_error *err);

#endif
