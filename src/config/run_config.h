/* run_config.h - the configuration of a run as plain structs: the sections of the YAML file, in
 * Hugging Face's words.
 *
 * The canonical dialect: model, peft, data, training, evaluation, generation, logging, callbacks,
 * distributed, seed. Opening reads and checks everything; what follows from other values is filled
 * in and marked as derived, so a consumer reads a field and needs no rule of its own. Texts that
 * may be absent are NULL, lists that may be absent are empty.
 *
 *   pf_run_cfg run; pf_cfg cfg;
 *   pf_run_cfg_open(&run, &cfg, arena, &source, NULL, 0, PF_RUN_TRAIN, err)
 *   for each cfg.notes: say it once
 *   run.training.learning_rate, ...
 *
 * A PEFT method brings the rows of its own section (pf_cfg_ext with section "peft");
 * run.peft.method_cfg is its struct. */
#ifndef PF_RUN_CONFIG_H
#define PF_RUN_CONFIG_H

#include "config/cfg.h"

typedef struct pf_model_cfg {
    const char *name_or_path;
    const char *adapter_name_or_path;
    bool create_new_adapter;
    bool ignore_left_over_weights;
    const char *tokenizer_name_or_path; /* derived: name_or_path */
    const char *revision;
    const char *torch_dtype; /* auto float32 bfloat16 float16 */
    const char *device_map;  /* auto cpu cuda cuda:N */
    const char *dropout;     /* config, off, a number */
    const char *pad_token, *padding_side;
    bool trust_remote_code;
    int64_t num_labels;       /* 0: from labels, the base, the adapter or the data */
    pf_cfg_strings labels;    /* names of the classes by id */
    const char *problem_type; /* NULL: from the adapter, the base, num_labels or the data */
} pf_model_cfg;

enum { PF_PEFT_ALSO = 7 };

typedef struct pf_peft_cfg {
    const char *method;     /* lora full ...: a section beside it */
    const char *task_type;  /* SEQ_CLS ...; NULL: as the adapter or the model has it */
    const void *method_cfg; /* the struct of that section */
    bool given;             /* is there a peft section at all? */
    pf_cfg_strings also;    /* methods that train beside it, each with its section */
    const void *also_cfg[PF_PEFT_ALSO];
} pf_peft_cfg;

typedef struct pf_data_cfg {
    const char *train, *test;    /* files */
    const char *prompt, *target; /* templates: "Q: {question}\nA:" */
    const char *text; /* template of plain text without a prompt; every token is a target */
    const char *input_ids, *labels; /* columns of rows that are tokens already */
    const char *label, *words; /* columns: the class of a row, or a class for each of its words */
    pf_cfg_strings label_columns; /* in place of label: a column for each number of the target */
    const char *label_delimiter;  /* between the classes in one field; NULL: a field has one */
    const char *text_pair;        /* template of a second text */
    bool label_all_tokens;        /* else the first of a word */
    double test_size;             /* below 1 a share, else a count; 0: none */
    bool shuffle;
    const char *format;     /* auto csv tsv json jsonl text */
    const char *delimiter;  /* one character; NULL: guessed */
    bool quotes;            /* csv, tsv */
    pf_cfg_strings columns; /* names for files without a header row */
    const char *field;      /* json: the member that holds the rows */
    int64_t max_samples;    /* of the training rows; 0: all */
    const char *overlength; /* error drop truncate */
    const char *add_bos;    /* auto true false */
    bool add_eos;
    const char *share_prefixes; /* auto always never */
} pf_data_cfg;

typedef struct pf_training_cfg {
    const char *output_dir, *run_name;
    int64_t per_device_train_batch_size, per_device_eval_batch_size, gradient_accumulation_steps;
    double learning_rate;
    double num_train_epochs;
    int64_t max_steps; /* -1: by epochs */
    const char *lr_scheduler_type;
    pf_cfg_map lr_scheduler_kwargs;
    double warmup_ratio; /* share of all steps; holds warmup_steps below 1 too */
    int64_t warmup;      /* steps; 0: by warmup_ratio */
    double warmup_steps; /* as given: read `warmup` and `warmup_ratio` */
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon;
    double max_grad_norm; /* 0: no clipping */
    const char *optim;    /* adamw_torch */
    bool fp16, bf16;
    const char *saved_dtype; /* auto float32 bfloat16 */
    const char *compute;     /* f32 bf16 int8 auto; see pf_run_cfg_compute */
    bool gradient_checkpointing;
    /* A number of steps; below 1 a share of all steps. */
    double logging_steps, eval_steps, save_steps;
    const char *logging_strategy, *eval_strategy, *save_strategy; /* no steps epoch; derived */
    bool logging_first_step, eval_on_start;
    int64_t save_total_limit; /* 0: all */
    bool load_best_model_at_end;
    const char *metric_for_best_model; /* with its eval_ */
    const char *greater_is_better;     /* true false, never auto */
    double label_smoothing_factor;
    pf_cfg_strings class_weights; /* "balanced", or numbers by id */
    int64_t dataloader_num_workers;
    int64_t max_length;                           /* 0: the context of the model */
    int64_t max_source_length, max_target_length; /* models with an encoder; 0: any */
    bool packing;
    uint64_t memory_limit;              /* bytes; 0: none */
    int64_t tokens_per_batch;           /* rows of a micro-batch; 0: the planner chooses */
    int64_t num_threads;                /* 0: all usable cores */
    int64_t seed, data_seed;            /* derived: the seed at the top */
    const char *resume_from_checkpoint; /* "true": the newest of output_dir */
    bool overwrite_output_dir;
    pf_cfg_strings report_to;
    bool fuse;
} pf_training_cfg;

