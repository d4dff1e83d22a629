/* run_config.c - the rows of every section, and opening a run's configuration. Rules between keys:
 * run_config_check.c. */
#include "config/run_config.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

/* clang-format off */
static const pf_cfg_row model_rows[] = {
    PF_CFG_STR(pf_model_cfg, name_or_path, NULL, "folder with a model in Hugging Face's format, or a hub name that is in the local cache"),
    PF_CFG_STR(pf_model_cfg, adapter_name_or_path, NULL, "start from this adapter; peft may then be left out, the folder says what it is"),
    PF_CFG_BOOL(pf_model_cfg, ignore_left_over_weights, false, "go on where the weight files have tensors that belong to no part of the model; they are named either way"),
    PF_CFG_BOOL(pf_model_cfg, create_new_adapter, false, "keep that adapter as it is and train a new one, as peft says, on top of it"),
    PF_CFG_STR(pf_model_cfg, tokenizer_name_or_path, NULL, "where the tokenizer is; default: with the model", .aliases = "tokenizer_name"),
    PF_CFG_STR(pf_model_cfg, revision, NULL, "branch, tag or commit of a hub name; default: main"),
    PF_CFG_ENUM(pf_model_cfg, torch_dtype, "auto", "auto float32=fp32=f32=float bfloat16=bf16 float16=fp16=f16=half",
                "type in which the base weights are held; auto: as in the file, mapped in place", .aliases = "dtype"),
    PF_CFG_STR(pf_model_cfg, device_map, "auto", "auto (a GPU if there is one), cpu, cuda or cuda:N", .aliases = "device"),
    PF_CFG_STR(pf_model_cfg, dropout, "config", "the base's own dropout while training: config (hidden_dropout_prob, resid_pdrop, attention_dropout and whatever else its config.json has, as transformers applies them), off, or a number for each of them"),
    PF_CFG_STR(pf_model_cfg, pad_token, NULL, "accepted; has no effect",
               .note = "changes nothing here: samples stand in one row without padding, and labels go by position"),
    PF_CFG_ENUM(pf_model_cfg, padding_side, NULL, "left right", "accepted; has no effect",
                .note = "changes nothing here: there is no padding on either side"),
    PF_CFG_INT(pf_model_cfg, num_labels, 0, 1, 10000, "number of classes, for SEQ_CLS and TOKEN_CLS, or of numbers (regression); default: those of model.labels, of the base's own head, of the adapter, or of the data", .flags = PF_CFG_UNSET),
    PF_CFG_STRLIST(pf_model_cfg, labels, NULL, "names of the classes in the order of their ids; default: likewise", .aliases = "label_names id2label"),
    PF_CFG_ENUM(pf_model_cfg, problem_type, NULL, "single_label_classification=single multi_label_classification=multi regression",
                "what is told of a text (SEQ_CLS): one class of several (cross-entropy), each class for itself (binary cross-entropy), or numbers (mean squared error); default: as the adapter or the base's config.json has it, else regression with one label, else as the data look"),
    PF_CFG_BOOL(pf_model_cfg, trust_remote_code, false, "accepted; has no effect",
                .note = "changes nothing here: code that comes with a model is never run"),
    PF_CFG_END};

static const pf_cfg_row peft_rows[] = {
    PF_CFG_ENUM(pf_peft_cfg, method, "lora", NULL, "what is trained: an adapter of this kind, or (full) all weights"),
    PF_CFG_ENUM(pf_peft_cfg, task_type, NULL, "CAUSAL_LM=causal_lm SEQ_2_SEQ_LM=seq_2_seq_lm SEQ_CLS=seq_cls TOKEN_CLS=token_cls", "what it is trained for: to continue texts, to answer them, or to tell classes of texts (SEQ_CLS) or words (TOKEN_CLS); default: as data.label says, else as the adapter or the base has it"),
    PF_CFG_STRLIST(pf_peft_cfg, also, NULL, "further methods that train at the same time, each with its own section; peft may also be written as a list of sections with a method each"),
    PF_CFG_END};

