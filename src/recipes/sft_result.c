/* sft_result.c - what sft.c does after its loop: the adapter, the records, the words. */
#include "recipes/sft_parts.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"
#include "text/json.h"
#include "train/report.h"

#include <stdio.h>
#include <string.h>

#define SAMPLE_PROMPTS 8 /* that a merge is compared on later */

/* prompts.jsonl: real texts of this run, prompt and target, for checks of what is made from it. */
static peft_status write_prompts(pf_sft *s, peft_error *err) {
    const pf_data_view *v = s->p.data.test.n > 0 ? &s->p.data.test : &s->p.data.train;
    pf_buf out = {0}, text = {0};
    for (int64_t i = 0; i < v->n && i < SAMPLE_PROMPTS; i++) {
        const pf_str prompt = pf_dataset_prompt(v->set, v->index[i]),
                     target = pf_dataset_target(v->set, v->index[i]);
        pf_buf_clear(&text);
        pf_buf_add(&text, prompt.p, prompt.n);
        pf_buf_add(&text, target.p, target.n);
        pf_json_add_str(&out, pf_buf_str(&text), text.len, 0);
        pf_buf_addc(&out, '\n');
    }
    const char *path = pf_run_dir_file(&s->dir, "prompts.jsonl");
    peft_status status = path != NULL && pf_buf_ok(&out) && pf_buf_ok(&text)
                             ? pf_write_file(path, pf_buf_str(&out), out.len, err)
                             : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&out);
    pf_buf_free(&text);
    return status;
}

static pf_curve_context curve_context(const pf_sft *s) {
    const pf_training_cfg *t = &s->p.run.training;
    const pf_adapter *ad = s->p.loaded.adapter;
    pf_curve_context c = {
        .learning_rate = t->learning_rate,
        .num_train_epochs = pf_sft_epoch(s),
        .max_grad_norm = t->max_grad_norm,
        .warmup_steps = pf_schedule_warmup(t->warmup, t->warmup_ratio, s->p.total_steps),
        .batch = t->per_device_train_batch_size * t->gradient_accumulation_steps,
        .early_stopping = s->stops_early,
        .load_best = t->load_best_model_at_end,
    };
    if (pf_streq(ad->method->name, "lora")) {
        const pf_lora_cfg *lora = ad->cfg.method_cfg;
        c.lora_r = lora->r;
        c.lora_dropout = lora->dropout;
    }
    return c;
}

/* The text of a file of the run's folder for the report; NULL when it cannot be read. */
static const char *text_of(pf_sft *s, const char *name) {
    pf_buf text = {0};
    const char *path = pf_run_dir_file(&s->dir, name);
    const char *copy = NULL;
    if (path != NULL && pf_read_file(&text, path, (size_t)1 << 20, NULL) == PEFT_OK) {
        copy = pf_arena_strndup(&s->p.arena, pf_buf_str(&text), text.len);
    }
    pf_buf_free(&text);
    return copy;
}

static peft_status write_report(pf_sft *s, peft_error *err) {
    const pf_curve_context context = curve_context(s);
    PF_TRY(pf_diagnose_state(&s->diagnosis, &s->p.arena, &s->state, &context, err));
    char params[256];
    pf_adapter_describe(s->p.loaded.adapter, params, sizeof params);
    const pf_named_text facts[] = {
        {"model", s->p.loaded.model->path},
        {"method", s->p.loaded.adapter->method->name},
        {"parameters", params},
        {"device", pf_cpu_model()},
    };
    const pf_report_cfg cfg = {
        .title = s->p.run.training.run_name != NULL ? s->p.run.training.run_name : s->dir.path,
        .state = &s->state,
        .diagnosis = &s->diagnosis,
        .facts = facts,
        .n_facts = (int)PF_COUNT(facts),
        .config_text = text_of(s, "config.yaml"),
        .environment_text = text_of(s, "environment.json")};
    pf_buf html = {0};
    peft_status status = pf_report_html(&html, &cfg, err);
    if (status == PEFT_OK && !pf_buf_ok(&html))
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK)
        status = pf_run_dir_put(&s->dir, "report.html", html.data, html.len, err);
    pf_buf_free(&html);
    return status;
}