typedef struct pf_generation_cfg {
    int64_t max_new_tokens;
    pf_cfg_strings stop;
    bool do_sample; /* derived: true where temperature, top_k, top_p or min_p is given */
    double temperature;
    int64_t top_k;
    double top_p, min_p, repetition_penalty;
    int64_t seed; /* derived: the seed at the top */
} pf_generation_cfg;

typedef struct pf_eval_cfg {
    const char *generate; /* true false, never auto: continue the prompts and compare? */
    int64_t max_samples;  /* 0: all */
    double threshold;     /* of probabilities, several classes at once */
    pf_generation_cfg gen;
} pf_eval_cfg;

typedef struct pf_mlflow_cfg {
    bool given;
    const char *experiment_name, *tracking_uri, *run_name;
} pf_mlflow_cfg;

typedef struct pf_wandb_cfg {
    bool given;
    const char *project, *entity, *name;
} pf_wandb_cfg;

typedef struct pf_tensorboard_cfg {
    bool given;
    const char *dir;
} pf_tensorboard_cfg;

typedef struct pf_logging_cfg {
    pf_mlflow_cfg mlflow;
    pf_wandb_cfg wandb;
    pf_tensorboard_cfg tensorboard;
    bool csv;
} pf_logging_cfg;

typedef struct pf_early_stopping_cfg {
    bool given;
    int64_t patience;
    const char *metric; /* derived: metric_for_best_model */
    double threshold;
    const char *greater_is_better; /* true false, never auto */
} pf_early_stopping_cfg;

typedef struct pf_callbacks_cfg {
    pf_early_stopping_cfg early_stopping;
} pf_callbacks_cfg;

typedef struct pf_dist_cfg {
    bool given;
    const char *backend;
    int64_t world_size;
    const char *master_addr;
    int64_t master_port;
    bool use_deepspeed;
    const char *deepspeed_config;
} pf_dist_cfg;

typedef struct pf_run_cfg {
    pf_model_cfg model;
    pf_peft_cfg peft;
    pf_data_cfg data;
    pf_training_cfg training;
    pf_eval_cfg evaluation;
    pf_generation_cfg generation;
    pf_logging_cfg logging;
    pf_callbacks_cfg callbacks;
    pf_dist_cfg distributed;
    int64_t seed;
} pf_run_cfg;

extern const pf_cfg_row pf_run_cfg_rows[];

/* What the caller will do, and therefore what has to be there. */
typedef enum pf_run_purpose {
    PF_RUN_ANY,   /* only look: --explain, docs, convert */
    PF_RUN_MODEL, /* a model: generate, chat */
    PF_RUN_EVAL,  /* a model and something to evaluate on */
    PF_RUN_TRAIN, /* a model and training data */
    PF_RUN_PLAN   /* a model; as for TRAIN where data are named */
} pf_run_purpose;

/* methods: the sections that PEFT methods bring (pf_method_sections of peft/method.h). Both structs
 * live in the arena's lifetime. */
peft_status pf_run_cfg_open(pf_run_cfg *run, pf_cfg *cfg, pf_arena *a, const pf_cfg_source *source,
                            const pf_cfg_ext *methods, int n_methods, pf_run_purpose purpose,
                            peft_error *err);

/* One line for every section whose service does not exist yet and was asked for. `active` names
 * those that do exist
 * ("logging.csv", "distributed"). The line of `distributed` names the effective batch. */
peft_status pf_run_cfg_notes(const pf_run_cfg *run, const pf_cfg *cfg, const char *const *active,
                             int n_active, pf_arena *a, pf_strlist *out, peft_error *err);

/* The types of arithmetic that the run may take, blanks between them: what training.compute says;
 * where it says nothing, "f32 bf16" under training.bf16. The machine chooses among several
 * (train/compute_choice.h). `line` receives a sentence to print, or "". */
const char *pf_run_cfg_compute(const pf_run_cfg *run, char *line, size_t n);

/* Are the targets classes, or numbers, in place of text? */
static inline bool pf_data_has_label(const pf_data_cfg *d) {
    return d->label != NULL || d->label_columns.list.n > 0;
}

/* model.dropout: PF_BASE_DROPOUT_CONFIG, a number in [0, 1), or -1 where it is neither. */
#define PF_BASE_DROPOUT_CONFIG 2.0
double pf_run_cfg_dropout(const char *words);

/* Is bigger better? By name: not where it ends in loss, perplexity, mse or mae. */
bool pf_metric_greater_is_better(const char *metric);

/* Checks between keys, and what follows from what; called by open. */
void pf_run_cfg_check(pf_run_cfg *run, pf_cfg *cfg, const pf_cfg_ext *methods, int n_methods,
                      pf_run_purpose purpose);

/* docs/config.md, whole. */
peft_status pf_run_cfg_markdown(pf_buf *out, const pf_cfg_ext *methods, int n_methods,
                                peft_error *err);

#endif
