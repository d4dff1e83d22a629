/* loaded.c - see loaded.h. */
#include "recipes/loaded.h"

#include "base/file.h"
#include "base/log.h"
#include "base/side_job.h"
#include "formats/hf_folder.h"
#include "models/model_open.h"
#include "nn/class_head.h"
#include "text/json.h"

#include <string.h>

peft_status pf_open_device(pf_backend **out, const char *device_map, int threads, peft_error *err) {
    *out = NULL;
    if (device_map != NULL && pf_starts_with(device_map, "cuda")) {
        return PF_FAIL(
            err, PEFT_E_DEVICE,
            "model.device_map is %s and this program has no CUDA backend; use auto or cpu",
            device_map);
    }
    return pf_backend_open_cpu(out, threads, err);
}

static void add_eos(pf_loaded *l, int64_t id) {
    if (id < 0 || id > INT32_MAX || l->n_eos == (int)PF_COUNT(l->eos)) return;
    for (int i = 0; i < l->n_eos; i++) {
        if (l->eos[i] == id) return;
    }
    l->eos[l->n_eos++] = (int32_t)id;
}

/* eos_token_id is a number or a list of numbers. */
static void add_eos_of(pf_loaded *l, const json_t *config) {
    const json_t *v = json_object_get(config, "eos_token_id");
    if (json_is_integer(v)) add_eos(l, json_integer_value(v));
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        if (json_is_integer(json_array_get(v, i)))
            add_eos(l, json_integer_value(json_array_get(v, i)));
    }
}

static peft_status find_eos(pf_loaded *l, peft_error *err) {
    const char *path = pf_path_join(&l->arena, l->model->path, "generation_config.json");
    PF_CHECK_ALLOC(path, err);
    if (pf_path_exists(path)) {
        json_t *config;
        PF_TRY(pf_json_load(&config, path, (size_t)1 << 20, err));
        add_eos_of(l, config);
        json_decref(config);
    }
    add_eos_of(l, l->model->config);
    if (l->tokenizer != NULL) add_eos(l, pf_tokenizer_special(l->tokenizer).eos);
    return PEFT_OK;
}

/* A file or folder as it is; any other name is one of the hub's, looked up in the local cache. */
static peft_status open_tokenizer(pf_tokenizer **out, const char *path, peft_error *err) {
    if (pf_path_exists(path)) return pf_tokenizer_open(out, path, err);
    pf_hf_folder folder;
    PF_TRY(pf_hf_folder_open(&folder, path, NULL, err));
    peft_status status = pf_tokenizer_open(out, folder.path, err);
    pf_hf_folder_close(&folder);
    return status;
}

/* A large vocabulary takes as long as everything else before the first step together. */
typedef struct pf_tokenizer_job {
    pf_side_job *job;
    const char *path;
    pf_tokenizer *tokenizer;
} pf_tokenizer_job;

static peft_status run_tokenizer_job(void *ctx, const pf_side_job *job, peft_error *err) {
    (void)job;
    pf_tokenizer_job *j = ctx;
    return open_tokenizer(&j->tokenizer, j->path, err);
}

static peft_status begin_tokenizer(pf_loaded *l, const char *path, peft_error *err) {
    l->opening = PF_NEW(&l->arena, pf_tokenizer_job);
    PF_CHECK_ALLOC(l->opening, err);
    l->opening->path = path;
    return pf_side_job_start(&l->opening->job, run_tokenizer_job, l->opening, 0, err);
}

static peft_status end_tokenizer(pf_loaded *l, peft_error *err) {
    pf_tokenizer_job *j = l->opening;
    if (j == NULL) return PEFT_OK;
    l->opening = NULL;
    peft_status status = j->job != NULL ? pf_side_job_wait(j->job, err) : PEFT_OK;
    l->tokenizer = j->tokenizer;
    pf_side_job_free(j->job);
    return status;
}

static bool has_tokenizer(const pf_hf_folder *f) {
    return f->tokenizer != NULL || f->tokenizer_model != NULL || f->vocab != NULL;
}

