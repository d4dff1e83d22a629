/* sft_parts.h - the details of sft.c, one function each, and the struct that they share. */
#ifndef PF_SFT_PARTS_H
#define PF_SFT_PARTS_H

#include "recipes/prepared.h"
#include "recipes/sft.h"
#include "train/base_hash.h"
#include "train/checkpoint.h"
#include "train/diagnosis.h"
#include "train/early_stopping.h"
#include "train/loss_graph.h"
#include "train/optimizer.h"
#include "train/profile.h"
#include "train/progress.h"
#include "train/run_dir.h"
#include "train/schedule.h"
#include "train/trainer_state.h"

#include <signal.h>

struct pf_sft {
    pf_prepared p;
    pf_run_dir dir;
    const char *command;     /* the command line, for environment.json */
    pf_base_hash *base_hash; /* being made */
    bool base_hashed;        /* it stands in environment.json */
    pf_trackers trackers;
    pf_progress progress;
    bool resumed;           /* an earlier process did the first steps, or was meant to */
    const char *checkpoint; /* to go on from; NULL: none */
    bool finished_before;   /* the folder holds this run, complete */
    pf_loss_graph loss;
    pf_batch_builder *builder;
    pf_sample *samples;
    pf_evaluator *evaluator; /* NULL without test data */
    pf_optimizer optimizer;
    pf_schedule schedule;
    pf_best best;
    pf_early_stopping stopping;
    bool stops_early;       /* callbacks.early_stopping is given */
    bool stopped;           /* it has said stop */
    pf_trainer_state state; /* trainer_state.json */

    int64_t step;                       /* optimizer steps done */
    int64_t evaluated_step, saved_step; /* last step that was; -1: none */
    bool evaluation_pending;  /* due after the last step and not done (a signal came first) */
    bool new_best;            /* and no checkpoint of it yet */
    pf_evaluation evaluation; /* the last one */
    pf_buf predictions;       /* its answers, a JSON object a line */

    double loss_sum; /* of the steps since the last log line */
    int64_t loss_count;
    double total_loss; /* of all steps, for train_loss */
    int64_t tokens_seen, supervised_seen, rows_seen, rows_plain;
    pf_profile profile; /* with --profile */
    double started;
    char started_at[32];    /* in UTC */
    double step_seconds;    /* inside steps, evaluations and files not counted */
    int64_t tokens_timed;   /* of those steps */
    int64_t first_step;     /* of this process */
    pf_diagnosis diagnosis; /* what the loss curve shows, at the end */
    uint64_t peak_anon;     /* anonymous memory above the start, largest seen */
    const volatile sig_atomic_t *stop_signal;
};

typedef struct pf_sft_due {
    bool log, evaluate, save;
} pf_sft_due;

/* --- before the loop (sft_open.c) */
peft_status pf_sft_say_plan(pf_sft *s, peft_error *err);
/* Where it is worth a second or two: how fast the steps will be. */
peft_status pf_sft_predict_speed(pf_sft *s, peft_error *err);
peft_status pf_sft_open_folder(pf_sft *s, const peft_run_options *opt, peft_error *err);
peft_status pf_sft_build(pf_sft *s, peft_error *err);
peft_status pf_sft_write_environment(pf_sft *s, const peft_run_options *opt, peft_error *err);
/* Begins to hash the base, beside what goes on, unless it was begun. */
peft_status pf_sft_begin_hash(pf_sft *s, peft_error *err);
/* environment.json once more, with the hash of the base: before anything is saved for good. */
peft_status pf_sft_complete_environment(pf_sft *s, peft_error *err);
peft_status pf_sft_open_optimizer(pf_sft *s, peft_error *err);
peft_status pf_sft_open_trackers(pf_sft *s, peft_error *err);

/* --- state on disk (sft_state.c) */
/* Which checkpoint to go on from, if any; takes over what was chosen then. */
peft_status pf_sft_find_checkpoint(pf_sft *s, const peft_run_options *opt, peft_error *err);
peft_status pf_sft_resume(pf_sft *s, peft_error *err);
peft_status pf_sft_save(pf_sft *s, peft_error *err);
peft_status pf_sft_save_last(pf_sft *s, peft_error *err);
peft_status pf_sft_restore_best(pf_sft *s, peft_error *err);
peft_status pf_sft_update_state(pf_sft *s, peft_error *err);

/* --- inside the loop (sft_loop.c) */
bool pf_sft_done(const pf_sft *s);
double pf_sft_epoch(const pf_sft *s); /* epochs done, as the Trainer counts them */
pf_sft_due pf_sft_due_at(const pf_sft *s, const pf_step *step);
/* A step that failed because numbers were no longer finite: says what is kept and what to try.
 * Passes the status on. */
peft_status pf_sft_diverged(pf_sft *s, peft_status status, peft_error *err);
peft_status pf_sft_log_step(pf_sft *s, const pf_step *step, const peft_step_report *r,
                            peft_error *err);
peft_status pf_sft_evaluate(pf_sft *s, peft_error *err);
void pf_sft_progress(pf_sft *s, const peft_step_report *r);

/* --- after it (sft_result.c) */
peft_status pf_sft_write_result(pf_sft *s, peft_error *err);
void pf_sft_say_result(const pf_sft *s);
void pf_sft_release_parts(pf_sft *s);

/* --- the words (sft_words.c) */
/* What the loss curve shows and what to change, into s->diagnosis and report.html. diverged: the
 * message that stopped the run, or NULL. */
peft_status pf_sft_write_report(pf_sft *s, const char *diverged, peft_error *err);
void pf_sft_say_curve(const pf_sft *s);

#endif
