/* sft_open.c - what sft.c does before its loop. */
#include "recipes/sft_parts.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/hash.h"
#include "base/log.h"
#include "formats/tensor_source.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A text of several lines, each as a message. */
static void say_lines(const char *text) {
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        PF_INFO("%.*s", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

peft_status pf_sft_say_plan(pf_sft *s, peft_error *err) {
    const pf_training_cfg *t = &s->p.run.training;
    char line[256];
    pf_adapter_describe(s->p.loaded.adapter, line, sizeof line);
    PF_INFO("%s", line);
    PF_INFO("steps: %lld of %lld samples each (%lld x %lld), %lld per epoch",
            (long long)s->p.total_steps,
            (long long)(t->per_device_train_batch_size * t->gradient_accumulation_steps),
            (long long)t->per_device_train_batch_size, (long long)t->gradient_accumulation_steps,
            (long long)s->p.steps_per_epoch);
    pf_buf table = {0};
    pf_memory_plan_text(&s->p.memory, &s->p.request, &table);
    peft_status status = pf_buf_ok(&table) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) say_lines(pf_buf_str(&table));
    pf_buf_free(&table);
    PF_INFO("device: %s, %d threads, %s, %s arithmetic, activations saved in %s", pf_cpu_model(),
            s->p.loaded.backend->n_workers, pf_isa_name(pf_cpu_level()),
            pf_compute_name(s->p.compute.type), s->p.save_bf16 ? "bf16" : "f32");
    return status;
}

#define WORTH_SECONDS   600.0 /* of a run at WORTH_RATE: then a second more before it is nothing */
#define WORTH_RATE      4e10  /* operations a second and thread */
#define MEASURE_SECONDS 1.0

peft_status pf_sft_predict_speed(pf_sft *s, peft_error *err) {
    const double work = s->p.memory.step_flops * (double)s->p.total_steps;
    if (work < WORTH_SECONDS * WORTH_RATE * s->p.loaded.backend->n_workers) return PEFT_OK;
    PF_TRY(pf_prepared_speed(&s->p, MEASURE_SECONDS, err));
    pf_buf text = {0};
    char time[32];
    pf_speed_text(&s->p.speed, &text);
    PF_INFO("speed: predicted %s; all steps: %s", pf_buf_str(&text),
            pf_format_duration(s->p.speed.step * (double)s->p.total_steps, time, sizeof time));
    pf_buf_free(&text);
    return PEFT_OK;
}

peft_status pf_sft_build(pf_sft *s, peft_error *err) {
    const pf_memory_plan *m = &s->p.memory;
    const pf_loss_graph_options lg = {.training = true,
                                      .adapters = true,
                                      .policy = m->policy,
                                      .saved = &m->saved,
                                      .fuse = s->p.run.training.fuse,
                                      .compute = s->p.compute.type,
                                      .save_bf16 = s->p.save_bf16,
                                      .smoothing = s->p.run.training.label_smoothing_factor,
                                      .max_tokens = m->max_target,
                                      .max_source = m->max_source,
                                      .max_labels = m->max_labels};
    PF_TRY(pf_loss_graph_init(&s->loss, s->p.loaded.model, s->p.loaded.backend, &lg, err));
    const pf_batch_builder_options bb = pf_prepared_builder(&s->p);
    PF_TRY(pf_batch_builder_new(&s->builder, &bb, err));
    s->samples = PF_NEW_ARRAY(&s->p.arena, pf_sample, bb.max_samples);
    PF_CHECK_ALLOC(s->samples, err);
    if (s->p.data.test.n > 0) {
        pf_evaluator_options ev = pf_prepared_evaluation(&s->p, true);
        ev.stop_signal = s->stop_signal;
        ev.lender = s->loss.exec; /* training rests while it runs */
        PF_TRY(pf_evaluator_new(&s->evaluator, &ev, err));
    }
    return PEFT_OK;
}

peft_status pf_sft_open_optimizer(pf_sft *s, peft_error *err) {
    const pf_training_cfg *t = &s->p.run.training;
    const pf_optimizer_cfg oc = {.beta1 = t->adam_beta1,
                                 .beta2 = t->adam_beta2,
                                 .eps = t->adam_epsilon,
                                 .weight_decay = t->weight_decay,
                                 .max_grad_norm = t->max_grad_norm};
    PF_TRY(pf_optimizer_init(&s->optimizer, &s->p.arena, &s->p.loaded.adapter->params, &oc, err));
    const pf_schedule_cfg sc = {
        .type = t->lr_scheduler_type,
        .lr = t->learning_rate,
        .total_steps = s->p.total_steps,
        .warmup_steps = pf_schedule_warmup(t->warmup, t->warmup_ratio, s->p.total_steps),
        .args = &t->lr_scheduler_kwargs,
        .greater_is_better = pf_streq(t->greater_is_better, "true"),
    };
    PF_TRY(pf_schedule_init(&s->schedule, &s->p.arena, &sc, err));
    pf_best_init(&s->best, t->metric_for_best_model, pf_streq(t->greater_is_better, "true"));
    const pf_early_stopping_cfg *es = &s->p.run.callbacks.early_stopping;
    s->stops_early = es->given;
    if (es->given) {
        pf_early_stopping_init(&s->stopping, es->metric, pf_streq(es->greater_is_better, "true"),
                               es->patience, es->threshold);
    }
    s->evaluated_step = s->saved_step = -1;
    pf_trainer_state_init(&s->state, &s->p.arena);
    return PEFT_OK;
}

static bool wants_resume(const pf_sft *s, const peft_run_options *opt) {
    return opt->resume || opt->resume_from != NULL ||
           s->p.run.training.resume_from_checkpoint != NULL;
}

peft_status pf_sft_open_folder(pf_sft *s, const peft_run_options *opt, peft_error *err) {
    pf_buf resolved = {0};
    pf_cfg_dump(&s->p.cfg, &resolved);
    const pf_run_dir_options o = {.path = s->p.run.training.output_dir,
                                  .resume = wants_resume(s, opt),
                                  .overwrite =
                                      opt->overwrite || s->p.run.training.overwrite_output_dir,
                                  .config_path = opt->config_path,
                                  .resolved_json = pf_buf_str(&resolved)};
    peft_status status = pf_buf_ok(&resolved) ? pf_run_dir_open(&s->dir, &o, err)
                                              : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&resolved);
    PF_TRY(status);
    s->finished_before = s->dir.finished;
    if (s->finished_before)
        PF_INFO("%s holds this run, complete; nothing is left to do", s->dir.path);
    return PEFT_OK;
}

