/* trainer_state.h - trainer_state.json, as transformers' TrainerState writes it: the same members,
 * and no others, keys sorted, indent 2. Tools that plot log_history read it, and so does our
 * --resume.
 *
 * Beside the file it is the run's memory of what was logged: diagnosis and report.html are made
 * from it. NaN and the infinities, which JSON does not have, are the texts "NaN", "Infinity" and
 * "-Infinity". After pf_trainer_state_reserve logging allocates nothing while the reserve lasts. */
#ifndef PF_TRAINER_STATE_H
#define PF_TRAINER_STATE_H

#include "base/buf.h"
#include "track/tracker.h"
#include "train/checkpoint.h"
#include "train/early_stopping.h"

typedef struct pf_log_row {
    int64_t step;
    double epoch;
    int64_t first; /* of its metrics */
    int n;
} pf_log_row;

typedef struct pf_trainer_state {
    double epoch;
    int64_t global_step, max_steps;
    int64_t logging_steps, eval_steps, save_steps; /* 500 where there is none, as in transformers */
    int64_t train_batch_size, num_train_epochs;    /* rounded up */
    int64_t num_input_tokens_seen;
    double total_flos;
    bool has_best;
    double best_metric;
    int64_t best_global_step;
    const char *best_model_checkpoint; /* NULL: none; in the arena, or borrowed */
    const pf_early_stopping *stopping; /* NULL: none; its counter is shown */
    bool should_save, should_stop;

    pf_arena *arena; /* borrowed; holds the rows */
    pf_log_row *rows;
    int64_t n_rows, cap_rows;
    pf_metric *metrics; /* of all rows */
    int64_t n_metrics, cap_metrics;
    pf_strlist names;
} pf_trainer_state;

void pf_trainer_state_init(pf_trainer_state *s, pf_arena *a);
/* Room for this many rows, metrics, and different names altogether. */
peft_status pf_trainer_state_reserve(pf_trainer_state *s, int64_t rows, int64_t metrics,
                                     peft_error *err);
/* Adds a row to log_history. Names are copied. */
peft_status pf_trainer_state_log(pf_trainer_state *s, const pf_metric_row *row, peft_error *err);
/* The value of a metric in a row; false when it is not there. */
bool pf_log_row_value(const pf_trainer_state *s, const pf_log_row *row, const char *name,
                      double *value);

peft_status pf_trainer_state_text(pf_buf *out, const pf_trainer_state *s, peft_error *err);
peft_status pf_trainer_state_write(const pf_trainer_state *s, const char *path, peft_error *err);
/* Replaces what s holds, but for `stopping`, which keeps its own state. `name` for messages. */
peft_status pf_trainer_state_parse(pf_trainer_state *s, const char *text, size_t n,
                                   const char *name, peft_error *err);
peft_status pf_trainer_state_read(pf_trainer_state *s, const char *path, peft_error *err);
/* "trainer_state": the file of a checkpoint. */
pf_section pf_trainer_state_section(pf_trainer_state *s);

#endif
