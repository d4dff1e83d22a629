/* text_metrics.h - scores of generated answers against references, summed row by row, in percent.
 *
 *   exact match  both sides stripped of white space and lower-cased (text_norm.h) are the same
 * bytes F1           overlap of words as in SQuAD's official script: lower case, ASCII punctuation
 *                removed, the words a, an, the removed, split at white space; 2PR/(P+R) on
 * multisets; where a side has no word left the score is 1 if both have none, else 0 (SQuAD 2.0)
 *   BLEU         of the corpus (bleu.h), on the texts as they are
 *
 * The mean is over all rows added. No Unicode normalization is applied: composed and decomposed
 * letters differ, as they do in Python. */
#ifndef PF_TEXT_METRICS_H
#define PF_TEXT_METRICS_H

#include "train/bleu.h"

typedef struct pf_text_metrics { /* zero to start */
    int64_t rows, exact;
    double f1_sum;
    pf_bleu bleu;
} pf_text_metrics;

/* On failure nothing is added. */
peft_status pf_text_metrics_add(pf_text_metrics *m, pf_str prediction, pf_str reference,
                                peft_error *err);

typedef struct pf_text_scores {
    int64_t rows;
    double exact_match, f1, bleu; /* 0..100; NaN when there is no row */
} pf_text_scores;
pf_text_scores pf_text_metrics_result(const pf_text_metrics *m);

/* One row: 0 or 1, and 0..1. */
peft_status pf_exact_match(pf_str prediction, pf_str reference, bool *same, peft_error *err);
peft_status pf_word_f1(pf_str prediction, pf_str reference, double *f1, peft_error *err);

#endif
