/* merge.c - what steers it: the checkpoint, the base (or the one that the adapter names), the
 * output's place and type.
 *
 * load base and adapter -> write the merged model under a temporary name -> open it -> compare it
 * with base and adapter on texts -> write the figures beside it -> rename. A .pt is written from a
 * merged folder that was verified so, and its numbers are read back. */
#include "recipes/merge.h"

#include "base/file.h"
#include "base/log.h"
#include "export/merged_model.h" /* gives: pf_merged_write */
#include "export/verify.h"       /* gives: pf_verify_models */
#include "models/model_open.h"
#include "recipes/loaded.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#define MAX_TEXTS 16
#define MAX_LOGIT                                                                                  \
    1e-3 /* of the largest logit: merging in f32 rounds, it does not change a model                \
          */

/* Texts for the comparison when a run has left none. */
static const char *const built_in[] = {
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "Q: What is the capital of France?\nA: Paris",
    "The quick brown fox jumps over the lazy dog, and 12 * 11 = 132.",
    "def add(a, b):\n    return a + b\n",
};

typedef struct merge_job {
    const peft_merge_options *opt;
    pf_loaded loaded;
    pf_verify_text texts[MAX_TEXTS];
    int n_texts;
    pf_verify_report report;
    bool narrower; /* written in a type with fewer bits than the base has */
} merge_job;

static peft_status add_text(merge_job *j, const char *text, peft_error *err) {
    if (j->n_texts == MAX_TEXTS) return PEFT_OK;
    pf_encoding e = {0};
    PF_TRY(
        pf_tokenizer_encode(j->loaded.tokenizer, text, strlen(text), PF_ENCODE_SPECIAL, &e, err));
    int32_t *ids = PF_NEW_ARRAY(&j->loaded.arena, int32_t, e.n + 1);
    int32_t n = 0;
    for (size_t i = 0; ids != NULL && i < e.n; i++) {
        if (e.ids[i] < j->loaded.model->vocab) ids[n++] = e.ids[i];
    }
    pf_encoding_release(&e);
    PF_CHECK_ALLOC(ids, err);
    if (n > 0) j->texts[j->n_texts++] = (pf_verify_text){ids, n};
    return PEFT_OK;
}

/* The prompts that the run was evaluated on stand in its folder: prompts.jsonl, beside the
 * checkpoints. */
