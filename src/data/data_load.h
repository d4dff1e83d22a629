/* data_load.h - the data section of a configuration -> training rows and test rows. */
#ifndef PF_DATA_LOAD_H
#define PF_DATA_LOAD_H

#include "config/run_config.h"
#include "data/label_values.h"
#include "data/split.h"
#include "data/step_plan.h"

typedef struct pf_data {
    pf_data_view train, test; /* n is 0 where there are none */
    pf_dataset train_set; /* rows of data.train, the test rows too when data.test_size takes them
                             from there */
    pf_dataset test_set;  /* rows of data.test */
    char fingerprint[PF_SHA256_HEX]; /* of all that decides which tokens are trained and evaluated
                                        on */
    pf_arena arena;
} pf_data;

typedef struct pf_data_load_options {
    const pf_data_cfg *data;
    const pf_training_cfg *training; /* max_length, packing, data_seed */
    const pf_tokenizer *tokenizer;
    int64_t max_positions; /* the model's; 0: unknown */
    int64_t vocab;         /* the model's; 0: unknown */
    bool encoder_decoder;  /* prompts are sources */
    int32_t decoder_start;
    pf_pool *pool;                 /* threads that tokenize; NULL: in place */
    const pf_class_rules *classes; /* data.label: labels and places as the model has them */
    bool test_only;                /* do not read data.train unless the test rows come from it */
} pf_data_load_options;

/* Says in one line per file what was read, and warns of every row that was dropped or cut. */
peft_status pf_data_load(pf_data *d, const pf_data_load_options *opt, peft_error *err);
void pf_data_release(pf_data *d);

/* What the targets in the files are (training rows where there are some), and the names of their
 * classes: before there is a model. Empty without data.label, or where no file is there. */
peft_status pf_data_look_at_labels(const pf_data_cfg *data, pf_problem told, pf_arena *a,
                                   pf_label_look *out, peft_error *err);
pf_class_columns pf_data_label_columns(const pf_data_cfg *data);

/* What the configuration says about the two things that come next: step plan and batch builder. */
pf_step_plan_options pf_data_step_options(const pf_data_load_options *opt);
pf_share pf_data_share(const pf_data_cfg *cfg);

#endif