/* What the adapter was trained for, where it says so and nobody else does. */
static peft_status take_task(pf_model_options *mo, pf_adapter_task *own, pf_arena *a,
                             const char *adapter, peft_error *err) {
    if (adapter == NULL) return PEFT_OK;
    PF_TRY(pf_adapter_task_of(own, a, adapter, err));
    if (mo->task == PF_TASK_AUTO) mo->task = own->task;
    pf_class_options *c = &mo->classes;
    if (!pf_task_is_classes(mo->task) || mo->task != own->task) return PEFT_OK;
    c->brought = true;
    if (c->problem == PF_PROBLEM_AUTO) c->problem = own->problem;
    const bool said = c->n_labels > 0 || (c->labels != NULL && c->labels->n > 0);
    if (!said && own->labels.n > 0 && !pf_labels_are_default(&own->labels))
        c->labels = &own->labels;
    else if (!said)
        c->n_labels = own->n_labels;
    return PEFT_OK;
}

static peft_status load(pf_loaded *l, const pf_load_options *opt, peft_error *err) {
    const char *path = opt->model;
    if (path == NULL && opt->adapter != NULL) {
        PF_TRY(pf_adapter_base_of(&path, &l->arena, opt->adapter, err));
        if (path == NULL) {
            return PF_FAIL(err, PEFT_E_MISSING,
                           "%s: adapter_config.json names no base_model_name_or_path; give the "
                           "base with --model",
                           opt->adapter);
        }
    }
    if (path == NULL)
        return PF_FAIL(err, PEFT_E_CONFIG, "no model is named: give model.name_or_path or --model");
    if (opt->tokenizer_only)
        return open_tokenizer(&l->tokenizer, opt->tokenizer != NULL ? opt->tokenizer : path, err);
    /* a plan is made for this machine's CPU, whatever the device will be */
    PF_TRY(
        pf_open_device(&l->backend, opt->shapes_only ? NULL : opt->device_map, opt->threads, err));
    pf_model_options mo = {.ignore_left_over_weights = opt->ignore_left_over_weights,
                           .shapes_only = opt->shapes_only,
                           .task = opt->task,
                           .classes = opt->classes,
                           .dropout = opt->dropout};
    pf_adapter_task own;
    PF_TRY(take_task(&mo, &own, &l->arena, opt->adapter, err));
    if (opt->torch_dtype != NULL && !pf_streq(opt->torch_dtype, "auto")) {
        mo.dtype = pf_dtype_by_torch_name(opt->torch_dtype);
    }
    PF_TRY(pf_model_open(&l->model, path, &mo, err));
    const char *named =
        opt->tokenizer != NULL && !pf_streq(opt->tokenizer, path) ? opt->tokenizer : NULL;
    if (named != NULL || !opt->shapes_only || has_tokenizer(l->model->folder))
        PF_TRY(begin_tokenizer(l, named != NULL ? named : l->model->path, err));
    if (!opt->tokenizer_later) PF_TRY(pf_load_tokenizer(l, err));
    if (opt->adapter != NULL) {
        PF_TRY(pf_adapter_open(&l->adapter, l->model, opt->adapter, opt->train_adapter, err));
    }
    return PEFT_OK;
}

peft_status pf_load_tokenizer(pf_loaded *l, peft_error *err) {
    PF_TRY(end_tokenizer(l, err));
    return find_eos(l, err);
}

peft_status pf_load(pf_loaded *out, const pf_load_options *opt, peft_error *err) {
    memset(out, 0, sizeof *out);
    pf_arena_init(&out->arena, "loaded");
    peft_status status = load(out, opt, err);
    if (status != PEFT_OK) pf_unload(out);
    return status;
}

void pf_unload(pf_loaded *l) {
    if (l == NULL) return;
    (void)end_tokenizer(l, NULL);
    pf_adapter_close(l->adapter);
    pf_model_close(l->model);
    pf_tokenizer_close(l->tokenizer);
    pf_backend_close(l->backend);
    pf_arena_release(&l->arena);
    memset(l, 0, sizeof *l);
}
