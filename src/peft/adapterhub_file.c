/* adapterhub_file.c - the folder of AdapterHub's `adapters` (Poth et al. 2023, arXiv 2311.11077):
 * adapter_config.json and adapter.safetensors, and of models that tell classes apart
 * head_config.json and model_head.safetensors.
 *
 *   {"config": {...}, "hidden_size", "model_class", "model_name", "model_type", "name", "version"}
 *
 * `config` is what the methods read and write; the rest is the same for all. The name stands in the
 * key of every tensor. Written for version 1.3, which loads it with use_safetensors=True; its
 * default file, pytorch_adapter.bin, is a pickle and is answered with how to turn it. */
#include "peft/adapter_file.h"

#include "base/file.h"
#include "peft/several.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#define VERSION "adapters.1.3.0"

bool pf_adapterhub_is(const json_t *c) {
    const json_t *config = json_object_get(c, "config");
    if (json_object_get(c, "peft_type") != NULL) return false;
    return json_is_object(config) || json_is_string(config) ||
           json_object_get(c, "config_id") != NULL;
}

peft_status pf_adapterhub_method(const json_t *config, const char *where, const pf_method **out,
                                 peft_error *err) {
    const char *architecture;
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        *out = pf_method_table[i];
        if ((*out)->is_adapterhub != NULL && (*out)->is_adapterhub(config)) return PEFT_OK;
    }
    PF_TRY(pf_json_opt_str(config, where, "architecture", "bottleneck", &architecture, err));
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: an adapter of AdapterHub of architecture %s is not read; bottleneck "
                   "adapters, lora, prefix_tuning, reft and AdapterFusion are",
                   where, architecture);
}

/* A pickle is answered with how to turn it. */
static peft_status check_weight_file(pf_arena *a, const char *dir, const pf_method *method,
                                     peft_error *err) {
    const char *name = pf_method_weight_file(method),
               *old = pf_streq(name, "adapter.safetensors") ? "pytorch_adapter.bin"
                                                            : "pytorch_model_adapter_fusion.bin";
    const char *path = pf_path_join(a, dir, name), *pickle = pf_path_join(a, dir, old);
    PF_CHECK_ALLOC(path, err);
    PF_CHECK_ALLOC(pickle, err);
    if (pf_path_exists(path)) return PEFT_OK;
    if (pf_path_exists(pickle)) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is a pickle, which can run code and is not read here. Convert it once "
                       "where torch is: "
                       "python -c \"import torch, safetensors.torch as s; "
                       "s.save_file({k: v.clone() for k, v in torch.load('%s', "
                       "weights_only=True).items()}, '%s')\"",
                       pickle, old, name);
    }
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s: there is no such file, but an %s of AdapterHub beside it", path,
                   pf_method_config_file(method));
}

/* The file says the width of its base: better here than in a list of tensors. */
static peft_status check_base(const pf_model *m, const json_t *c, const char *where,
                              peft_error *err) {
    int64_t hidden;
    PF_TRY(pf_json_opt_int(c, where, "hidden_size", m->hidden, 1, INT32_MAX, &hidden, err));
    if (hidden == m->hidden) return PEFT_OK;
    return PF_FAIL(
        err, PEFT_E_SHAPE,
        "%s: the adapter was made for a base of hidden size %lld, '%s' has %lld. Use the "
        "base that the adapter was trained on (model.name_or_path)",
        where, (long long)hidden, m->name, (long long)m->hidden);
}

static peft_status open_new(pf_adapter **out, pf_model *model, const char *dir, const json_t *c,
                            const char *where, pf_arena *a, peft_error *err) {
    const json_t *config = json_object_get(c, "config");
    const bool is_union =
        pf_streq(json_string_value(json_object_get(config, "architecture")), "union");
    const pf_method *method = &pf_method_several;
    const char *base;
    pf_peft_cfg cfg = {.given = true};
    if (!is_union) PF_TRY(pf_adapterhub_method(config, where, &method, err));
    PF_TRY(check_base(model, c, where, err));
    PF_TRY(check_weight_file(a, dir, method, err));
    PF_TRY(pf_json_opt_str(c, where, "model_name", NULL, &base, err));
    if (is_union) {
        PF_TRY(pf_adapterhub_open_union(out, model, c, where, a, err));
    } else {
        PF_TRY(method->read_config(a, c, where, &cfg.method_cfg, err));
        cfg.method = method->name;
        peft_status status = pf_adapter_attach_loaded(out, model, &cfg, err);
        if (status != PEFT_OK) return pf_fail_prefix(err, status, "%s", where);
    }
    if (base == NULL) return PEFT_OK;
    (*out)->base_name = pf_arena_strdup(&(*out)->arena, base);
    PF_CHECK_ALLOC((*out)->base_name, err);
    return PEFT_OK;
}

peft_status pf_adapterhub_open(pf_adapter **out, pf_model *model, const char *dir, const json_t *c,
                               const char *where, pf_arena *a, peft_error *err) {
    const char *tensors = pf_path_join(a, dir, "adapter.safetensors");
    PF_CHECK_ALLOC(tensors, err);
    json_t *now = json_deep_copy(c);
    PF_CHECK_ALLOC(now, err);
    peft_status status = pf_adapterhub_renew(now, where, tensors, err);
    if (status == PEFT_OK) status = open_new(out, model, dir, now, where, a, err);
    json_decref(now);
    return status;
}

int pf_adapterhub_add_base(const pf_adapter *ad, json_t *c) {
    const pf_model *m = ad->model;
    const char *type = json_string_value(json_object_get(m->config, "model_type"));
    char name[160];
    pf_task unused;
    snprintf(name, sizeof name, "%s", m->architecture);
    if (pf_task_is_classes(m->task))
        snprintf(name, sizeof name, "%.*s%s", (int)pf_task_split(m->architecture, &unused),
                 m->architecture, pf_task_suffix(m->task));
    int bad = json_object_set_new(c, "hidden_size", json_integer(m->hidden));
    bad |= json_object_set_new(c, "model_class", json_string(name));
    bad |= json_object_set_new(c, "model_name",
                               ad->base_name == NULL ? json_null() : json_string(ad->base_name));
    bad |= json_object_set_new(c, "model_type", type == NULL ? json_null() : json_string(type));
    return bad | json_object_set_new(c, "version", json_string(VERSION));
}

peft_status pf_adapterhub_write_config(const pf_adapter *ad, json_t *c, peft_error *err) {
    int bad = json_object_set_new(c, "config", json_object());
    bad |= pf_adapterhub_add_base(ad, c);
    if (bad == 0) PF_TRY(ad->method->write_config(ad, c, err)); /* name, and keys of config */
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
