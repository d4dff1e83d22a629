/* prepared.c - see prepared.h. */
#include "recipes/prepared.h"

#include "peft/method.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "data/class_weights.h"
#include "data/data_assume.h"
#include "base/buf.h"
#include "nn/base_dropout.h"
#include "nn/class_head.h"
#include "recipes/classify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern char **environ;

static peft_status read_config(pf_prepared *p, const pf_prepare_options *opt, peft_error *err) {
    const pf_cfg_source source = {.path = opt->config_path,
                                  .overrides = opt->overrides,
                                  .n_overrides = opt->n_overrides,
                                  .env = (const char *const *)environ};
    pf_cfg_ext methods[PF_MAX_METHODS];
    const int n_methods = pf_method_sections(methods);
    PF_TRY(pf_run_cfg_open(&p->run, &p->cfg, &p->arena, &source, methods, n_methods, opt->purpose,
                           err));
    if (opt->purpose == PF_RUN_ANY) return PEFT_OK;
    if (!opt->with_training) {
        for (int i = 0; i < p->cfg.notes.n; i++) PF_INFO("%s", p->cfg.notes.items[i]);
    } else { /* the notes, and the services that are not active yet */
        static const char *const active[] = {"logging.csv"};
        pf_strlist lines = {0};
        PF_TRY(
            pf_run_cfg_notes(&p->run, &p->cfg, active, PF_COUNT(active), &p->arena, &lines, err));
        for (int i = 0; i < lines.n; i++) PF_INFO("%s", lines.items[i]);
    }
    return PEFT_OK;
}

/* Does an evaluation of these targets tell this figure? Only now it is known what they are. */
static peft_status check_metric(const pf_model *m, const char *key, const char *name,
                                peft_error *err) {
    const bool values = pf_problem_has_values(m->problem);
    const pf_evaluation e = {.classes = !values,
                             .problem = values ? m->problem : PF_PROBLEM_AUTO,
                             .scores.entities = m->task == PF_TASK_TOKEN_CLS};
    pf_metric all[PF_MAX_FIGURES];
    char names[400] = "";
    if (name == NULL || !isnan(pf_evaluation_figure(&e, name))) return PEFT_OK;
    const int n = pf_evaluation_figures(&e, all);
    for (int i = 0; i < n; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i > 0 ? ", " : "",
                 all[i].name);
    return PF_FAIL(err, PEFT_E_CONFIG, "%s is %s, but %s of %s tells %s", key, name,
                   pf_problem_name(m->problem), pf_task_name(m->task), names);
}

/* How rows with classes are read for this model. */
static peft_status settle_classes(pf_prepared *p, peft_error *err) {
    const pf_model *m = p->loaded.model;
    const pf_data_cfg *d = &p->run.data;
    const double smoothing = p->run.training.label_smoothing_factor;
    if (!pf_data_has_label(d)) return PEFT_OK;
    if (!pf_task_is_classes(m->task))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.label is given, but %s is open for %s; set peft.task_type to %s",
                       m->name, pf_task_name(m->task), d->words != NULL ? "TOKEN_CLS" : "SEQ_CLS");
    p->classes = pf_class_rules_of(m);
    p->classes.columns = pf_data_label_columns(d);
    p->classes.one_hot = p->look.one_hot;
    if ((d->label_columns.list.n > 0 || d->label_delimiter != NULL) &&
        (m->problem == PF_PROBLEM_SINGLE ||
         (d->label_delimiter != NULL && m->problem != PF_PROBLEM_MULTI)))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.%s is given, but %s is open for %s; model.problem_type says otherwise",
                       d->label_delimiter != NULL ? "label_delimiter" : "label_columns", m->name,
                       pf_problem_name(m->problem));
    if (p->run.training.class_weights.list.n > 0 && pf_problem_has_values(m->problem))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.class_weights is given, but the problem type is %s; only single "
                       "classes are weighed",
                       pf_problem_name(m->problem));
    if (smoothing > 0 && pf_problem_has_values(m->problem))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.label_smoothing_factor is %g, but the problem type is %s; only "
                       "single classes are smoothed",
                       smoothing, pf_problem_name(m->problem));
    PF_TRY(check_metric(m, "training.metric_for_best_model", p->run.training.metric_for_best_model,
                        err));
    if (p->run.callbacks.early_stopping.given)
        PF_TRY(check_metric(m, "callbacks.early_stopping.metric",
                            p->run.callbacks.early_stopping.metric, err));
    p->classes.pair = d->text_pair;
    p->classes.all_tokens = d->label_all_tokens;
    return PEFT_OK;
}

