/* sft.c - supervised fine-tuning: a base, an adapter, examples with prompts and targets.
 *
 * What steers it: model.* (base), peft.* (what is trained), data.* (examples), training.* (steps,
 * rates, files), evaluation.* and callbacks.early_stopping. The loop is pf_sft_step below, in full:
 *
 *   samples of the step -> micro-batches -> forward, loss, backward -> clip, AdamW -> log ->
 * evaluate -> save
 *
 * The loss of a step is the sum of its token losses over its supervised tokens, whatever the cut
 * into micro-batches. State changes only in whole steps, and every part that has state brings a
 * section of the checkpoint: a run that is killed anywhere goes on from the newest checkpoint and
 * ends in the same bytes. */
#include "recipes/sft.h"

#include "base/clock.h" /* gives: pf_now */
#include "base/cpu.h"
#include "base/log.h"
#include "base/mem.h"
#include "recipes/sft_parts.h" /* gives: struct pf_sft and one function per detail */

#include <math.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t stop_signal;

void pf_sft_request_stop(int sig) {
    stop_signal = sig;
}

static peft_status open_run(pf_sft *s, const peft_run_options *opt, peft_error *err) {
    const pf_prepare_options prepare = {.config_path = opt->config_path,
                                        .overrides = opt->overrides,
                                        .n_overrides = opt->n_overrides,
                                        .purpose = PF_RUN_TRAIN,
                                        .with_data = true,
                                        .with_training = true};
    PF_TRY(pf_prepare(&s->p, &prepare, err)); /* config, model, adapter, data, steps, memory plan */
    PF_TRY(pf_sft_say_plan(s, err));          /* trainable params, memory table */
    PF_TRY(pf_sft_open_folder(
        s, opt, err)); /* output_dir: lock, refuse or resume, config and environment files */
    if (s->finished_before) return PEFT_OK;
    PF_TRY(pf_sft_find_checkpoint(s, opt, err));   /* to go on from, with the choices made then */
    PF_TRY(pf_sft_predict_speed(s, err));          /* of a run that is long enough to ask */
    PF_TRY(pf_sft_build(s, err));                  /* graph, arena, batch builder, evaluator */
    PF_TRY(pf_sft_write_environment(s, opt, err)); /* environment.json, requirements.txt */
    PF_TRY(pf_sft_open_optimizer(s, err)); /* AdamW, schedule, best metric, early stopping */
    PF_TRY(pf_sft_resume(s, err));         /* state of the checkpoint */
    PF_TRY(pf_sft_open_trackers(s, err));  /* metrics.jsonl, train.log */
    if (opt->profile) {
        PF_TRY(pf_profile_begin(&s->profile, s->p.loaded.backend, err));
        PF_TRY(pf_exec_profile(s->loss.exec, true, err));
    }
    s->started = pf_now();
    pf_run_timing_phase(&s->p.timing, "opened");
    const bool wanted = s->step == 0 && s->p.run.training.eval_on_start;
    if (wanted || s->evaluation_pending)
        PF_TRY(pf_sft_evaluate(s, err)); /* pending: a signal came before it */
    return PEFT_OK;
}

peft_status pf_sft_open(pf_sft **out, const peft_run_options *opt, peft_error *err) {
    *out = NULL;
    pf_sft *s = pf_calloc(1, sizeof *s);
    PF_CHECK_ALLOC(s, err);
    s->stop_signal = &stop_signal;
    peft_status status = open_run(s, opt, err);
    if (status != PEFT_OK) {
        pf_sft_close(s);
        return status;
    }
    *out = s;
    return PEFT_OK;
}

/* Forward and backward over the micro-batches of a step; gradients add up in the adapter's block.
 */
static peft_status accumulate(pf_sft *s, const pf_step *step, pf_loss_sums *sums, peft_error *err) {
    for (int32_t i = 0; i < step->n; i++) {
        s->samples[i] = pf_dataset_sample(&s->p.data.train_set, step->examples[i], i);
    }
    int32_t n_micro;
    PF_TRY(pf_batch_builder_begin(s->builder, s->samples, step->n, (uint64_t)step->step, &n_micro,
                                  err));
    const double denominator = pf_batch_builder_figures(s->builder).label_weight;
    pf_params *trained = &s->p.loaded.adapter->params;
    pf_params_zero_grad(trained);
    if (trained->made.random) PF_TRY(pf_params_make(trained, s->step, err));
    pf_exec_weights_stay(s->loss.exec, true); /* until the next step */
    for (int32_t m = 0; m < n_micro; m++) {
        pf_batch batch;
        pf_batch_builder_get(s->builder, m, &batch);
        PF_TRY(pf_loss_graph_forward(&s->loss, &batch, sums, err));
        if (!isfinite(sums->nll)) return pf_loss_graph_explain_nonfinite(&s->loss, false, err);
        PF_TRY(pf_loss_graph_backward(&s->loss, denominator, err));
    }
    return pf_adapter_after_backward(s->p.loaded.adapter, err); /* a method's regularization */
}

