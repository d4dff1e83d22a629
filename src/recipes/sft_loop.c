/* sft_loop.c - what sft.c does inside its loop: when things are due, logging, evaluation. */
#include "recipes/sft_parts.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/log.h"
#include "train/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool pf_sft_done(const pf_sft *s) {
    return s->finished_before || s->stopped || s->step >= s->p.total_steps;
}

/* A number of steps; below 1 a share of all steps, as in Hugging Face. */
static int64_t interval(const pf_sft *s, double steps) {
    if (steps <= 0) return 0;
    return steps < 1 ? (int64_t)ceil(steps * (double)s->p.total_steps) : (int64_t)steps;
}

static bool due(const pf_sft *s, const char *strategy, double steps, bool epoch_ends) {
    if (pf_streq(strategy, "epoch")) return epoch_ends;
    int64_t every = interval(s, steps);
    return pf_streq(strategy, "steps") && every > 0 && s->step % every == 0;
}

pf_sft_due pf_sft_due_at(const pf_sft *s, const pf_step *step) {
    const pf_training_cfg *t = &s->p.run.training;
    const bool epoch_ends =
        step->step_in_epoch + 1 == s->p.steps_per_epoch || s->step == s->p.total_steps;
    const bool last = s->step == s->p.total_steps;
    return (pf_sft_due){
        .log = due(s, t->logging_strategy, t->logging_steps, epoch_ends) || last ||
               (s->step == 1 && t->logging_first_step),
        .evaluate = s->evaluator != NULL && due(s, t->eval_strategy, t->eval_steps, epoch_ends),
        .save = due(s, t->save_strategy, t->save_steps, epoch_ends),
    };
}

peft_status pf_sft_diverged(pf_sft *s, peft_status status, peft_error *err) {
    if (status != PEFT_E_DIVERGED && status != PEFT_E_FAILED) return status;
    char kept[128];
    if (s->saved_step > 0) {
        snprintf(kept, sizeof kept, "checkpoint-%lld is intact", (long long)s->saved_step);
    } else {
        snprintf(kept, sizeof kept, "no checkpoint was made yet");
    }
    static char why[PEFT_ERROR_MAX];
    snprintf(why, sizeof why, "%s", err != NULL ? err->message : "");
    if (status == PEFT_E_FAILED) {
        return PF_FAIL(err, status, "step %lld: %s", (long long)s->step + 1, why);
    }
    peft_error ignored; /* the run has a failure to report already */
    if (pf_sft_write_report(s, why, &ignored) == PEFT_OK) pf_sft_say_curve(s);
    return PF_FAIL(err, status,
                   "step %lld: %s. Nothing was updated; %s. Try a smaller training.learning_rate "
                   "(now %g), a warmup, or "
                   "training.max_grad_norm=1",
                   (long long)s->step + 1, why, kept, s->p.run.training.learning_rate);
}

static void watch_memory(pf_sft *s) {
    uint64_t now = pf_memory_anon();
    if (now > s->p.anon_at_start && now - s->p.anon_at_start > s->peak_anon)
        s->peak_anon = now - s->p.anon_at_start;
}

/* One row for trainer_state.json (its first n_state members) and for every tracker. */
static peft_status log_row(pf_sft *s, double epoch, const pf_metric *items, int n, int n_state,
                           peft_error *err) {
    const pf_metric_row row = {.step = s->step, .epoch = epoch, .items = items, .n = n};
    pf_metric_row state = row;
    state.n = n_state;
    PF_TRY(pf_trainer_state_log(&s->state, &state, err));
    pf_trackers_scalars(&s->trackers, &row);
    return PEFT_OK;
}

peft_status pf_sft_log_step(pf_sft *s, const pf_step *step, const peft_step_report *r,
                            peft_error *err) {
    const pf_batch_figures figures = pf_batch_builder_figures(s->builder);
    s->step_seconds += r->seconds;
    s->tokens_timed += r->tokens;
    s->loss_sum += r->loss;
    s->loss_count++;
    s->total_loss += r->loss;
    s->tokens_seen += r->tokens;
    s->supervised_seen += r->supervised_tokens;
    s->rows_seen += figures.rows;
    s->rows_plain += figures.rows_plain;
    watch_memory(s);
    if (!pf_sft_due_at(s, step).log) return PEFT_OK;
    const pf_metric row[] = {
        {"loss", s->loss_sum / (double)s->loss_count, false},
        {"grad_norm", r->grad_norm, false},
        {"learning_rate", r->learning_rate, false},
        {"tokens", (double)s->tokens_seen, true},
        {"supervised_tokens", (double)s->supervised_seen, true},
    };
    s->loss_sum = 0;
    s->loss_count = 0;
    /* trainer_state.json gets the members that transformers has: the first three */
    return log_row(s, r->epoch, row, (int)PF_COUNT(row), 3, err);
}