/* What the configuration has under the name of a method that trains; NULL: nothing. */
static const void *section_of(const pf_run_cfg *run, const char *method) {
    if (pf_streq(run->peft.method, method)) return run->peft.method_cfg;
    for (int i = 0; i < run->peft.also.list.n; i++) {
        if (pf_streq(run->peft.also.list.items[i], method)) return run->peft.also_cfg[i];
    }
    return NULL;
}

/* What the section of the adapter's method says about training it. */
static peft_status train_as(const pf_run_cfg *run, pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) PF_TRY(train_as(run, ad->parts[i], err));
    const void *section = section_of(run, ad->method->name);
    if (ad->method->train_as == NULL || section == NULL) return PEFT_OK;
    return ad->method->train_as(ad, section, run->training.learning_rate, err);
}

/* model.create_new_adapter: what was opened acts, and a new one is trained. */
static peft_status train_on_top(pf_prepared *p, peft_error *err) {
    pf_adapter *below = p->loaded.adapter, *ad;
    PF_TRY(pf_adapter_attach(&ad, p->loaded.model, &p->run.peft, (uint64_t)p->run.training.seed,
                             true, err));
    pf_adapter_put_below(ad, below);
    p->loaded.adapter = ad;
    PF_INFO("a new adapter is trained on top of %s, which stays as it is", below->path);
    return PEFT_OK;
}

/* What the base drops while it is trained, and what it would. */
static peft_status tell_dropout(pf_prepared *p, peft_error *err) {
    const pf_dropout_choice *d = &p->loaded.model->dropout;
    pf_buf found = {0};
    for (int i = 0; i < d->found.n; i++)
        pf_buf_addf(&found, "%s%s", i == 0 ? "" : ", ", d->found.items[i]);
    const char *has = pf_buf_str(&found);
    if (d->use == PF_DROPOUT_CONFIG && d->active)
        PF_INFO("dropout of the base while training, as its config has it: %s (model.dropout: off "
                "leaves it out)",
                has);
    else if (d->use == PF_DROPOUT_FIXED && d->active)
        PF_INFO("dropout of the base while training: %g everywhere (model.dropout)", d->p);
    else if (d->use == PF_DROPOUT_OFF && d->found.n > 0)
        PF_INFO("dropout of the base is off (model.dropout); its config has %s", has);
    p->base_dropout = !d->active                    ? "none"
                      : d->use == PF_DROPOUT_CONFIG ? pf_arena_strdup(&p->arena, has)
                                                    : pf_arena_printf(&p->arena, "%g", d->p);
    pf_buf_free(&found);
    PF_CHECK_ALLOC(p->base_dropout, err);
    return PEFT_OK;
}

