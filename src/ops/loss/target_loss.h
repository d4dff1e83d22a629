/* target_loss.h - losses over the few logits of a row against as many numbers: heads for classes
 * that tell several at once, numbers, or one class with smoothed targets.
 *
 * For an entry with logits z and targets y, K of each:
 *   SINGLE      nll = sum_k y_k (logsumexp(z) - z_k); y one-hot, or smoothed: (1 - e) onehot + e /
 * K (Szegedy et al. 2016, arXiv 1512.00567), as transformers' LabelSmoother has it MULTI       nll
 * = mean_k of max(z_k, 0) - z_k y_k + log(1 + e^-|z_k|) REGRESSION  nll = mean_k of (z_k - y_k)^2
 * The means over k make the mean over entries torch's mean over all numbers. An entry is correct
 * where its largest logit has the largest target (first ones win), where the sign of each logit
 * says whether its target is above 1/2, and never where targets are numbers. */
#ifndef PF_TARGET_LOSS_H
#define PF_TARGET_LOSS_H

#include "graph/graph.h"
#include "graph/problem.h"

/* The target of a class, smoothed by e. */
static inline double pf_smoothed_target(double e, int64_t K, bool is_the_class) {
    return (is_the_class ? 1 - e : 0) + e / (double)K;
}

/* z, y (E, K) -> nll (E, 1), correct (E, 1); y is not trained */
peft_status pf_target_loss(pf_graph *g, const char *name, pf_problem problem, pf_value *z,
                           pf_value *y, pf_value **nll, pf_value **correct, peft_error *err);

#endif