static const pf_cfg_row data_rows[] = {
    PF_CFG_STR(pf_data_cfg, train, NULL, "file with the training rows: CSV, TSV, JSON, JSONL, plain text; each may be gzipped"),
    PF_CFG_STR(pf_data_cfg, test, NULL, "file with the rows to evaluate on", .aliases = "eval validation"),
    PF_CFG_STR(pf_data_cfg, prompt, NULL, "template of the prompt, with columns in braces: \"Q: {question}\\nA:\"; {column?} may be missing or null, and is empty then"),
    PF_CFG_STR(pf_data_cfg, target, NULL, "template of what follows the prompt; only this is learned", .aliases = "completion"),
    PF_CFG_STR(pf_data_cfg, text, NULL, "template of plain text without a prompt; every token is learned. With label: what is classified"),
    PF_CFG_STR(pf_data_cfg, input_ids, NULL, "column with the token ids of rows that are tokens already, in place of prompt and target; without padding"),
    PF_CFG_STR(pf_data_cfg, labels, NULL, "column with a label for each of these ids: the id itself, or -100 where it is not learned; default: labels where the rows have it, else every token is learned"),
    PF_CFG_STR(pf_data_cfg, label, NULL, "column with the class of a row (its name, or its number from 0), or with a number to be told (regression), where the target is not text; with words: a list of as many classes", .aliases = "label_column tags"),
    PF_CFG_STRLIST(pf_data_cfg, label_columns, NULL, "in place of label: several columns, one for each class with 0 or 1 in it (multi_label_classification), or one for each number (regression)"),
    PF_CFG_STR(pf_data_cfg, label_delimiter, NULL, "what stands between the classes of a row in the column label, such as \",\" (multi_label_classification); JSON may have a list instead"),
    PF_CFG_STR(pf_data_cfg, words, NULL, "column with a list of words that have a class each (JSON list, or words with blanks between them), in place of text"),
    PF_CFG_STR(pf_data_cfg, text_pair, NULL, "template of a second text beside text, for classes of pairs"),
    PF_CFG_BOOL(pf_data_cfg, label_all_tokens, false, "classes of words: give each token of a word its class (I-X after B-X); else the first one alone"),
    PF_CFG_FLOAT(pf_data_cfg, test_size, 0, 0, 1e12, "rows of train kept apart to evaluate on: a share below 1, or a count", .flags = PF_CFG_UNSET, .aliases = "val_size val_set_size"),
    PF_CFG_BOOL(pf_data_cfg, shuffle, true, "a new order of the training rows in each epoch, from training.data_seed"),
    PF_CFG_ENUM(pf_data_cfg, format, "auto", "auto csv tsv json jsonl text", "of the files; text: every line is a row with the column text; auto: by their names, else by what is in them"),
    PF_CFG_STR(pf_data_cfg, delimiter, NULL, "of CSV files, one character (\"\\t\" for a tab); default: guessed from the header", .aliases = "sep"),
    PF_CFG_BOOL(pf_data_cfg, quotes, true, "fields of CSV and TSV files may stand in double quotes"),
    PF_CFG_STRLIST(pf_data_cfg, columns, NULL, "names of the columns, for CSV and TSV files without a header row"),
    PF_CFG_STR(pf_data_cfg, field, NULL, "member of a JSON file that holds the list of rows; default: the file is the list"),
    PF_CFG_INT(pf_data_cfg, max_samples, 0, 0, 1e15, "use only the first so many training rows; 0: all", .flags = PF_CFG_UNSET),
    PF_CFG_ENUM(pf_data_cfg, overlength, "error", "error=raise drop truncate", "a row longer than training.max_length: stop and name it, drop it, or cut its end; what is dropped or cut is counted and said", .aliases = "max_length_policy excess_length_strategy"),
    PF_CFG_ENUM(pf_data_cfg, add_bos, "auto", "auto true=yes=on false=no=off", "begin each row with the tokenizer's BOS token; auto: as the tokenizer does"),
    PF_CFG_BOOL(pf_data_cfg, add_eos, true, "end each target with the end-of-sequence token, and learn it"),
    PF_CFG_ENUM(pf_data_cfg, share_prefixes, "auto", "auto always=true=yes=on never=false=no=off", "compute what several samples of a step begin with once; auto: where it pays and no dropout is active"),
    PF_CFG_END};