static peft_status open_model(pf_prepared *p, const pf_prepare_options *opt, peft_error *err) {
    const pf_run_cfg *run = &p->run;
    const char *adapter = opt->adapter != NULL ? opt->adapter : run->model.adapter_name_or_path;
    if (adapter != NULL && adapter[0] == '\0') adapter = NULL;
    const pf_problem told = pf_problem_find(run->model.problem_type);
    if (pf_data_has_label(&run->data))
        PF_TRY(pf_data_look_at_labels(&run->data, told, &p->arena, &p->look, err));
    /* a run's own adapter (eval --adapter) says itself what it stands on */
    const bool on_top = run->model.create_new_adapter && opt->with_training &&
                        opt->adapter == NULL && adapter != NULL;
    const double p_dropout = pf_run_cfg_dropout(run->model.dropout);
    const pf_dropout_choice dropout = {.use = !opt->with_training || p_dropout == 0 ? PF_DROPOUT_OFF
                                              : p_dropout == PF_BASE_DROPOUT_CONFIG
                                                  ? PF_DROPOUT_CONFIG
                                                  : PF_DROPOUT_FIXED,
                                       .p = p_dropout,
                                       .seed = (uint64_t)run->training.seed};
    const pf_load_options load = {.model = run->model.name_or_path,
                                  .task = pf_task_find(run->peft.task_type),
                                  .classes = {.labels = &run->model.labels.list,
                                              .n_labels = run->model.num_labels,
                                              .seen = &p->look.names,
                                              .problem = told,
                                              .seen_problem = p->look.problem,
                                              .seen_why = p->look.why,
                                              .seed = (uint64_t)run->training.seed},
                                  .dropout = dropout,
                                  .adapter = adapter,
                                  .tokenizer = run->model.tokenizer_name_or_path,
                                  .torch_dtype = run->model.torch_dtype,
                                  .device_map = run->model.device_map,
                                  .threads = (int)run->training.num_threads,
                                  .ignore_left_over_weights = run->model.ignore_left_over_weights,
                                  .shapes_only = opt->shapes_only,
                                  .tokenizer_later = true,
                                  .train_adapter = opt->with_training && !on_top};
    PF_TRY(pf_load(&p->loaded, &load, err));
    if (opt->with_training) PF_TRY(tell_dropout(p, err));
    PF_TRY(settle_classes(p, err));
    if (on_top)
        PF_TRY(train_on_top(p, err));
    else if (adapter != NULL)
        pf_adapter_set_seed(p->loaded.adapter, (uint64_t)run->training.seed);
    else if (opt->with_training)
        PF_TRY(pf_adapter_attach(&p->loaded.adapter, p->loaded.model, &run->peft,
                                 (uint64_t)run->training.seed, true, err));
    if (opt->with_training) PF_TRY(train_as(run, p->loaded.adapter, err));
    return pf_load_tokenizer(&p->loaded, err);
}

pf_data_load_options pf_prepared_data_options(const pf_prepared *p) {
    return (pf_data_load_options){.data = &p->run.data,
                                  .training = &p->run.training,
                                  .tokenizer = p->loaded.tokenizer,
                                  .max_positions = pf_model_positions(p->loaded.model, true),
                                  .vocab = p->loaded.model->vocab,
                                  .classes = pf_data_has_label(&p->run.data) ? &p->classes : NULL,
                                  .encoder_decoder = p->loaded.model->encoder_decoder,
                                  .decoder_start = p->loaded.model->decoder_start,
                                  .pool = p->loaded.backend->pool};
}

#define ASSUMED_LENGTH 2048 /* where neither training.max_length nor a short context says it */

/* For plans: one step of rows as long as allowed, all of them learned. `why`: what is missing. */
static peft_status assume_data(pf_prepared *p, const char *why, peft_error *err) {
    const pf_run_cfg *run = &p->run;
    const int64_t context = pf_model_positions(p->loaded.model, true);
    int64_t length = run->training.max_length;
    const bool given = length > 0;
    if (!given) length = ASSUMED_LENGTH;
    if (context > 0 && length > context) length = context;
    if (length < 2) length = 2;
    if (p->loaded.model->encoder_decoder && length < 3) length = 3;
    const int64_t batch = run->training.per_device_train_batch_size,
                  n = batch * run->training.gradient_accumulation_steps;
    const bool tests = run->data.test != NULL || run->data.test_size > 0;
    const pf_assumed_rows rows = {.train = n < 65536 ? n : 65536,
                                  .test = tests ? run->training.per_device_eval_batch_size : 0,
                                  .length = (int32_t)length,
                                  .encoder_decoder = p->loaded.model->encoder_decoder};
    snprintf(p->assumed, sizeof p->assumed,
             "%s: assumed are steps of %lld rows (%lld x %lld) of %lld tokens, %s of them learned "
             "(%s)",
             why, (long long)n, (long long)batch,
             (long long)run->training.gradient_accumulation_steps, (long long)length,
             p->loaded.model->encoder_decoder ? "half" : "all",
             given               ? "training.max_length"
             : length == context ? "the model's context; training.max_length says less"
                                 : "training.max_length is not given");
    return pf_data_assume(&p->data, &rows, err);
}

/* Tokenizing is spread over dataloader_num_workers threads of its own where some are asked for,
 * else over those that compute; the tokens are the same. */
