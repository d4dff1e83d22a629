/* split.h - which rows are kept apart to evaluate on.
 *
 * The choice is a function of the seed and the number of rows in the file alone: another tokenizer,
 * another max_length or a dropped row never moves a row from one side to the other. Both sides keep
 * the order of the file. */
#ifndef PF_SPLIT_H
#define PF_SPLIT_H

#include "data/dataset.h"

/* test_size below 1 is a share of the rows (rounded up), from 1 on a count. */
peft_status pf_split_by_size(const pf_dataset *ds, double test_size, uint64_t seed, pf_arena *a,
                             pf_data_view *train, pf_data_view *test, peft_error *err);
/* All of it. */
peft_status pf_split_all(const pf_dataset *ds, pf_arena *a, pf_data_view *out, peft_error *err);

#endif
