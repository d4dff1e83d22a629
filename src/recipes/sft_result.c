/* sft_result.c - what sft.c does after its loop: the adapter, the records, the words. */
#include "recipes/sft_parts.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/hf_carry.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#define SAMPLE_PROMPTS 8 /* that a merge is compared on later */

/* prompts.jsonl: real texts of this run, prompt and target, for checks of what is made from it. */
static peft_status write_prompts(pf_sft *s, peft_error *err) {
    const pf_data_view *v = s->p.data.test.n > 0 ? &s->p.data.test : &s->p.data.train;
    pf_buf out = {0}, text = {0};
    peft_status status = PEFT_OK;
    for (int64_t i = 0; i < v->n && i < SAMPLE_PROMPTS && status == PEFT_OK; i++) {
        pf_buf_clear(&text);
        status = pf_dataset_text(v->set, v->index[i], s->p.loaded.tokenizer, &text, err);
        pf_json_add_str(&out, pf_buf_str(&text), text.len, 0);
        pf_buf_addc(&out, '\n');
    }
    const char *path = pf_run_dir_file(&s->dir, "prompts.jsonl");
    if (status == PEFT_OK)
        status = path != NULL && pf_buf_ok(&out) && pf_buf_ok(&text)
                     ? pf_write_file(path, pf_buf_str(&out), out.len, err)
                     : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&out);
    pf_buf_free(&text);
    return status;
}

static peft_status write_timing(pf_sft *s, peft_error *err) {
    pf_run_timing *t = &s->p.timing;
    t->tokens = s->tokens_seen;
    t->supervised_tokens = s->supervised_seen;
    t->rows = s->rows_seen;
    t->rows_plain = s->rows_plain;
    t->trained_parameters = pf_adapter_trained(s->p.loaded.adapter);
    pf_run_timing_phase(t, "saved");
    pf_buf out = {0};
    pf_run_timing_json(t, &out);
    const char *path = pf_run_dir_file(&s->dir, "timing.json");
    peft_status status = path != NULL && pf_buf_ok(&out)
                             ? pf_write_file(path, pf_buf_str(&out), out.len, err)
                             : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&out);
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
    if (pf_method_saves_model(
            s->p.loaded.adapter->method)) /* a whole model needs its tokenizer too */
        PF_TRY(pf_hf_carry(s->p.loaded.model->path, s->dir.path, err));
    const char *path = pf_run_dir_file(&s->dir, "trainer_state.json");
    PF_CHECK_ALLOC(path, err);
    PF_TRY(pf_trainer_state_write(&s->state, path, err));
    PF_TRY(write_prompts(s, err));
    PF_TRY(pf_sft_write_report(s, NULL, err));
    peft_status status = pf_trackers_sync(&s->trackers, err);
    if (status != PEFT_OK)
        return pf_fail_prefix(err, status,
                              "%s has the adapter, but its metrics are not complete (make room, "
                              "then continue with --resume)",
                              s->dir.path);
    PF_TRY(write_timing(s, err));
    PF_TRY(pf_run_dir_mark_finished(&s->dir, err));
    PF_INFO("saved: %s", s->dir.path);
    return PEFT_OK;
}

void pf_sft_say_result(const pf_sft *s) {
    const double seconds = pf_now() - s->started;
    char planned[32], measured[32];
    PF_INFO("%lld steps in %.1f s: %.0f tokens/s, %.0f supervised tokens/s",
            (long long)(s->step - s->first_step), seconds, (double)s->tokens_seen / seconds,
            (double)s->supervised_seen / seconds);
    if (s->p.speed.tokens_per_second > 0 && s->step_seconds > 0) {
        const double rate = (double)s->tokens_timed / s->step_seconds;
        PF_INFO("speed: %.0f tokens/s predicted, %.0f tokens/s measured inside of steps (%+.0f %%)",
                s->p.speed.tokens_per_second, rate,
                100 * (rate / s->p.speed.tokens_per_second - 1));
    }
    if (s->rows_seen < s->rows_plain) {
        PF_INFO("shared prefixes: %lld rows computed instead of %lld", (long long)s->rows_seen,
                (long long)s->rows_plain);
    }
    PF_INFO("memory: %s planned, %s measured above the start (%lld and %llu bytes)",
            pf_format_bytes((double)s->p.memory.total, planned, sizeof planned),
            pf_format_bytes((double)s->peak_anon, measured, sizeof measured),
            (long long)s->p.memory.total, (unsigned long long)s->peak_anon);
    if (s->loss.exec->profile != NULL)
        pf_profile_say(&s->profile, s->loss.exec, seconds - s->profile.steps);
    pf_sft_say_curve(s);
}

void pf_sft_release_parts(pf_sft *s) {
    pf_base_hash_free(s->base_hash);
    pf_trackers_close(&s->trackers);
    pf_evaluator_free(s->evaluator);
    pf_buf_free(&s->predictions);
    pf_batch_builder_free(s->builder);
    pf_loss_graph_release(&s->loss);
    pf_run_dir_close(&s->dir);
}