static peft_status read_data(pf_prepared *p, const pf_prepare_options *opt, peft_error *err) {
    if (opt->shapes_only) {
        const char *train = p->run.data.train;
        if (train == NULL || train[0] == '\0') return assume_data(p, "no data set is named", err);
        if (!pf_path_exists(train)) return assume_data(p, "data.train is not there", err);
        if (p->loaded.tokenizer == NULL)
            return assume_data(p, "there is no tokenizer to read the data with", err);
    }
    pf_data_load_options load = pf_prepared_data_options(p);
    load.test_only = !opt->with_training && opt->purpose == PF_RUN_EVAL;
    pf_pool *workers = NULL;
    const int64_t n = p->run.training.dataloader_num_workers;
    if (n > 0)
        PF_TRY(pf_pool_new(&workers, (int)(n < pf_usable_cores() ? n : pf_usable_cores()), err));
    if (workers != NULL) load.pool = workers;
    peft_status status = pf_data_load(&p->data, &load, err);
    pf_pool_free(workers);
    return status;
}

static int64_t longest_of(const pf_data_view *v) {
    int64_t longest = 0;
    for (int64_t i = 0; i < v->n; i++) {
        int64_t n = v->set->examples[v->index[i]].n_tokens;
        if (n > longest) longest = n;
    }
    return longest;
}

static peft_status plan_steps(pf_prepared *p, peft_error *err) {
    const pf_training_cfg *t = &p->run.training;
    if (p->data.train.n == 0) {
        return PF_FAIL(err, PEFT_E_FORMAT, "no rows are left to train on; lower data.test_size");
    }
    const pf_data_load_options load = pf_prepared_data_options(p);
    const pf_step_plan_options o = pf_data_step_options(&load);
    PF_TRY(pf_step_plan_new(&p->steps, &p->data.train, &o, err));
    p->steps_per_epoch = pf_step_plan_steps_per_epoch(p->steps);
    p->total_steps =
        p->assumed[0] != '\0' ? 1 : pf_step_plan_total(p->steps, t->num_train_epochs, t->max_steps);
    return PEFT_OK;
}

/* Does every row of every sample count? */
static bool every_row(const pf_model *m) {
    return m->router_loss || m->whole_texts;
}

pf_share pf_prepared_share(const pf_prepared *p) {
    return p->loaded.model->family->bidirectional ? PF_SHARE_NEVER : pf_data_share(&p->run.data);
}

pf_batch_builder_options pf_prepared_builder(const pf_prepared *p) {
    const pf_model *m = p->loaded.model;
    const pf_lead lead = pf_model_lead(m, true);
    return (pf_batch_builder_options){
        .max_tokens = (int32_t)p->memory.max_tokens,
        .max_labels = (int32_t)p->memory.max_labels,
        .max_samples = pf_step_plan_max_samples(p->steps),
        .share = p->assumed[0] != '\0' || every_row(m) ? PF_SHARE_NEVER : pf_prepared_share(p),
        .keep_tail = every_row(m),
        .dropout = p->dropout,
        .rope_original = pf_rope_original(&m->rope),
        .prompt_rows = lead.prompt,
        .prefix_rows = lead.prefix,
        .prefix_apart = lead.apart,
        .each_rows = lead.each,
    };
}

/* What this process holds already beside weights, adapter and data. Without a tokenizer: what those
 * of Hugging Face's folders take per entry of the vocabulary, about. */
static int64_t program_bytes(const pf_prepared *p, int64_t data_bytes) {
    enum { TOKENIZER_ENTRY = 160 };
    /* what opening the run's folder adds: the start of the library that hashes, buffers of files;
     * measured (OpenSSL 3, glibc 2.36) */
    enum { FILES = 1000 << 10 };
    int64_t bytes = (int64_t)(pf_memory_anon() - p->anon_at_start) - data_bytes;
    if (!p->loaded.model->shapes_only)
        bytes -= p->loaded.model->converted_bytes +
                 4 * p->loaded.adapter->params.block_len * (int64_t)sizeof(pf_real);
    if (bytes < 0) bytes = 0;
    bytes += FILES;
    if (p->loaded.tokenizer == NULL) bytes += TOKENIZER_ENTRY * p->loaded.model->vocab;
    return bytes;
}

/* In one of four blocks: weights, gradients, two moments. What is made of them has the first two.
 */
static int64_t trained_numbers(const pf_params *ps) {
    const pf_params *made = ps->made.params;
    return ps->block_len + (made != NULL ? made->block_len / 2 : 0);
}