peft_status pf_sft_write_result(pf_sft *s, peft_error *err) {
    PF_TRY(pf_sft_update_state(s, err));
    const double seconds = pf_now() - s->started;
    const double steps = (double)(s->step > 0 ? s->step : 1),
                 here = (double)(s->step - s->first_step);
    const double samples = here * (double)(s->p.run.training.per_device_train_batch_size *
                                           s->p.run.training.gradient_accumulation_steps);
    const pf_metric row[] = {
        {"train_loss", s->total_loss / steps, false},
        {"train_runtime", seconds, false},
        {"train_samples_per_second", samples / (seconds > 0 ? seconds : 1e-9), false},
        {"train_steps_per_second", here / (seconds > 0 ? seconds : 1e-9), false},
        {"total_flos", s->state.total_flos, false},
    };
    const pf_metric_row all = {
        .step = s->step, .epoch = pf_sft_epoch(s), .items = row, .n = (int)PF_COUNT(row)};
    PF_TRY(pf_trainer_state_log(&s->state, &all, err));
    pf_trackers_scalars(&s->trackers, &all);
    PF_TRY(pf_adapter_save(s->p.loaded.adapter, s->dir.path, err));
    const char *path = pf_run_dir_file(&s->dir, "trainer_state.json");
    PF_CHECK_ALLOC(path, err);
    PF_TRY(pf_trainer_state_write(&s->state, path, err));
    PF_TRY(write_prompts(s, err));
    PF_TRY(write_report(s, err));
    pf_trackers_sync(&s->trackers);
    PF_TRY(pf_run_dir_mark_finished(&s->dir, err));
    PF_INFO("saved: %s", s->dir.path);
    return PEFT_OK;
}

static void say_profile(const pf_sft *s) {
    const pf_exec *x = s->loss.exec;
    if (x->profile == NULL) return;
    const pf_graph *g = x->graph;
    double total = 0;
    for (int i = 0; i < g->n_nodes; i++) total += x->profile[i].seconds;
    PF_INFO("%-20s %-10s %10s %10s %7s %10s", "op", "kernel", "calls", "seconds", "share",
            "GFLOP/s");
    for (const pf_op *const *op = g->ops; *op != NULL; op++) {
        pf_profile_row sum = {0};
        const char *kernel = "";
        for (int i = 0; i < g->n_nodes; i++) {
            if (g->nodes[i]->op != *op) continue;
            sum.calls += x->profile[i].calls;
            sum.seconds += x->profile[i].seconds;
            sum.flops += x->profile[i].flops;
            kernel = g->nodes[i]->kernel->name;
        }
        if (sum.calls == 0) continue;
        PF_INFO("%-20s %-10s %10lld %10.3f %6.1f%% %10.1f", (*op)->name, kernel,
                (long long)sum.calls, sum.seconds, 100 * sum.seconds / total,
                sum.flops / sum.seconds * 1e-9);
    }
}

void pf_sft_say_result(const pf_sft *s) {
    const double seconds = pf_now() - s->started;
    char planned[32], measured[32];
    PF_INFO("%lld steps in %.1f s: %.0f tokens/s, %.0f supervised tokens/s",
            (long long)(s->step - s->first_step), seconds, (double)s->tokens_seen / seconds,
            (double)s->supervised_seen / seconds);
    if (s->rows_seen < s->rows_plain) {
        PF_INFO("shared prefixes: %lld rows computed instead of %lld", (long long)s->rows_seen,
                (long long)s->rows_plain);
    }
    PF_INFO("memory: %s planned, %s measured above the start",
            pf_format_bytes((double)s->p.memory.total, planned, sizeof planned),
            pf_format_bytes((double)s->peak_anon, measured, sizeof measured));
    say_profile(s);
    PF_INFO("the loss curve %s: %s", s->diagnosis.title, s->diagnosis.shows);
    PF_INFO("what to do: %s", s->diagnosis.advice);
}

void pf_sft_release_parts(pf_sft *s) {
    pf_trackers_close(&s->trackers);
    pf_evaluator_free(s->evaluator);
    pf_batch_builder_free(s->builder);
    pf_loss_graph_release(&s->loss);
    pf_run_dir_close(&s->dir);
}
