/* class_metrics.h - how well classes are told: accuracy, precision, recall, F1, Matthews'
 * correlation from counts of (class, prediction), and entities of tagged words.
 *
 * Definitions are scikit-learn's: averages go over the classes that occur in the truth or in the
 * predictions, a share of nothing is 0; of two classes, precision, recall and F1 are those of class
 * 1, of more the macro average. Entities are seqeval's (get_entities, no scheme): runs of tags with
 * one type, begun and ended by B, I, E, S and O; precision, recall and F1 count whole entities that
 * agree in type, begin and end. */
#ifndef PF_CLASS_METRICS_H
#define PF_CLASS_METRICS_H

#include "base/arena.h"
#include "base/status.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_class_metrics {
    int n;                  /* classes */
    int64_t *counts;        /* (n, n): truth, prediction */
    const pf_strlist *tags; /* entities are counted, too; NULL: they are not */
    int64_t true_entities, predicted_entities, agreed;
} pf_class_metrics;

peft_status pf_class_metrics_init(pf_class_metrics *m, pf_arena *a, int n, const pf_strlist *tags,
                                  peft_error *err);
void pf_class_metrics_clear(pf_class_metrics *m);
/* One sequence: a text has one class. */
void pf_class_metrics_add(pf_class_metrics *m, const int32_t *truth, const int32_t *prediction,
                          int n);

typedef struct pf_class_scores { /* 0..1; mcc -1..1 */
    bool entities;               /* precision, recall and f1 are those of entities */
    double accuracy, precision, recall, f1;
    double f1_macro, f1_micro, f1_weighted, mcc;
} pf_class_scores;
pf_class_scores pf_class_metrics_result(const pf_class_metrics *m);

#endif