static void say_evaluation(const pf_sft *s) {
    const pf_evaluation *e = &s->evaluation;
    char generated[128] = "";
    if (e->classes) {
        PF_INFO("step %lld: eval loss %.4f, accuracy %.2f%%, %s %.4f (%lld rows, %.1f s)",
                (long long)s->step, e->loss, 100 * e->scores.accuracy,
                e->scores.entities ? "entity F1" : "F1", e->scores.f1, (long long)e->n_samples,
                e->seconds);
        return;
    }
    if (e->problem == PF_PROBLEM_MULTI) {
        PF_INFO("step %lld: eval loss %.4f, all classes right %.2f%%, F1 %.4f micro, %.4f macro "
                "(%lld rows, %.1f s)",
                (long long)s->step, e->loss, 100 * e->values.accuracy, e->values.f1_micro,
                e->values.f1_macro, (long long)e->n_samples, e->seconds);
        return;
    }
    if (e->problem == PF_PROBLEM_REGRESSION) {
        PF_INFO("step %lld: eval loss %.4f, rmse %.4f, Pearson %.4f, Spearman %.4f (%lld rows, "
                "%.1f s)",
                (long long)s->step, e->loss, e->values.rmse, e->values.pearson, e->values.spearmanr,
                (long long)e->n_samples, e->seconds);
        return;
    }
    if (e->generated) {
        snprintf(generated, sizeof generated, ", exact match %.2f%%, F1 %.2f, BLEU %.2f",
                 e->exact_match, e->f1, e->bleu);
    }
    PF_INFO(
        "step %lld: eval loss %.4f, perplexity %.3f, token accuracy %.2f%%%s (%lld rows, %.1f s)",
        (long long)s->step, e->loss, e->perplexity, 100 * e->token_accuracy, generated,
        (long long)e->n_samples, e->seconds);
}

double pf_sft_epoch(const pf_sft *s) {
    if (s->step == 0) return 0;
    pf_step step;
    pf_step_plan_get(s->p.steps, s->step - 1, &step);
    return step.epochs_done;
}

peft_status pf_sft_evaluate(pf_sft *s, peft_error *err) {
    if (s->evaluator == NULL) return PEFT_OK;
    pf_buf_clear(&s->predictions);
    PF_TRY(pf_evaluator_run(s->evaluator, &s->evaluation, &s->predictions, err));
    watch_memory(s);
    const pf_evaluation *e = &s->evaluation;
    const double epoch = pf_sft_epoch(s);
    pf_metric row[PF_MAX_FIGURES + 2];
    int n = pf_evaluation_figures(e, row);
    row[n++] = (pf_metric){"eval_runtime", e->seconds, false};
    row[n++] = (pf_metric){"eval_samples_per_second",
                           (double)e->n_samples / (e->seconds > 0 ? e->seconds : 1e-9), false};
    PF_TRY(log_row(s, epoch, row, n, n, err));
    say_evaluation(s);
    s->evaluated_step = s->step;
    s->evaluation_pending = false;

    /* a run that keeps its best needs a checkpoint of it; sft.c makes one when new_best is set */
    if (pf_best_update(&s->best, pf_evaluation_figure(e, s->best.metric), s->step) && s->step > 0) {
        s->new_best = s->p.run.training.load_best_model_at_end;
    }
    pf_schedule_metric(&s->schedule, pf_evaluation_figure(e, s->best.metric));
    if (s->stops_early &&
        pf_early_stopping_update(&s->stopping, pf_evaluation_figure(e, s->stopping.best.metric),
                                 s->step)) {
        char why[256];
        pf_early_stopping_reason(&s->stopping, why, sizeof why);
        PF_INFO("early stopping: %s", why);
        s->stopped = true;
    }
    return PEFT_OK;
}

void pf_sft_progress(pf_sft *s, const peft_step_report *r) {
    if (r->step == 0) return;
    pf_progress_set(&s->progress, r->step, "loss=%.4g, lr=%.3g", r->loss, r->learning_rate);
    if (r->done) pf_progress_end(&s->progress);
}