static int64_t data_bytes(const pf_prepared *p) {
    const pf_dataset *train = &p->data.train_set, *test = &p->data.test_set;
    const int64_t per_token = train->classes != NULL ? 8 : 4;
    if (p->assumed[0] != '\0') return 0;
    return (train->n_tokens + test->n_tokens) * per_token +
           (train->n * train->n_values + test->n * test->n_values) * 4 +
           (train->n + test->n) * (int64_t)sizeof(pf_example) +
           (int64_t)(train->n_text + test->n_text);
}

/* First weights that depend on the data: the adapter as it was attached to look is replaced. */
static peft_status look_first(pf_prepared *p, peft_error *err) {
    pf_adapter *ad = p->loaded.adapter, *below = ad->below;
    const int64_t data = data_bytes(p);
    const int64_t used = p->loaded.model->converted_bytes + data + program_bytes(p, data) +
                         4 * trained_numbers(&ad->params) * (int64_t)sizeof(pf_real);
    pf_peft_cfg next = p->run.peft;
    bool any;
    PF_TRY(pf_prepared_first_look(p, used, &next, &any, err));
    if (!any) return PEFT_OK;
    if (p->loaded.model->shapes_only) return pf_adapter_resume(ad, err);
    ad->below = NULL;
    pf_adapter_close(ad);
    peft_status status = pf_adapter_attach(&p->loaded.adapter, p->loaded.model, &next,
                                           (uint64_t)p->run.training.seed, true, err);
    if (status != PEFT_OK) {
        pf_adapter_close_chain(below);
        return status;
    }
    if (below != NULL) pf_adapter_put_below(p->loaded.adapter, below);
    pf_run_timing_phase(&p->timing, "first look");
    return train_as(&p->run, p->loaded.adapter, err);
}

static peft_status plan_memory(pf_prepared *p, peft_error *err) {
    const pf_training_cfg *t = &p->run.training;
    const pf_data_view *v = &p->data.train;
    int64_t step_tokens = 0, longest = 1, most_labels = 1;
    for (int64_t i = 0; i < p->steps_per_epoch && step_tokens < PF_AUTO_TOKENS; i++) {
        pf_step step;
        pf_step_plan_get(p->steps, i, &step);
        if (step.tokens > step_tokens) step_tokens = step.tokens;
    }
    for (int64_t i = 0; i < v->n; i++) {
        const pf_sample s = pf_dataset_sample(v->set, v->index[i], 0);
        const int32_t rows = pf_sample_all_rows(&s, every_row(p->loaded.model));
        if (rows > longest) longest = rows;
        const int32_t labels = pf_example_supervised(&v->set->examples[v->index[i]]);
        if (labels > most_labels) most_labels = labels;
    }
    const int64_t data = data_bytes(p);
    if (p->data.test.n > 0) p->evaluation = pf_prepared_evaluation(p, true);
    const pf_lead lead = pf_model_lead(p->loaded.model, true);
    step_tokens += (int64_t)lead.each * pf_step_plan_max_samples(p->steps);
    if (t->tokens_per_batch > step_tokens) step_tokens = t->tokens_per_batch;
    p->request = (pf_memory_request){
        .model = p->loaded.model,
        .n_workers = p->loaded.backend->n_workers,
        .checkpointing = t->gradient_checkpointing,
        .fuse = t->fuse,
        .compute = p->compute.type,
        .save_bf16 = p->save_bf16,
        .smoothing = t->label_smoothing_factor,
        .tokens_per_batch = t->tokens_per_batch,
        .limit = (int64_t)t->memory_limit,
        .steps = p->steps,
        .set = &p->data.train_set,
        .builder = pf_prepared_builder(p),
        .total_steps = p->total_steps,
        .longest = longest + lead.prompt + lead.each,
        .most_labels = most_labels,
        .step_tokens = step_tokens + lead.prompt,
        .assumed = p->assumed[0] != '\0',
        .evaluation = p->data.test.n > 0 ? &p->evaluation : NULL,
        .trained = trained_numbers(&p->loaded.adapter->params),
        .data_bytes = data,
        .program_bytes = program_bytes(p, data),
        .first_look = p->looked.bytes,
        .first_look_peak = p->looked.peak,
    };
    return pf_memory_plan_make(&p->memory, &p->request, err);
}

