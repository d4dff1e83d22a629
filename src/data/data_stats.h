/* data_stats.h - what is in the data, before anything is trained: lengths, what is learned, what
 * was dropped, cut or split, rows that occur twice, and rows of the test set that the training set
 * holds. */
#ifndef PF_DATA_STATS_H
#define PF_DATA_STATS_H

#include "data/data_load.h"

enum { PF_STATS_MAX_BINS = 24 };

typedef struct pf_view_stats {
    int64_t examples, tokens, supervised;
    int32_t shortest, p50, p90, p95, p99, longest; /* tokens of an example */
    int32_t longest_target;                        /* learned tokens of an example */
    int64_t split;                                 /* tokenized in two parts at the boundary */
    int64_t truncated, empty_targets;
    int64_t duplicates;    /* examples whose text another one before them has */
    int64_t contradictory; /* examples with the prompt of one before them, but another target */
    int32_t bin_width;     /* bin i counts the lengths [i * width + 1, (i + 1) * width] */
    int64_t bins[PF_STATS_MAX_BINS];
    int n_bins;
} pf_view_stats;

typedef struct pf_data_stats {
    pf_view_stats train, test;     /* examples is 0 where there are none */
    int64_t test_in_train;         /* test examples whose text a training example has */
    int64_t test_prompts_in_train; /* ... whose prompt */
    int64_t steps_per_epoch;
    /* rows that the steps of the first epoch compute with common prefixes held once, and without */
    int64_t rows, rows_plain;
} pf_data_stats;

/* step: how training will take the samples. share: as configured. */
peft_status pf_data_stats_make(pf_data_stats *out, const pf_data *d,
                               const pf_step_plan_options *step, pf_share share, peft_error *err);
void pf_data_stats_text(const pf_data_stats *s, const pf_data *d, pf_buf *out);
void pf_data_stats_json(const pf_data_stats *s, const pf_data *d,
                        pf_buf *out); /* one object, no line end */

#endif