static peft_status add_run_texts(merge_job *j, peft_error *err) {
    pf_arena *a = &j->loaded.arena;
    const char *beside = pf_path_join(a, j->opt->checkpoint, "prompts.jsonl");
    const char *dir = pf_path_dir(a, j->opt->checkpoint);
    const char *above = dir != NULL ? pf_path_join(a, dir, "prompts.jsonl") : NULL;
    if (beside == NULL || above == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    const char *path = pf_path_exists(beside) ? beside : pf_path_exists(above) ? above : NULL;
    if (path == NULL) return PEFT_OK;
    pf_buf text = {0};
    peft_status status = pf_read_file(&text, path, (size_t)1 << 20, err);
    pf_jsonl lines;
    pf_jsonl_init(&lines, pf_buf_str(&text), text.len, path);
    while (status == PEFT_OK && j->n_texts < MAX_TEXTS / 2) {
        json_t *v;
        status = pf_jsonl_next(&lines, &v, err);
        if (status != PEFT_OK || v == NULL) break;
        if (json_is_string(v)) status = add_text(j, json_string_value(v), err);
        json_decref(v);
    }
    pf_buf_free(&text);
    return status;
}

static peft_status choose_texts(merge_job *j, peft_error *err) {
    for (int i = 0; i < j->opt->n_prompts; i++) PF_TRY(add_text(j, j->opt->prompts[i], err));
    if (j->n_texts == 0) PF_TRY(add_run_texts(j, err));
    for (size_t i = 0; i < PF_COUNT(built_in); i++) PF_TRY(add_text(j, built_in[i], err));
    return PEFT_OK;
}

/* Called when the merged folder is complete and before it gets its name. */
static peft_status check_folder(void *ctx, const char *path, peft_error *err) {
    merge_job *j = ctx;
    pf_model *made;
    const pf_model_options options = {.ignore_left_over_weights = j->opt->ignore_left_over_weights};
    PF_TRY(pf_model_open(&made, path, &options, err));
    peft_status status;
    if (j->opt->unmerge) { /* the base with the adapter is the merged model again */
        pf_adapter *ad = NULL;
        status = pf_adapter_open(&ad, made, j->opt->checkpoint, false, err);
        if (status == PEFT_OK)
            status = pf_verify_models(made, j->loaded.model, j->loaded.backend, j->texts,
                                      j->n_texts, &j->report, err);
        pf_adapter_close(ad);
    } else {
        status = pf_verify_models(j->loaded.model, made, j->loaded.backend, j->texts, j->n_texts,
                                  &j->report, err);
    }
    pf_model_close(made);
    if (status != PEFT_OK) return status;
    const pf_verify_report *r = &j->report;
    /* a narrower type rounds every weight; that is the user's choice, and the figures are shown */
    if (!j->narrower && !(r->max_abs_logit <= MAX_LOGIT * (r->max_abs_value + 1))) {
        return PF_FAIL(err, PEFT_E_FAILED,
                       "the merged model differs from base + adapter: a logit by %.3g where the "
                       "largest is %.3g (KL %.3g, "
                       "token agreement %.2f%%). Nothing was kept",
                       r->max_abs_logit, r->max_abs_value, r->mean_kl, 100 * r->token_agreement);
    }
    char *report = pf_path_join(&j->loaded.arena, path, "merge_report.json");
    PF_CHECK_ALLOC(report, err);
    return pf_verify_write(r, report, err);
}

static peft_status run(merge_job *j, peft_merge_report *out, peft_error *err) {
    const peft_merge_options *opt = j->opt;
    const pf_load_options load = {.model = opt->base,
                                  .adapter = opt->checkpoint,
                                  .threads = opt->threads,
                                  .ignore_left_over_weights = opt->ignore_left_over_weights};
    PF_TRY(pf_load(&j->loaded, &load, err));
    const char *method, *why = pf_adapter_no_merge(j->loaded.adapter, &method);
    if (why != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: an adapter of method %s cannot be merged: %s. Use it beside its base "
                       "(generate --adapter, eval --adapter)",
                       opt->checkpoint, method, why);
    }
    if (opt->unmerge && (opt->base == NULL || opt->output == NULL))
        return PF_FAIL(err, PEFT_E_USAGE,
                       "unmerge: name the merged model (--model) and the folder of the base "
                       "(--output)");
    pf_merged_options mo = {
        .undo = opt->unmerge, .max_shard_bytes = opt->max_shard_bytes, .overwrite = opt->overwrite};
    mo.output = opt->output != NULL ? opt->output
                                    : pf_path_join(&j->loaded.arena, opt->checkpoint, "merged");
    PF_CHECK_ALLOC(mo.output, err);
    if (opt->dtype != NULL) {
        mo.dtype = pf_dtype_by_torch_name(opt->dtype);
        if (mo.dtype != PF_DTYPE_F32 && mo.dtype != PF_DTYPE_BF16 && mo.dtype != PF_DTYPE_F16) {
            return PF_FAIL(err, PEFT_E_USAGE,
                           "merge: --dtype is %s; it should be float32, bfloat16 or float16",
                           opt->dtype);
        }
    }
    const pf_dtype written = mo.dtype != PF_DTYPE_NONE ? mo.dtype : j->loaded.model->dtype;
    j->narrower = written != PF_DTYPE_F32;
    if (!opt->no_verify) PF_TRY(choose_texts(j, err));
    pf_merged_result result;
    PF_TRY(pf_merged_write(j->loaded.adapter, &mo, opt->no_verify ? NULL : check_folder, j, &result,
                           err));
    *out = (peft_merge_report){.n_tensors = result.n_tensors,
                               .n_changed = result.n_changed,
                               .untied = result.untied,
                               .verified = !opt->no_verify,
                               .max_abs_logit = j->report.max_abs_logit,
                               .mean_kl = j->report.mean_kl,
                               .token_agreement = j->report.token_agreement};
    snprintf(out->output, sizeof out->output, "%s", mo.output);
    return PEFT_OK;
}

peft_status pf_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err) {
    merge_job j = {.opt = opt};
    peft_status status = run(&j, out, err);
    pf_unload(&j.loaded);
    return status;
}
