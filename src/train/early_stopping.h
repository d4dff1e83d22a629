/* early_stopping.h - has the run stopped getting better, and which evaluation was the best?
 *
 * As transformers' EarlyStoppingCallback: an evaluation is an improvement when its metric is better
 * than the best one before it by more than `threshold`; `patience` evaluations in a row without an
 * improvement end the run. The best moves with any better value, however small. The first
 * evaluation is an improvement; NaN never is. Equal is not better, so the earliest of equals is the
 * best one. */
#ifndef PF_EARLY_STOPPING_H
#define PF_EARLY_STOPPING_H

#include "train/checkpoint.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_best { /* the best evaluation so far */
    const char *metric;  /* eval_exact_match; borrowed */
    bool greater_is_better;
    bool any; /* else value and step mean nothing */
    double value;
    int64_t step;
} pf_best;

void pf_best_init(pf_best *b, const char *metric, bool greater_is_better);
bool pf_best_better(const pf_best *b, double value); /* than the best; false for NaN */
/* True when `value` is the new best. */
bool pf_best_update(pf_best *b, double value, int64_t step);

typedef struct pf_early_stopping {
    pf_best best;
    int64_t patience;
    double threshold;
    int64_t waited; /* evaluations in a row without an improvement */
} pf_early_stopping;

void pf_early_stopping_init(pf_early_stopping *s, const char *metric, bool greater_is_better,
                            int64_t patience, double threshold);
/* True when the run should end. */
bool pf_early_stopping_update(pf_early_stopping *s, double value, int64_t step);
/* One line for the log: "no better eval_loss than 1.25 (step 400) in 3 evaluations". */
void pf_early_stopping_reason(const pf_early_stopping *s, char *out, size_t n);

/* State for checkpoints; the metric must be the same when it is loaded. */
pf_section pf_best_section(pf_best *b);                     /* "best" */
pf_section pf_early_stopping_section(pf_early_stopping *s); /* "early_stopping" */

#endif
