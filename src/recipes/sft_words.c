/* sft_words.c - what a run says about itself when it is over: the loss curve in plain words, in the
 * log and on report.html. */
#include "recipes/sft_parts.h"

#include "base/file.h"
#include "base/log.h"
#include "text/json.h"
#include "train/report.h"
#include "train/text_metrics.h"

#include <string.h>

#define SHOWN_ANSWERS 10
#define MAX_RECORD    ((size_t)16 << 20)

static pf_curve_context context_of(const pf_sft *s, const char *diverged) {
    const pf_training_cfg *t = &s->p.run.training;
    pf_curve_context c = {
        .learning_rate = t->learning_rate,
        .num_train_epochs = t->max_steps > 0 ? 0 : t->num_train_epochs,
        .max_grad_norm = t->max_grad_norm,
        .warmup_steps = s->schedule.cfg.warmup_steps,
        .batch = t->per_device_train_batch_size * t->gradient_accumulation_steps,
        .early_stopping = s->stops_early,
        .load_best = t->load_best_model_at_end,
        .diverged = diverged,
    };
    c.lora_r = s->p.loaded.adapter->rank;
    c.lora_dropout = s->p.loaded.adapter->dropout;
    return c;
}

/* The first answers of the last evaluation. */
static int answers_of(const pf_sft *s, pf_arena *a, pf_report_answer *out) {
    pf_jsonl lines;
    json_t *obj;
    int n = 0;
    if (s->predictions.len == 0) return 0;
    pf_jsonl_init(&lines, s->predictions.data, s->predictions.len, "predictions");
    while (n < SHOWN_ANSWERS && pf_jsonl_next(&lines, &obj, NULL) == PEFT_OK && obj != NULL) {
        const char *texts[3] = {json_string_value(json_object_get(obj, "prompt")),
                                json_string_value(json_object_get(obj, "target")),
                                json_string_value(json_object_get(obj, "prediction"))};
        for (int i = 0; i < 3; i++) texts[i] = pf_arena_strdup(a, texts[i] != NULL ? texts[i] : "");
        json_decref(obj);
        if (texts[0] == NULL || texts[1] == NULL || texts[2] == NULL) break;
        bool exact = false;
        pf_exact_match(pf_str_of(texts[2]), pf_str_of(texts[1]), &exact, NULL);
        out[n++] = (pf_report_answer){texts[0], texts[1], texts[2], exact};
    }
    return n;
}

static peft_status write_page(pf_sft *s, pf_arena *a, peft_error *err) {
    const pf_training_cfg *t = &s->p.run.training;
    char trained[256];
    pf_adapter_describe(s->p.loaded.adapter, trained, sizeof trained);
    const pf_named_text facts[] = {
        {"model", s->p.run.model.name_or_path},
        {"method", s->p.loaded.adapter->method->name},
        {"trained", trained},
        {"rows", pf_arena_printf(a, "%lld for training, %lld held out",
                                 (long long)s->p.data.train.n, (long long)s->p.data.test.n)},
        {"step", pf_arena_printf(
                     a, "%lld samples, %s, learning rate %g",
                     (long long)(t->per_device_train_batch_size * t->gradient_accumulation_steps),
                     t->lr_scheduler_type, t->learning_rate)},
    };
    pf_buf page = {0}, config = {0}, environment = {0};
    pf_report_answer answers[SHOWN_ANSWERS];
    const char *config_path = pf_run_dir_file(&s->dir, "config.resolved.json");
    const char *environment_path = pf_run_dir_file(&s->dir, "environment.json");
    peft_status status;
    if (config_path == NULL || environment_path == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    PF_TRY_OUT(pf_read_file(&config, config_path, MAX_RECORD, err));
    PF_TRY_OUT(pf_read_file(&environment, environment_path, MAX_RECORD, err));
    const pf_report_cfg cfg = {
        .title = t->run_name != NULL ? t->run_name : s->dir.path,
        .state = &s->state,
        .diagnosis = &s->diagnosis,
        .facts = facts,
        .n_facts = (int)PF_COUNT(facts),
        .answers = answers,
        .n_answers = answers_of(s, a, answers),
        .config_text = pf_buf_str(&config),
        .environment_text = pf_buf_str(&environment),
    };
    PF_TRY_OUT(pf_report_html(&page, &cfg, err));
    PF_TRY_OUT(pf_run_dir_put(&s->dir, "report.html", page.data, page.len, err));
out:
    pf_buf_free(&page);
    pf_buf_free(&config);
    pf_buf_free(&environment);
    return status;
}

peft_status pf_sft_write_report(pf_sft *s, const char *diverged, peft_error *err) {
    const pf_curve_context context = context_of(s, diverged);
    PF_TRY(pf_diagnose_state(&s->diagnosis, &s->p.arena, &s->state, &context, err));
    pf_arena a;
    pf_arena_init(&a, "report");
    peft_status status = write_page(s, &a, err);
    pf_arena_release(&a);
    return status;
}

void pf_sft_say_curve(const pf_sft *s) {
    PF_INFO("loss curve: %s. %s", s->diagnosis.title, s->diagnosis.shows);
    PF_INFO("what to do: %s", s->diagnosis.advice);
}
