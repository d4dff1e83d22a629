/* eval.c - what steers it: model, data and evaluation of the configuration; whose adapter. Load,
 * read the test rows, evaluate once, print. */
#include "recipes/eval.h"

#include "base/file.h"
#include "peft/several.h"
#include "recipes/prepared.h" /* gives: pf_prepare, pf_prepared_evaluation */
#include "text/json.h"

/* The adapter asked for: by name, the run's final one, or none. */
static peft_status choose_adapter(const peft_eval_options *opt, const char **adapter, pf_arena *a,
                                  peft_error *err) {
    *adapter = opt->base ? "" : opt->adapter;
    if (*adapter != NULL) return PEFT_OK;
    pf_run_cfg run;
    pf_cfg cfg;
    const pf_cfg_source source = {.path = opt->run.config_path,
                                  .overrides = opt->run.overrides,
                                  .n_overrides = opt->run.n_overrides};
    pf_cfg_ext methods[PF_MAX_METHODS];
    const int n_methods = pf_method_sections(methods);
    PF_TRY(pf_run_cfg_open(&run, &cfg, a, &source, methods, n_methods, PF_RUN_EVAL, err));
    const char *file = pf_path_join(a, run.training.output_dir, "adapter_config.json");
    const char *parts = pf_path_join(a, run.training.output_dir, PF_SEVERAL_FILE);
    PF_CHECK_ALLOC(file, err);
    const char *fusion = pf_path_join(a, run.training.output_dir, "adapter_fusion_config.json");
    PF_CHECK_ALLOC(parts, err);
    PF_CHECK_ALLOC(fusion, err);
    if (pf_path_exists(file) || pf_path_exists(parts) || pf_path_exists(fusion)) {
        *adapter = run.training.output_dir;
        return PEFT_OK;
    }
    if (run.model.adapter_name_or_path != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s holds no adapter yet; train first, name one with --adapter, or evaluate the "
                   "base with --base",
                   run.training.output_dir);
}

static void add_evaluation(const pf_evaluation *e, pf_buf *out) {
    pf_metric rows[PF_MAX_FIGURES + 3];
    int n = pf_evaluation_figures(e, rows);
    rows[n++] = (pf_metric){"eval_samples", (double)e->n_samples, false};
    rows[n++] = (pf_metric){"eval_tokens", (double)e->n_tokens, false};
    rows[n++] = (pf_metric){"eval_runtime", e->seconds, false};
    for (int i = 0; i < n; i++) {
        pf_buf_addf(out, "%s\"%s\": ", i == 0 ? "{" : ", ", rows[i].name);
        pf_json_add_real(out, rows[i].value);
    }
    pf_buf_addc(out, '}');
}

static peft_status run(pf_prepared *p, const peft_eval_options *opt, pf_buf *json,
                       peft_error *err) {
    if (p->data.test.n == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "there are no rows to evaluate on: give data.test or data.test_size");
    }
    const pf_evaluator_options eo = pf_prepared_evaluation(p, !opt->base);
    pf_evaluator *ev;
    PF_TRY(pf_evaluator_new(&ev, &eo, err));
    pf_evaluation result;
    pf_buf predictions = {0};
    peft_status status =
        pf_evaluator_run(ev, &result, opt->predictions_path != NULL ? &predictions : NULL, err);
    pf_evaluator_free(ev);
    if (status == PEFT_OK) add_evaluation(&result, json);
    if (status == PEFT_OK && opt->predictions_path != NULL) {
        status = pf_buf_ok(&predictions)
                     ? pf_write_file(opt->predictions_path, pf_buf_str(&predictions),
                                     predictions.len, err)
                     : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_buf_free(&predictions);
    return status;
}

peft_status pf_eval(const peft_eval_options *opt, pf_buf *json, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "evaluation");
    const char *adapter;
    pf_prepared p = {0};
    peft_status status = choose_adapter(opt, &adapter, &a, err);
    if (status == PEFT_OK) {
        const pf_prepare_options prepare = {.config_path = opt->run.config_path,
                                            .overrides = opt->run.overrides,
                                            .n_overrides = opt->run.n_overrides,
                                            .purpose = PF_RUN_EVAL,
                                            .with_data = true,
                                            .adapter = adapter};
        status = pf_prepare(&p, &prepare, err);
    }
    if (status == PEFT_OK) status = run(&p, opt, json, err);
    pf_prepared_release(&p);
    pf_arena_release(&a);
    return status;
}
