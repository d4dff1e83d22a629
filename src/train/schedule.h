/* schedule.h - learning rates over the steps of a run: every lr_scheduler_type of transformers
 * (optimization.py and torch's ReduceLROnPlateau), with the same arguments and the same arithmetic.
 *
 * Steps count from 0: pf_schedule_lr(s, k) is the rate that optimizer step k uses (so 0 in the
 * first step of a warmup, as in transformers). The closed-form kinds depend on the step alone and
 * have no state. reduce_lr_on_plateau and greedy follow a metric: call pf_schedule_metric once
 * after each evaluation; their state is what pf_schedule_section saves and loads.
 *
 * Beyond transformers: a misspelt or useless argument is an error here, and reduce_lr_on_plateau
 * and greedy take their mode from the metric (`greater_is_better`) unless `mode` is given. */
#ifndef PF_SCHEDULE_H
#define PF_SCHEDULE_H

#include "base/arena.h"
#include "config/schema.h"
#include "train/checkpoint.h"

#include <stdint.h>

typedef struct pf_schedule_cfg {
    const char *type;    /* linear, cosine, ... */
    double lr;           /* training.learning_rate, the peak */
    int64_t total_steps; /* optimizer steps of the whole run */
    int64_t warmup_steps;
    const pf_cfg_map *args; /* training.lr_scheduler_kwargs; NULL: none */
    bool greater_is_better; /* of the metric that adaptive kinds follow */
} pf_schedule_cfg;

typedef struct pf_schedule_args {
    double num_cycles, lr_end, power, timescale, min_lr, min_lr_rate, warmup_lr_rate;
    double num_decay_steps, num_stable_steps, min_lr_ratio;
    int warmup_type, decay_type; /* linear, cosine, 1-sqrt */
    int mode, threshold_mode;    /* min, max; rel, abs */
    double factor, patience, threshold, cooldown, warmup, max_lr, eps;
    int smooth; /* false, true */
    double window_size, reset_start;
} pf_schedule_args;

typedef struct pf_schedule_state { /* of the adaptive kinds */
    double lr, best;
    int64_t bad, good, cooldown, warmup, reset; /* counters */
    double *window, window_sum;                 /* the last window_n values, oldest first */
    int64_t window_n;
} pf_schedule_state;

typedef struct pf_schedule_kind pf_schedule_kind;
typedef struct pf_schedule {
    const pf_schedule_kind *kind;
    pf_schedule_cfg cfg;
    pf_schedule_args args;
    pf_schedule_state state;
} pf_schedule;

/* PEFT_E_CONFIG with one line about what is wrong. State lives in the arena. */
peft_status pf_schedule_init(pf_schedule *s, pf_arena *a, const pf_schedule_cfg *cfg,
                             peft_error *err);
double pf_schedule_lr(const pf_schedule *s, int64_t step);
/* lr / cfg.lr; the factor of LambdaLR for the closed-form kinds. */
double pf_schedule_factor(const pf_schedule *s, int64_t step);
bool pf_schedule_is_adaptive(const pf_schedule *s);
/* After an evaluation; does nothing for the closed-form kinds. */
void pf_schedule_metric(pf_schedule *s, double value);

/* As transformers: `steps` if it is at least 1, else ratio of all steps, rounded up. */
int64_t pf_schedule_warmup(int64_t steps, double ratio, int64_t total_steps);

/* The state of the adaptive kinds ("schedule"); the type must be the same when it is loaded. */
pf_section pf_schedule_section(pf_schedule *s);

/* ---- between schedule*.c ---- */
bool pf_schedule_better(const pf_schedule *s, double value);
void pf_schedule_plateau(pf_schedule *s, double value);
void pf_schedule_greedy(pf_schedule *s, double value);
void pf_schedule_start(pf_schedule *s); /* state as at the beginning */
const char *pf_schedule_name(const pf_schedule *s);

#endif
