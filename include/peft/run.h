/* run.h - training, evaluation and plans from a configuration.
 *
 * A run owns its model, data, adapter and trackers from open to close. Not thread-safe; several
 * runs may coexist in a process. The same configuration on the same kind of machine gives the same
 * bytes, also when a run is stopped and resumed. */
#ifndef PEFT_RUN_H
#define PEFT_RUN_H

#include "peft/error.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peft_run peft_run;

typedef struct peft_run_options { /* zero = default */
    const char *config_path;      /* YAML; NULL: overrides alone */
    const char *const *overrides; /* "training.max_steps=10", "~callbacks" */
    int n_overrides;
    bool resume;             /* take the newest good checkpoint of output_dir */
    const char *resume_from; /* this checkpoint instead */
    bool overwrite;          /* an output_dir that holds a run is emptied first */
    bool profile;            /* time every op; peft_run_finish prints the table */
    const char *command;     /* command line that environment.json records; NULL: none */
} peft_run_options;

typedef struct peft_step_report {
    int64_t step, max_steps; /* optimizer steps done, to do */
    double epoch;
    double loss;          /* of this step: sum of token losses / supervised tokens */
    double grad_norm;     /* before clipping */
    double learning_rate; /* that this step used */
    int64_t tokens, supervised_tokens, rows; /* of this step; rows computed after prefix sharing */
    double seconds;
    bool done; /* nothing is left to do: call peft_run_finish */
} peft_step_report;

/* Reads the configuration, opens model and data, plans memory, takes the output folder. All errors
 * of a configuration are reported at once. */
PEFT_API
peft_status peft_run_open(peft_run **out, const peft_run_options *opt, peft_error *err);
/* One optimizer step with what is due after it: logging, evaluation, checkpoint. */
PEFT_API
peft_status peft_run_step(peft_run *run, peft_step_report *out, peft_error *err);
/* Writes the final adapter (or the best), report and model card. */
PEFT_API
peft_status peft_run_finish(peft_run *run, peft_error *err);
PEFT_API
void peft_run_close(peft_run *run); /* NULL is fine */

/* The loop over peft_run_step, with a progress bar; a stop request makes a checkpoint first and
 * returns PEFT_E_INTERRUPTED or PEFT_E_TERMINATED. */
PEFT_API
peft_status peft_train(const peft_run_options *opt, peft_error *err);
/* Asks a running peft_train to stop after the current step. Safe in a signal handler; `signal` is
 * SIGINT or SIGTERM. */
PEFT_API
void peft_request_stop(int signal);

typedef struct peft_plan_options { /* zero = memory alone, as text */
    peft_run_options run;          /* model.name_or_path may be a folder with config.json alone */
    bool json;                     /* one JSON object */
    bool speed;                /* predict tokens per second, from a second or two of measuring */
    bool recommend;            /* a table of hardware: what holds it, how long, what price */
    const char *hardware_path; /* that table; NULL: share/hardware.yaml */
} peft_plan_options;

/* Memory per class of buffer, time and what was chosen, without training. The text is the caller's
 * to free with peft_free. */
PEFT_API
peft_status peft_plan(const peft_plan_options *opt, char **text, peft_error *err);

typedef struct peft_eval_options { /* zero = default */
    peft_run_options run;          /* the configuration names base, data and metrics */
    const char *adapter; /* folder of an adapter or checkpoint; NULL: the run's final adapter */
    bool base;           /* no adapter at all */
    const char *predictions_path; /* JSONL of prompt, target, prediction; NULL: none */
} peft_eval_options;

/* Metrics as one JSON object {"eval_loss":..., "eval_exact_match":...}; free with peft_free. */
PEFT_API
peft_status peft_evaluate(const peft_eval_options *opt, char **json, peft_error *err);

/* "data preview": n rows rendered with tokens and mask; "data stats": figures of the whole set. */
PEFT_API
peft_status peft_data_preview(const peft_run_options *opt, int64_t first, int64_t n, bool json,
                              char **text, peft_error *err);
PEFT_API
peft_status peft_data_stats(const peft_run_options *opt, bool json, char **text, peft_error *err);

/* "data tokens": every training row (or test row) as {"input_ids": [...], "labels": [...]} on a
 * line of its own, in the order of the file; what data.input_ids reads. */
PEFT_API
peft_status peft_data_tokens(const peft_run_options *opt, bool test, char **jsonl, peft_error *err);

/* What a configuration key means, or a whole section; NULL: every key, as in docs/config.md. */
PEFT_API
peft_status peft_config_explain(const char *key, char **text, peft_error *err);
/* The pages of docs/config.md, from the rows of the schema. */
PEFT_API
peft_status peft_config_reference(char **text, peft_error *err);
/* docs/methods.md and docs/models.md: what can be trained, and on what. */
PEFT_API
peft_status peft_methods_reference(char **text, peft_error *err);
PEFT_API
peft_status peft_models_reference(char **text, peft_error *err);
/* The resolved configuration with the origin of each value, as JSON. */
PEFT_API
peft_status peft_config_resolve(const peft_run_options *opt, char **json, peft_error *err);

PEFT_API
void peft_free(void *text);
PEFT_API
const char *peft_version(void);
/* 0 errors only, 1 warnings, 2 information (default), 3 debug */
PEFT_API
void peft_set_verbosity(int level);

#ifdef __cplusplus
}
#endif
#endif