peft_status pf_sft_step(pf_sft *s, peft_step_report *report, peft_error *err) {
    *report =
        (peft_step_report){.step = s->step, .max_steps = s->p.total_steps, .done = pf_sft_done(s)};
    if (report->done) return PEFT_OK;
    const double start = pf_now(), busy = pf_pool_busy(s->p.loaded.backend->pool);

    pf_step step; /* which samples, and what their loss is divided by */
    pf_step_plan_get(s->p.steps, s->step, &step);
    pf_loss_sums sums = {0};
    PF_TRY(pf_sft_diverged(s, accumulate(s, &step, &sums, err), err));

    pf_optimizer_report update; /* checks the gradients before it changes anything */
    const double lr = pf_schedule_lr(&s->schedule, s->step), reached = pf_now();
    PF_TRY(pf_sft_diverged(
        s, pf_optimizer_step(&s->optimizer, s->p.loaded.backend->pool, lr, &update, err), err));
    s->step++;
    const pf_step_done done = {
        .step = s->step, .total_steps = s->p.total_steps, .clip = update.clip};
    PF_TRY(pf_adapter_after_step(s->p.loaded.adapter, &done, err));
    pf_profile_step(&s->profile, start, reached, pf_pool_busy(s->p.loaded.backend->pool) - busy);

    const pf_batch_figures figures = pf_batch_builder_figures(s->builder);
    *report = (peft_step_report){.step = s->step,
                                 .max_steps = s->p.total_steps,
                                 .epoch = step.epochs_done,
                                 .loss = sums.nll / sums.weight,
                                 .grad_norm = update.grad_norm,
                                 .learning_rate = lr,
                                 .tokens = step.tokens,
                                 .supervised_tokens = (int64_t)sums.weight,
                                 .rows = figures.rows,
                                 .seconds = pf_now() - start};
    PF_TRY(pf_sft_log_step(s, &step, report, err));
    const pf_sft_due due = pf_sft_due_at(s, &step);
    s->evaluation_pending = due.evaluate;
    if (due.evaluate && stop_signal == 0) PF_TRY(pf_sft_evaluate(s, err));
    if (due.save || s->new_best) PF_TRY(pf_sft_save(s, err));
    pf_run_timing_step(&s->p.timing, report->seconds);
    PF_TRY(pf_sft_begin_hash(s, err)); /* after the first step, which somebody waits for */
    report->done = pf_sft_done(s);
    return PEFT_OK;
}

peft_status pf_sft_finish(pf_sft *s, peft_error *err) {
    if (s->finished_before) return PEFT_OK;
    if (s->p.data.test.n > 0 && s->evaluated_step != s->step) PF_TRY(pf_sft_evaluate(s, err));
    PF_TRY(pf_sft_complete_environment(s, err));
    if (s->saved_step != s->step || s->new_best) PF_TRY(pf_sft_save_last(s, err));
    PF_TRY(pf_sft_restore_best(s, err)); /* the best checkpoint's weights, when asked for */
    PF_TRY(pf_sft_write_result(s, err)); /* adapter, trainer_state.json, report.html */
    pf_sft_say_result(s);                /* what the curve shows, memory beside the plan, profile */
    return PEFT_OK;
}

void pf_sft_close(pf_sft *s) {
    if (s == NULL) return;
    pf_sft_release_parts(s);
    pf_prepared_release(&s->p);
    pf_free(s);
}

/* A signal came: everything up to the last whole step is saved, what was due after it stays due. */
static peft_status stop_here(pf_sft *s, peft_error *err) {
    const int sig = stop_signal;
    if (s->step > 0 && s->saved_step != s->step) PF_TRY(pf_sft_save(s, err));
    char saved[96] = "there is no checkpoint yet";
    if (s->step > 0)
        snprintf(saved, sizeof saved, "checkpoint-%lld is written, continue with --resume",
                 (long long)s->step);
    return PF_FAIL(err, sig == SIGINT ? PEFT_E_INTERRUPTED : PEFT_E_TERMINATED,
                   "stopped by %s after step %lld of %lld; %s",
                   sig == SIGINT ? "SIGINT" : "SIGTERM", (long long)s->step,
                   (long long)s->p.total_steps, saved);
}

peft_status pf_sft_run(const peft_run_options *opt, peft_error *err) {
    stop_signal = 0;
    pf_sft *s;
    PF_TRY(pf_sft_open(&s, opt, err));
    peft_status status = PEFT_OK;
    peft_step_report report;
    do {
        if (stop_signal != 0) status = stop_here(s, err);
        if (status == PEFT_OK) status = pf_sft_step(s, &report, err);
        if (status == PEFT_OK) pf_sft_progress(s, &report);
    } while (status == PEFT_OK && !report.done);
    if (status == PEFT_OK && stop_signal != 0 && !s->finished_before) status = stop_here(s, err);
    if (status == PEFT_OK) status = pf_sft_finish(s, err);
    if (status == PEFT_E_INTERRUPTED && stop_signal != 0 && s->step > 0) status = stop_here(s, err);
    pf_sft_close(s);
    return status;
}