#define SCHEDULES "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt " \
                  "reduce_lr_on_plateau cosine_with_min_lr cosine_warmup_with_min_lr warmup_stable_decay"
#define ADAMW "adamw_torch=adamw=adamw_torch_fused=adamw_hf=adamw_apex_fused=paged_adamw=paged_adamw_32bit"

static const pf_cfg_row training_rows[] = {
    PF_CFG_STR(pf_training_cfg, output_dir, "./outputs", "the run: checkpoints, logs, the final adapter"),
    PF_CFG_STR(pf_training_cfg, run_name, NULL, "name of the run for trackers; default: the name of output_dir"),
    PF_CFG_INT(pf_training_cfg, per_device_train_batch_size, 8, 1, 1 << 20, "samples of one accumulation step"),
    PF_CFG_INT(pf_training_cfg, per_device_eval_batch_size, 8, 1, 1 << 20, "the most sequences scored or generated at once"),
    PF_CFG_INT(pf_training_cfg, gradient_accumulation_steps, 1, 1, 1 << 20, "accumulation steps per optimizer step; the loss is one mean over all their tokens"),
    PF_CFG_FLOAT(pf_training_cfg, learning_rate, 5e-5, 0, 100, "highest learning rate", .aliases = "lr"),
    PF_CFG_FLOAT(pf_training_cfg, num_train_epochs, 3, 0, 1e6, "passes over the training rows; a part of one is fine", .flags = PF_CFG_ABOVE_MIN, .aliases = "num_epochs epochs"),
    PF_CFG_INT(pf_training_cfg, max_steps, -1, -1, 1e15, "optimizer steps, in place of num_train_epochs; -1: by epochs", .flags = PF_CFG_UNSET),
    PF_CFG_ENUM(pf_training_cfg, lr_scheduler_type, "linear", SCHEDULES, "course of the learning rate after the warm-up", .aliases = "lr_scheduler"),
    PF_CFG_MAP(pf_training_cfg, lr_scheduler_kwargs, "settings of the schedule, such as {num_cycles: 0.5} or {min_lr: 1e-6}"),
    PF_CFG_FLOAT(pf_training_cfg, warmup_ratio, 0, 0, 1, "share of all steps over which the learning rate rises"),
    PF_CFG_FLOAT(pf_training_cfg, warmup_steps, 0, 0, 1e15, "steps over which the learning rate rises; below 1 a share of all steps"),
    PF_CFG_FLOAT(pf_training_cfg, weight_decay, 0, 0, 100, "decoupled weight decay; not on biases and norms"),
    PF_CFG_FLOAT(pf_training_cfg, adam_beta1, 0.9, 0, 1, "decay of the first moment", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_FLOAT(pf_training_cfg, adam_beta2, 0.999, 0, 1, "decay of the second moment", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_FLOAT(pf_training_cfg, adam_epsilon, 1e-8, 0, 1, "added to the root of the second moment", .flags = PF_CFG_ABOVE_MIN),
    PF_CFG_FLOAT(pf_training_cfg, max_grad_norm, 1, 0, 1e9, "the gradient is scaled down to this norm; 0: never"),
    PF_CFG_ENUM(pf_training_cfg, optim, "adamw_torch", ADAMW, "the optimizer: AdamW with its state in f32, whatever the spelling"),
    PF_CFG_BOOL(pf_training_cfg, fp16, false, "half-precision arithmetic where this machine is faster with it, else f32; on a CPU always f32"),
    PF_CFG_BOOL(pf_training_cfg, bf16, false, "bfloat16 arithmetic where this machine is faster with it, else f32"),
    PF_CFG_ENUM(pf_training_cfg, compute, "f32", "f32=float32=fp32 bf16=bfloat16 int8 auto", "type in which products with frozen weights are computed while training; auto: the fastest on this machine; evaluation is always in f32"),
    PF_CFG_ENUM(pf_training_cfg, saved_dtype, "auto", "auto float32=f32=fp32 bfloat16=bf16", "type in which activations wait for the backward pass; auto: bfloat16 where compute is bf16 or int8, float32 else"),
    PF_CFG_BOOL(pf_training_cfg, gradient_checkpointing, false, "save only the input of each block for the backward pass and recompute the rest: less memory, more time"),
    PF_CFG_FLOAT(pf_training_cfg, logging_steps, 10, 0, 1e15, "log every so many steps; below 1 a share of all steps", .flags = PF_CFG_ABOVE_MIN),
    PF_CFG_BOOL(pf_training_cfg, logging_first_step, false, "log the first step too"),
    PF_CFG_ENUM(pf_training_cfg, logging_strategy, "steps", "no=false=off steps epoch", "when to log"),
    PF_CFG_ENUM(pf_training_cfg, eval_strategy, NULL, "no=false=off steps epoch", "when to evaluate; default: steps where eval_steps is given, else epoch where there are test rows", .aliases = "evaluation_strategy"),
    PF_CFG_FLOAT(pf_training_cfg, eval_steps, 0, 0, 1e15, "evaluate every so many steps; below 1 a share of all steps; default: logging_steps", .flags = PF_CFG_UNSET | PF_CFG_ABOVE_MIN),
    PF_CFG_BOOL(pf_training_cfg, eval_on_start, false, "evaluate before the first step"),
    PF_CFG_ENUM(pf_training_cfg, save_strategy, NULL, "no=false=off steps epoch", "when to write a checkpoint; default: steps where save_steps is given, as eval_strategy with load_best_model_at_end, else steps"),
    PF_CFG_FLOAT(pf_training_cfg, save_steps, 0, 0, 1e15, "write a checkpoint every so many steps; below 1 a share of all steps; default: 500", .flags = PF_CFG_UNSET | PF_CFG_ABOVE_MIN),
    PF_CFG_INT(pf_training_cfg, save_total_limit, 0, 0, 1000000, "keep only the newest so many checkpoints (and the best one); 0: all", .flags = PF_CFG_UNSET),
    PF_CFG_BOOL(pf_training_cfg, load_best_model_at_end, false, "end with the weights of the best evaluation, not the last ones"),
    PF_CFG_STR(pf_training_cfg, metric_for_best_model, "eval_loss", "what the best evaluation is best at"),
    PF_CFG_ENUM(pf_training_cfg, greater_is_better, "auto", "auto true=yes=on false=no=off", "is bigger better? auto: yes, unless the metric's name ends in loss, perplexity, mse or mae"),
    PF_CFG_FLOAT(pf_training_cfg, label_smoothing_factor, 0, 0, 1, "share of the target that is spread evenly over all classes (SEQ_CLS with one class, TOKEN_CLS)", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_STRLIST(pf_training_cfg, class_weights, NULL, "what a text or word of each class counts in the loss, in the order of their ids (SEQ_CLS with one class, TOKEN_CLS); balanced: the inverse of how often a class occurs; evaluations do not weigh"),
    PF_CFG_INT(pf_training_cfg, dataloader_num_workers, 0, 0, 256, "threads that prepare data ahead; the result never depends on it"),
    PF_CFG_INT(pf_training_cfg, max_length, 0, 0, 1 << 30, "longest row in tokens, prompt and target together; 0: the model's context", .flags = PF_CFG_UNSET, .aliases = "max_seq_length max_seq_len"),
    PF_CFG_INT(pf_training_cfg, max_source_length, 0, 0, 1 << 30, "models with an encoder: longest prompt in tokens; 0: any", .flags = PF_CFG_UNSET),
    PF_CFG_INT(pf_training_cfg, max_target_length, 0, 0, 1 << 30, "models with an encoder: longest target in tokens; 0: any", .flags = PF_CFG_UNSET),
    PF_CFG_BOOL(pf_training_cfg, packing, false, "group samples into rows of max_length tokens; attention never crosses a sample"),
    PF_CFG_SIZE(pf_training_cfg, memory_limit, "0", "stay below so much memory, by recomputing more and then by smaller micro-batches; 0: no limit", .flags = PF_CFG_MEMORY),
    PF_CFG_INT(pf_training_cfg, tokens_per_batch, 0, 0, 1 << 28, "tokens computed at once; does not change the result; 0: chosen by the planner", .flags = PF_CFG_UNSET),
    PF_CFG_INT(pf_training_cfg, num_threads, 0, 0, 1024, "compute threads; 0: one per usable core; the result does not depend on it", .flags = PF_CFG_UNSET),
    PF_CFG_INT(pf_training_cfg, seed, -1, -1, 9e15, "of this run; default: seed at the top", .flags = PF_CFG_UNSET),
    PF_CFG_INT(pf_training_cfg, data_seed, -1, -1, 9e15, "of the split and the order of rows; default: seed", .flags = PF_CFG_UNSET),
    PF_CFG_STR(pf_training_cfg, resume_from_checkpoint, NULL, "true: go on from the newest good checkpoint of output_dir; or the folder of a checkpoint"),
    PF_CFG_BOOL(pf_training_cfg, overwrite_output_dir, false, "an output_dir that holds a run is replaced"),
    PF_CFG_STRLIST(pf_training_cfg, report_to, NULL, "trackers: none, or a list of mlflow, wandb, tensorboard, csv; the same as the sections of logging"),
    PF_CFG_BOOL(pf_training_cfg, fuse, true, "replace groups of operations by fused ones; off for comparison"),
    PF_CFG_END};

#define GENERATION_ROWS(S, m, n_new)                                                                                         \
    PF_CFG_INT_AS(S, m max_new_tokens, "max_new_tokens", n_new, 1, 1 << 30, "longest continuation in tokens"),               \
    PF_CFG_STRLIST_AS(S, m stop, "stop", NULL, "texts that end a continuation; not part of it", .aliases = "stop_strings"),  \
    PF_CFG_BOOL_AS(S, m do_sample, "do_sample", false, "draw tokens at random; default: the likeliest one, unless temperature, top_k, top_p or min_p is given"), \
    PF_CFG_FLOAT_AS(S, m temperature, "temperature", 1, 0, 1000, "logits are divided by it before drawing; 0: the likeliest token"), \
    PF_CFG_INT_AS(S, m top_k, "top_k", 50, 0, 1 << 30, "draw among the k likeliest tokens; 0: all"),                         \
    PF_CFG_FLOAT_AS(S, m top_p, "top_p", 1, 0, 1, "draw among the likeliest tokens that together have this probability", .flags = PF_CFG_ABOVE_MIN), \
    PF_CFG_FLOAT_AS(S, m min_p, "min_p", 0, 0, 1, "draw among tokens at least this likely, relative to the likeliest"),      \
    PF_CFG_FLOAT_AS(S, m repetition_penalty, "repetition_penalty", 1, 0, 100, "above 1: tokens that have occurred become less likely", .flags = PF_CFG_ABOVE_MIN), \
    PF_CFG_INT_AS(S, m seed, "seed", -1, -1, 9e15, "of the draws; default: seed at the top", .flags = PF_CFG_UNSET)

static const pf_cfg_row evaluation_rows[] = {
    PF_CFG_ENUM(pf_eval_cfg, generate, "auto", "auto true=yes=on false=no=off", "continue the prompts of the test rows and compare with their targets (exact match, F1, BLEU); auto: where data.prompt is given"),
    PF_CFG_INT(pf_eval_cfg, max_samples, 0, 0, 1e15, "evaluate on the first so many test rows; 0: all", .flags = PF_CFG_UNSET),
    PF_CFG_FLOAT(pf_eval_cfg, threshold, 0.5, 0, 1, "multi_label_classification: a class is told where its probability is above this"),
    GENERATION_ROWS(pf_eval_cfg, gen., 64),
    PF_CFG_END};

#define NOTHING
static const pf_cfg_row generation_rows[] = {
    GENERATION_ROWS(pf_generation_cfg, NOTHING, 256),
    PF_CFG_END};

static const pf_cfg_row mlflow_rows[] = {
    PF_CFG_STR(pf_mlflow_cfg, experiment_name, NULL, "experiment that the run belongs to"),
    PF_CFG_STR(pf_mlflow_cfg, tracking_uri, NULL, "address of the MLflow server"),
    PF_CFG_STR(pf_mlflow_cfg, run_name, NULL, "name of the run there; default: training.run_name"),
    PF_CFG_END};

static const pf_cfg_row wandb_rows[] = {
    PF_CFG_STR(pf_wandb_cfg, project, NULL, "project that the run belongs to"),
    PF_CFG_STR(pf_wandb_cfg, entity, NULL, "user or team"),
    PF_CFG_STR(pf_wandb_cfg, name, NULL, "name of the run there; default: training.run_name", .aliases = "run_name"),
    PF_CFG_END};

static const pf_cfg_row tensorboard_rows[] = {
    PF_CFG_STR(pf_tensorboard_cfg, dir, NULL, "folder for the event files; default: runs/ inside output_dir", .aliases = "logging_dir"),
    PF_CFG_END};

static const pf_cfg_row logging_rows[] = {
    PF_CFG_OPTIONAL(pf_logging_cfg, mlflow, mlflow_rows, "send metrics and artifacts to MLflow"),
    PF_CFG_OPTIONAL(pf_logging_cfg, wandb, wandb_rows, "send metrics to Weights & Biases"),
    PF_CFG_OPTIONAL(pf_logging_cfg, tensorboard, tensorboard_rows, "write TensorBoard event files"),
    PF_CFG_BOOL(pf_logging_cfg, csv, false, "write metrics.csv beside metrics.jsonl"),
    PF_CFG_END};

static const pf_cfg_row early_stopping_rows[] = {
    PF_CFG_INT(pf_early_stopping_cfg, patience, 3, 1, 1000000, "stop after so many evaluations in a row without improvement", .aliases = "early_stopping_patience"),
    PF_CFG_STR(pf_early_stopping_cfg, metric, NULL, "metric of an evaluation to watch; default: training.metric_for_best_model"),
    PF_CFG_FLOAT(pf_early_stopping_cfg, threshold, 0, 0, 1e9, "an improvement is at least this much", .aliases = "early_stopping_threshold"),
    PF_CFG_ENUM(pf_early_stopping_cfg, greater_is_better, "auto", "auto true=yes=on false=no=off", "is bigger better? auto: yes, unless the metric's name ends in loss, perplexity, mse or mae"),
    PF_CFG_END};

static const pf_cfg_row callbacks_rows[] = {
    PF_CFG_OPTIONAL(pf_callbacks_cfg, early_stopping, early_stopping_rows, "stop when a metric no longer improves"),
    PF_CFG_END};

static const pf_cfg_row distributed_rows[] = {
    PF_CFG_ENUM(pf_dist_cfg, backend, NULL, "nccl mpi gloo", "how the ranks talk to each other"),
    PF_CFG_INT(pf_dist_cfg, world_size, 1, 1, 1 << 20, "number of ranks"),
    PF_CFG_STR(pf_dist_cfg, master_addr, "localhost", "where rank 0 is"),
    PF_CFG_INT(pf_dist_cfg, master_port, 29500, 1, 65535, "port of rank 0"),
    PF_CFG_BOOL(pf_dist_cfg, use_deepspeed, false, "shard optimizer state and gradients over the ranks"),
    PF_CFG_STR(pf_dist_cfg, deepspeed_config, NULL, "DeepSpeed's JSON file"),
    PF_CFG_END};

const pf_cfg_row pf_run_cfg_rows[] = {
    PF_CFG_SECTION(pf_run_cfg, model, model_rows, "the base model"),
    PF_CFG_OPTIONAL(pf_run_cfg, peft, peft_rows, "what is trained on top of it", .parts = "method also"),
    PF_CFG_SECTION(pf_run_cfg, data, data_rows, "what it is trained and evaluated on", .aliases = "dataset"),
    PF_CFG_SECTION(pf_run_cfg, training, training_rows, "how it is trained"),
    PF_CFG_SECTION(pf_run_cfg, evaluation, evaluation_rows, "how it is evaluated, in training and by the verb eval"),
    PF_CFG_SECTION(pf_run_cfg, generation, generation_rows, "how the verbs generate and chat continue a prompt"),
    PF_CFG_SECTION(pf_run_cfg, logging, logging_rows, "where metrics go besides the run's own files"),
    PF_CFG_KINDS(pf_run_cfg, callbacks, callbacks_rows, "what may act between steps"),
    PF_CFG_OPTIONAL(pf_run_cfg, distributed, distributed_rows, "several processes for one run"),
    PF_CFG_INT(pf_run_cfg, seed, 42, 0, 9e15, "of everything random; the same seed gives the same bytes"),
    PF_CFG_END};

/* clang-format on */

static peft_status open_rows(pf_run_cfg *run, pf_cfg *cfg, pf_arena *a, const pf_cfg_ext *methods,
                             int n_methods, peft_error *err) {
    *run = (pf_run_cfg){0};
    return pf_cfg_open(cfg, a, pf_run_cfg_rows, run, methods, n_methods, err);
}

peft_status pf_run_cfg_open(pf_run_cfg *run, pf_cfg *cfg, pf_arena *a, const pf_cfg_source *source,
                            const pf_cfg_ext *methods, int n_methods, pf_run_purpose purpose,
                            peft_error *err) {
    PF_TRY(open_rows(run, cfg, a, methods, n_methods, err));
    PF_TRY(pf_cfg_read(cfg, source, err));
    pf_run_cfg_check(run, cfg, methods, n_methods, purpose);
    return pf_cfg_finish(cfg, err);
}

peft_status pf_run_cfg_markdown(pf_buf *out, const pf_cfg_ext *methods, int n_methods,
                                peft_error *err) {
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    pf_arena_init(&a, "configuration reference");
    peft_status status = open_rows(&run, &cfg, &a, methods, n_methods, err);
    if (status == PEFT_OK) {
        pf_buf_adds(
            out,
            "# The configuration\n\n"
            "This page is made from the program's own tables; `peft-toolkit train --explain KEY` "
            "prints the same.\n\n"
            "A value comes from the command line (`training.learning_rate=1e-4`, `~callbacks` to "
            "take a key away), else from the environment "
            "(`PEFT_TRAINING__LEARNING_RATE=1e-4`), else from the file, else it is the default. "
            "`null` means as if the key were not there. Unknown keys are mistakes. Numbers may "
            "be written `2e-4` and `1_000`, truth values `true yes on false no off`, sizes `7G` "
            "and `512MiB`.\n\n");
        pf_cfg_markdown(&cfg, out);
        if (!pf_buf_ok(out)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_arena_release(&a);
    return status;
}
