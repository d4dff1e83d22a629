/* data_assume.h - rows that stand for a data set which is not there, for plans: every row as long
 * as allowed, every token of it learned. What is planned for them is an upper bound. */
#ifndef PF_DATA_ASSUME_H
#define PF_DATA_ASSUME_H

#include "data/data_load.h"

typedef struct pf_assumed_rows {
    int64_t train, test;  /* rows; test 0: none */
    int32_t length;       /* tokens of each */
    bool encoder_decoder; /* half of them are the source's */
} pf_assumed_rows;

/* Test rows are prompts as long as generation can start from. Released by pf_data_release. */
peft_status pf_data_assume(pf_data *d, const pf_assumed_rows *rows, peft_error *err);

#endif
