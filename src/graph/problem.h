/* problem.h - what the target of a classified row is, and so its loss: the problem types of
 * transformers (config.json: problem_type).
 *
 * SINGLE: one class of several; cross-entropy. MULTI: each class for itself, 0 or 1; the mean of
 * the binary cross-entropies. REGRESSION: a number, or several; the mean squared difference. The
 * targets of the last two are as many numbers as the head has rows (pf_batch.label_values). */
#ifndef PF_PROBLEM_H
#define PF_PROBLEM_H

#include <stdbool.h>

typedef enum pf_problem {
    PF_PROBLEM_AUTO, /* not said */
    PF_PROBLEM_SINGLE,
    PF_PROBLEM_MULTI,
    PF_PROBLEM_REGRESSION
} pf_problem;

const char *pf_problem_name(pf_problem p);    /* "regression"; NULL for AUTO */
pf_problem pf_problem_find(const char *name); /* AUTO: NULL, or no such type */
static inline bool pf_problem_has_values(pf_problem p) {
    return p == PF_PROBLEM_MULTI || p == PF_PROBLEM_REGRESSION;
}

#endif