static peft_status write_environment(pf_sft *s, const char *base, const char *hex,
                                     peft_error *err) {
    char tokens[32];
    snprintf(tokens, sizeof tokens, "%lld", (long long)s->p.memory.max_tokens);
    pf_named_text hashes[3] = {{"data", s->p.data.fingerprint},
                               {"tokenizer", pf_tokenizer_fingerprint(s->p.loaded.tokenizer)}};
    int n_hashes = 2;
    if (base != NULL) hashes[n_hashes++] = (pf_named_text){base, hex};
    const pf_named_text more[] = {
        {"device", s->p.loaded.backend->name},
        {"isa", pf_isa_name(pf_cpu_level())},
        {"compute", pf_compute_name(s->p.compute.type)},
        {"saved_dtype", s->p.save_bf16 ? "bfloat16" : "float32"},
        {"base_dropout", s->p.base_dropout},
        {"tokens_per_batch", tokens},
        {"saved_for_backward", pf_save_policy_name(s->p.memory.policy)},
    };
    const pf_environment_cfg cfg = {.threads = s->p.loaded.backend->n_workers,
                                    .command = s->command,
                                    .started = s->started_at,
                                    .hashes = hashes,
                                    .n_hashes = n_hashes,
                                    .more = more,
                                    .n_more = (int)PF_COUNT(more)};
    return pf_run_dir_environment(&s->dir, &cfg, err);
}

/* Without the hash of the base, which is made later. */
peft_status pf_sft_write_environment(pf_sft *s, const peft_run_options *opt, peft_error *err) {
    s->command = opt->command;
    pf_wall_iso(s->started_at, sizeof s->started_at);
    return write_environment(s, NULL, NULL, err);
}

peft_status pf_sft_begin_hash(pf_sft *s, peft_error *err) {
    if (s->base_hash != NULL || s->base_hashed) return PEFT_OK;
    return pf_base_hash_start(&s->base_hash, s->p.loaded.model->files, err);
}

peft_status pf_sft_complete_environment(pf_sft *s, peft_error *err) {
    if (s->base_hashed) return PEFT_OK;
    PF_TRY(pf_sft_begin_hash(s, err));
    const char *label;
    char hex[PF_SHA256_HEX];
    PF_TRY(pf_base_hash_get(s->base_hash, &label, hex, err));
    pf_base_hash_free(s->base_hash);
    s->base_hash = NULL;
    s->base_hashed = true;
    return write_environment(s, label, hex, err);
}

/* Rows of the log, so that the loop need not ask for memory: one per step at most, and evaluations.
 */
static peft_status reserve_log(pf_sft *s, peft_error *err) {
    const int64_t rows = 2 * s->p.total_steps + 16;
    const int64_t most = rows < 200000 ? rows : 200000;
    return pf_trainer_state_reserve(&s->state, most, 6 * most, err);
}

peft_status pf_sft_open_trackers(pf_sft *s, peft_error *err) {
    const pf_training_cfg *t = &s->p.run.training;
    const pf_track_run run = {
        .run_dir = s->dir.path, .run_name = t->run_name, .resume_step = s->resumed ? s->step : -1};
    const char *names[] = {"jsonl", "csv"};
    PF_TRY(pf_trackers_open(&s->trackers, &s->p.arena, &run, names, s->p.run.logging.csv ? 2 : 1,
                            err));
    s->state.max_steps = s->p.total_steps;
    s->state.num_train_epochs = (int64_t)ceil(t->num_train_epochs);
    s->state.train_batch_size = t->per_device_train_batch_size;
    s->state.logging_steps =
        t->logging_steps >= 1 ? (int64_t)t->logging_steps : s->state.logging_steps;
    s->state.eval_steps = t->eval_steps >= 1 ? (int64_t)t->eval_steps : s->state.eval_steps;
    s->state.save_steps = t->save_steps >= 1 ? (int64_t)t->save_steps : s->state.save_steps;
    if (s->stops_early) s->state.stopping = &s->stopping;
    PF_TRY(reserve_log(s, err));
    const int64_t left = s->p.total_steps - s->step;
    s->p.timing.first_step = s->step + 1;
    s->p.timing.plan = (uint64_t)s->p.memory.total;
    PF_TRY(pf_run_timing_reserve(&s->p.timing, &s->p.arena, left < 200000 ? left : 200000, err));
    pf_progress_begin(&s->progress, "Training", "it", s->step, s->p.total_steps);
    return PEFT_OK;
}
