/* to_factors.h - any adapter that changes weights as a plain LoRA: of each matrix that it touches,
 * the best factors of rank r of W' - W (Eckart-Young). What they miss is said per module. */
#ifndef PF_TO_FACTORS_H
#define PF_TO_FACTORS_H

#include "factors/factors.h"
#include "peft/method.h"

typedef struct pf_to_factors_report {
    double worst;      /* the largest share (of a norm) that a module's factors miss */
    const char *where; /* in which */
    double all;        /* of all modules together */
} pf_to_factors_report;

/* `out` was made by pf_factors_init. Fails where something changes that has no factors: norms,
 * biases, activations. */
peft_status pf_to_factors(pf_factors *out, const pf_adapter *ad, int64_t rank,
                          pf_to_factors_report *report, peft_error *err);

#endif
