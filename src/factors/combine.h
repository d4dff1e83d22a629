/* combine.h - several LoRA adapters into one, as PEFT's add_weighted_adapter has it
 * (merge_utils.py).
 *
 *   linear              A = Σ √(w s) A_i, B = Σ √(w s) B_i        rough: not the sum of the updates
 *   cat                 A = [w_i s_i A_i], B = [B_i]              exact; the rank is the sum
 *   svd                 the best rank r of Σ w_i s_i B_i A_i      exact when r is enough
 *   ties, ties_svd      TIES (Yadav et al. 2023, arXiv 2306.01708): the largest `density` of each,
 *                       the sign that most have, the mean of those that agree
 *   dare_linear, dare_ties, ..._svd    DARE (Yu et al. 2023, arXiv 2311.03099): a random `density`
 *                       of each, divided by it; the draws are ours, not torch's
 *   magnitude_prune, ..._svd           the largest `density` of each
 *
 * Those without svd work on A and on B alone and need equal ranks. */
#ifndef PF_COMBINE_H
#define PF_COMBINE_H

#include "factors/factors.h"

typedef struct pf_combine_options {
    const char *kind; /* one of the above */
    double density;   /* (0, 1]; 1 keeps all */
    bool frequency;   /* ties: the sign of most, rather than of the larger sum */
    int64_t svd_rank; /* 0: the largest rank among them */
    uint64_t seed;    /* DARE */
} pf_combine_options;

/* The names of all kinds, for messages: "linear, cat, ...". */
extern const char pf_combine_kinds[];

/* `out` was made by pf_factors_init. weights: one for each set. *left: the largest part of a
 * module's combined update that svd left out, 0 for the others. */
peft_status pf_factors_combine(pf_factors *out, pf_factors *const *sets, const double *weights,
                               int n, const pf_combine_options *opt, double *left, peft_error *err);

#endif
