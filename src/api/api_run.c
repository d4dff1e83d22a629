/* api_run.c - the door of run.h: thin. */
#include "peft/run.h"

#include "api/text_out.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/data_stats.h"
#include "data/preview.h"
#include "peft/method.h"
#include "recipes/eval.h"
#include "recipes/pages.h"
#include "recipes/plan.h"
#include "recipes/prepared.h"
#include "recipes/sft.h"

struct peft_run {
    pf_sft *sft;
};

const char *peft_version(void) {
    return PEFT_VERSION;
}

void peft_free(void *text) {
    pf_free(text);
}

void peft_set_verbosity(int level) {
    pf_log_set_level(level <= 0   ? PF_LOG_ERROR
                     : level == 1 ? PF_LOG_WARN
                     : level == 2 ? PF_LOG_INFO
                                  : PF_LOG_DEBUG);
}

peft_status peft_run_open(peft_run **out, const peft_run_options *opt, peft_error *err) {
    *out = NULL;
    peft_run *run = pf_calloc(1, sizeof *run);
    PF_CHECK_ALLOC(run, err);
    peft_status status = pf_sft_open(&run->sft, opt, err);
    if (status != PEFT_OK) {
        pf_free(run);
        return status;
    }
    *out = run;
    return PEFT_OK;
}

peft_status peft_run_step(peft_run *run, peft_step_report *out, peft_error *err) {
    return pf_sft_step(run->sft, out, err);
}

peft_status peft_run_finish(peft_run *run, peft_error *err) {
    return pf_sft_finish(run->sft, err);
}

void peft_run_close(peft_run *run) {
    if (run == NULL) return;
    pf_sft_close(run->sft);
    pf_free(run);
}

peft_status peft_train(const peft_run_options *opt, peft_error *err) {
    return pf_sft_run(opt, err);
}

void peft_request_stop(int signal) {
    pf_sft_request_stop(signal);
}

peft_status peft_evaluate(const peft_eval_options *opt, char **json, peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, pf_eval(opt, &out, err), json, err);
}

static pf_prepare_options prepare_options(const peft_run_options *opt, pf_run_purpose purpose) {
    return (pf_prepare_options){.config_path = opt->config_path,
                                .overrides = opt->overrides,
                                .n_overrides = opt->n_overrides,
                                .purpose = purpose,
                                .with_data = true};
}

peft_status peft_plan(const peft_plan_options *opt, char **text, peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, pf_plan_run(opt, &out, err), text, err);
}

peft_status peft_data_preview(const peft_run_options *opt, int64_t first, int64_t n, bool json,
                              char **text, peft_error *err) {
    const pf_prepare_options prepare = prepare_options(opt, PF_RUN_TRAIN);
    pf_prepared p;
    *text = NULL;
    PF_TRY(pf_prepare(&p, &prepare, err));
    pf_buf out = {0};
    peft_status status =
        json ? pf_data_preview_json(&p.data.train, p.loaded.tokenizer, first, n, &out, err)
             : pf_data_preview_text(&p.data.train, p.loaded.tokenizer, first, n, &out, err);
    pf_prepared_release(&p);
    return pf_give_text(&out, status, text, err);
}

peft_status peft_data_stats(const peft_run_options *opt, bool json, char **text, peft_error *err) {
    const pf_prepare_options prepare = prepare_options(opt, PF_RUN_TRAIN);
    pf_prepared p;
    *text = NULL;
    PF_TRY(pf_prepare(&p, &prepare, err));
    const pf_data_load_options load = pf_prepared_data_options(&p);
    const pf_step_plan_options step = pf_data_step_options(&load);
    pf_data_stats stats;
    pf_buf out = {0};
    peft_status status = pf_data_stats_make(&stats, &p.data, &step, pf_prepared_share(&p), err);
    if (status == PEFT_OK && json)
        pf_data_stats_json(&stats, &p.data, &out);
    else if (status == PEFT_OK)
        pf_data_stats_text(&stats, &p.data, &out);
    pf_prepared_release(&p);
    return pf_give_text(&out, status, text, err);
}

peft_status peft_data_tokens(const peft_run_options *opt, bool test, char **jsonl,
                             peft_error *err) {
    const pf_prepare_options prepare = prepare_options(opt, PF_RUN_TRAIN);
    pf_prepared p;
    *jsonl = NULL;
    PF_TRY(pf_prepare(&p, &prepare, err));
    pf_buf out = {0};
    peft_status status = test && p.data.test.n == 0
                             ? PF_FAIL(err, PEFT_E_CONFIG,
                                       "there are no test rows: give data.test or data.test_size")
                             : pf_data_tokens_jsonl(test ? &p.data.test : &p.data.train, &out, err);
    pf_prepared_release(&p);
    return pf_give_text(&out, status, jsonl, err);
}

/* The configuration alone, for looking at keys. */
static peft_status with_config(const peft_run_options *opt, const char *key, bool explain,
                               pf_buf *out, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "configuration");
    pf_run_cfg run;
    pf_cfg cfg;
    const pf_cfg_source source = {.path = opt != NULL ? opt->config_path : NULL,
                                  .overrides = opt != NULL ? opt->overrides : NULL,
                                  .n_overrides = opt != NULL ? opt->n_overrides : 0};
    pf_cfg_ext methods[PF_MAX_METHODS];
    const int n_methods = pf_method_sections(methods);
    peft_status status =
        pf_run_cfg_open(&run, &cfg, &a, &source, methods, n_methods, PF_RUN_ANY, err);
    if (status == PEFT_OK && explain)
        status = pf_cfg_explain(&cfg, key, out, err);
    else if (status == PEFT_OK)
        pf_cfg_dump(&cfg, out);
    pf_arena_release(&a);
    return status;
}

peft_status peft_config_explain(const char *key, char **text, peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, with_config(NULL, key, true, &out, err), text, err);
}

peft_status peft_config_resolve(const peft_run_options *opt, char **json, peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, with_config(opt, NULL, false, &out, err), json, err);
}

peft_status peft_config_reference(char **text, peft_error *err) {
    pf_buf out = {0};
    pf_cfg_ext methods[PF_MAX_METHODS];
    const int n_methods = pf_method_sections(methods);
    return pf_give_text(&out, pf_run_cfg_markdown(&out, methods, n_methods, err), text, err);
}

peft_status peft_methods_reference(char **text, peft_error *err) {
    pf_buf page = {0};
    return pf_give_text(&page, pf_methods_page(&page, err), text, err);
}

peft_status peft_models_reference(char **text, peft_error *err) {
    pf_buf page = {0};
    return pf_give_text(&page, pf_models_page(&page, err), text, err);
}