pf_evaluator_options pf_prepared_evaluation(const pf_prepared *p, bool adapters) {
    const pf_eval_cfg *e = &p->run.evaluation;
    int64_t tokens = longest_of(&p->data.test);
    if (tokens < PF_AUTO_TOKENS / 2) tokens = PF_AUTO_TOKENS / 2;
    return (pf_evaluator_options){
        .model = p->loaded.model,
        .backend = p->loaded.backend,
        .tokenizer = p->loaded.tokenizer,
        .view = &p->data.test,
        .max_samples = e->max_samples,
        .adapters = adapters,
        .fuse = p->run.training.fuse,
        .smoothing = p->run.training.label_smoothing_factor,
        .threshold = e->threshold,
        .max_tokens = tokens,
        .share = pf_prepared_share(p),
        .generate = pf_streq(e->generate, "true"),
        .batch_size = (int)p->run.training.per_device_eval_batch_size,
        .sampling = {.do_sample = e->gen.do_sample,
                     .temperature = e->gen.temperature,
                     .top_k = e->gen.top_k,
                     .top_p = e->gen.top_p,
                     .min_p = e->gen.min_p,
                     .repetition_penalty = e->gen.repetition_penalty,
                     .seed = (uint64_t)e->gen.seed},
        .max_new_tokens = (int32_t)e->gen.max_new_tokens,
        .eos = p->loaded.eos,
        .n_eos = p->loaded.n_eos,
        .stop = e->gen.stop.list.items,
        .n_stop = e->gen.stop.list.n,
    };
}

static peft_status choose_compute(pf_prepared *p, peft_error *err) {
    char line[512];
    const char *words = pf_run_cfg_compute(&p->run, line, sizeof line);
    if (line[0] != '\0') PF_INFO("%s", line);
    PF_TRY(pf_compute_choose(&p->compute, words, p->loaded.model, p->loaded.backend->pool, err));
    if (p->compute.note[0] != '\0') PF_INFO("%s", p->compute.note);
    const char *saved = p->run.training.saved_dtype;
    p->save_bf16 = pf_streq(saved, "bfloat16") ||
                   (pf_streq(saved, "auto") && p->compute.type != PF_COMPUTE_F32);
    return PEFT_OK;
}

peft_status pf_prepared_speed(pf_prepared *p, double budget, peft_error *err) {
    return pf_speed_predict(&p->speed, &p->request, &p->memory, p->loaded.backend, budget, err);
}

static peft_status prepare(pf_prepared *p, const pf_prepare_options *opt, peft_error *err) {
    PF_TRY(read_config(p, opt, err));
    pf_run_timing_phase(&p->timing, "config");
    PF_TRY(open_model(p, opt, err));
    pf_run_timing_phase(&p->timing, "model");
    if (opt->with_data) PF_TRY(read_data(p, opt, err));
    if (opt->with_training && p->data.train_set.classes != NULL)
        PF_TRY(pf_class_weights_make(&p->run.training.class_weights.list, &p->loaded.model->labels,
                                     &p->data.train, &p->arena, &p->data.train_set.class_weights,
                                     err));
    pf_run_timing_phase(&p->timing, "data");
    if (opt->with_training) PF_TRY(choose_compute(p, err));
    pf_run_timing_phase(&p->timing, "compute");
    if (opt->with_data && opt->with_training) {
        p->dropout = pf_adapter_has_dropout(p->loaded.adapter) || p->loaded.model->dropout.active;
        PF_TRY(plan_steps(p, err));
        PF_TRY(look_first(p, err));
        PF_TRY(plan_memory(p, err));
        pf_run_timing_phase(&p->timing, "plan");
    }
    return PEFT_OK;
}

peft_status pf_prepare(pf_prepared *out, const pf_prepare_options *opt, peft_error *err) {
    memset(out, 0, sizeof *out);
    pf_arena_init(&out->arena, "run");
    pf_run_timing_begin(&out->timing);
    out->anon_at_start = pf_memory_anon();
    peft_status status = prepare(out, opt, err);
    if (status != PEFT_OK) pf_prepared_release(out);
    return status;
}

void pf_prepared_release(pf_prepared *p) {
    if (p == NULL) return;
    pf_step_plan_free(p->steps);
    pf_data_release(&p->data);
    pf_unload(&p->loaded);
    pf_arena_release(&p->arena);
    memset(p, 0, sizeof *p);
}
