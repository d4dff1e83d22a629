/* value_metrics.h - how well several classes at once, or numbers, are told: F1 and its kin, exact
 * rows, Hamming loss and the area under the ROC curve; squared and absolute errors, correlations.
 *
 * Definitions are scikit-learn's and scipy's. MULTI: a class is told where the sigmoid of its logit
 * is above the threshold; averages go over all classes, a share of nothing is 0; accuracy counts
 * rows whose classes are all right (subset accuracy); precision, recall and f1 are micro averages,
 * as run_classification of transformers has them. roc_auc is the mean over the classes that have
 * rows of both kinds, 0 where none has. REGRESSION: means over all outputs (rmse: of their roots);
 * pearson and spearmanr the mean over outputs, combined_score the mean of both, as GLUE's stsb has
 * it; a correlation with something constant is not defined and counts as 0. */
#ifndef PF_VALUE_METRICS_H
#define PF_VALUE_METRICS_H

#include "base/arena.h"
#include "graph/problem.h"

#include <stdint.h>

typedef struct pf_ranked {
    double value;
    int64_t at;
} pf_ranked;

typedef struct pf_value_metrics {
    pf_problem problem;
    double threshold;  /* of probabilities, MULTI */
    int64_t n, K;      /* rows, numbers of each */
    double *z;         /* (n, K) outputs of the model */
    float *y;          /* (n, K) targets */
    pf_ranked *sorted; /* (n) scratch, as are the two below */
    double *a, *b;
} pf_value_metrics;

peft_status pf_value_metrics_init(pf_value_metrics *m, pf_arena *a, pf_problem problem,
                                  double threshold, int64_t n, int64_t K, peft_error *err);
/* z and y are filled by the caller. */

typedef struct pf_value_scores {
    double accuracy, precision, recall, f1, f1_macro, f1_micro, f1_weighted, hamming_loss, roc_auc;
    double mse, rmse, mae, pearson, spearmanr, combined_score;
} pf_value_scores;
pf_value_scores pf_value_metrics_result(const pf_value_metrics *m);

double pf_sigmoid(double z);

#endif
