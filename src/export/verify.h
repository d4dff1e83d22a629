/* verify.h - is a transformed model still the one it was made from? Two models, the same texts,
 * every position. */
#ifndef PF_VERIFY_H
#define PF_VERIFY_H

#include "backend/backend.h"
#include "nn/model.h"

typedef struct pf_verify_report {
    int64_t n_texts, n_positions;
    double max_abs_logit; /* largest |difference| of a logit */
    double max_abs_value; /* largest |logit| of the reference, to read the difference by */
    double mean_kl;       /* KL(reference || made) of the next-token distributions, nats, mean over
                             positions */
    double max_kl;
    double token_agreement; /* share of positions with the same most likely token */
} pf_verify_report;

typedef struct pf_verify_text {
    const int32_t *ids;
    int32_t n;
} pf_verify_text;

/* reference: with its attached adapter; made: bare. */
peft_status pf_verify_models(pf_model *reference, pf_model *made, pf_backend *be,
                             const pf_verify_text *texts, int n, pf_verify_report *out,
                             peft_error *err);

/* The report as a JSON object, for the file beside the output. */
peft_status pf_verify_write(const pf_verify_report *r, const char *path, peft_error *err);

#endif
