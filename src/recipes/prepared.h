/* prepared.h - from a configuration to everything that stands still during a run: model, adapter,
 * tokenizer, data, steps, memory plan. Training, evaluation, plans and data previews begin here and
 * differ in what they ask for. */
#ifndef PF_PREPARED_H
#define PF_PREPARED_H

#include "config/run_config.h"
#include "data/data_load.h"
#include "recipes/loaded.h"
#include "train/compute_choice.h"
#include "train/evaluator.h"
#include "train/memory_plan.h"
#include "train/run_timing.h"
#include "train/speed.h"

typedef struct pf_prepare_options { /* zero is the usual */
    const char *config_path;
    const char *const *overrides;
    int n_overrides;
    pf_run_purpose purpose;
    bool with_data;      /* read and tokenize the data */
    bool with_training;  /* attach what is trained, plan steps and memory */
    bool shapes_only;    /* plans: no weights are read, and what is not there is assumed */
    const char *adapter; /* in place of the configuration's peft section; "" : none at all */
} pf_prepare_options;

typedef struct pf_looked { /* what was shown to methods before they began */
    int64_t bytes, peak;   /* that it takes, and with all that was there already */
    int64_t batches, rows, samples;
} pf_looked;

typedef struct pf_prepared {
    pf_arena arena;
    pf_run_cfg run;
    pf_cfg cfg;
    pf_loaded loaded;
    pf_label_look look;     /* what the labels of the data look like */
    pf_class_rules classes; /* where data.label is given: how rows are read */
    pf_data data;           /* data.test.n is 0 without test data */
    char assumed[256];      /* what stands for data that are not there; "" where they are */
    pf_step_plan *steps;
    int64_t total_steps, steps_per_epoch;
    pf_compute_choice compute; /* of training; evaluation is in f32 */
    bool save_bf16;            /* activations wait for the backward pass in bf16 */
    bool dropout;              /* random masks are active in training */
    const char *base_dropout;  /* those of the base: "embd_pdrop 0.1, ...", "0.1" or "none" */
    pf_memory_request request;
    pf_evaluator_options evaluation; /* of the request */
    pf_memory_plan memory;
    pf_looked looked;       /* first_look.c; zero: nothing was shown */
    pf_run_timing timing;   /* how long each part of opening took */
    pf_speed speed;         /* predicted, of this machine; tokens_per_second 0: not asked for */
    uint64_t anon_at_start; /* anonymous memory of the process before anything was opened */
} pf_prepared;

peft_status pf_prepare(pf_prepared *out, const pf_prepare_options *opt, peft_error *err);
void pf_prepared_release(pf_prepared *p); /* zeroed is fine */

/* Seconds of measuring fill p->speed. */
peft_status pf_prepared_speed(pf_prepared *p, double budget, peft_error *err);

/* first_look.c: what the methods of a new adapter want to see before they begin is shown to them,
 * within training.memory_limit, of which `used` bytes are taken already. *any: one wanted to, and
 * the adapter at hand is suspended; next then has the sections to attach in its place. Of a model
 * without weights only p->looked.bytes is found. */
peft_status pf_prepared_first_look(pf_prepared *p, int64_t used, pf_peft_cfg *next, bool *any,
                                   peft_error *err);

/* How the data of this configuration are read. */
pf_data_load_options pf_prepared_data_options(const pf_prepared *p);
/* Beginnings that samples may share; none where rows see what comes after them. */
pf_share pf_prepared_share(const pf_prepared *p);
/* How the steps are cut; max_tokens and max_labels are the memory plan's. */
pf_batch_builder_options pf_prepared_builder(const pf_prepared *p);
/* Everything of the evaluation on p->data.test but who is evaluated. */
pf_evaluator_options pf_prepared_evaluation(const pf_prepared *p, bool adapters);

#endif
