/* adapterhub_union.c - several methods in one AdapterHub folder (ConfigUnion: Mix-and-Match and
 * what else is put together): one adapter.safetensors, and of every method its `config` in a list,
 *
 *   {"config": {"architecture": "union", "configs": [{...}, {...}]}, "name": ..., ...}
 *
 * Here it is an adapter with parts (several.h). One that has AdapterHub's methods alone, under one
 * name, is saved so; others have a folder for every part. */
#include "peft/adapter_file.h"
#include "peft/several.h"

#include "text/json.h"

#include <string.h>

/* A part's `config` and name, as its folder would have them. NULL: no memory. */
static json_t *describe(const pf_adapter *part, peft_error *err) {
    json_t *file = json_object();
    if (file == NULL || json_object_set_new(file, "config", json_object()) != 0 ||
        part->method->write_config(part, file, err) != PEFT_OK) {
        json_decref(file);
        return NULL;
    }
    return file;
}

bool pf_adapterhub_is_union(const pf_adapter *ad) {
    bool same = ad->n_parts > 1 && !pf_task_is_classes(ad->model->task);
    char name[256] = "";
    for (int i = 0; i < ad->n_parts && same; i++) {
        const pf_method *m = ad->parts[i]->method;
        same = m->is_adapterhub != NULL && m->config_file == NULL;
        json_t *file = same ? describe(ad->parts[i], NULL) : NULL;
        const char *own = json_string_value(json_object_get(file, "name"));
        same = own != NULL && strlen(own) < sizeof name && (i == 0 || pf_streq(own, name));
        if (same) memcpy(name, own, strlen(own) + 1);
        json_decref(file);
    }
    return same;
}

peft_status pf_adapterhub_write_union(const pf_adapter *ad, json_t *file, peft_error *err) {
    json_t *c = json_object_get(file, "config"), *list = json_array();
    int bad = json_object_set_new(c, "architecture", json_string("union"));
    bad |= json_object_set_new(c, "configs", list);
    for (int i = 0; i < ad->n_parts && bad == 0; i++) {
        json_t *part = describe(ad->parts[i], err);
        bad |= json_array_append(list, json_object_get(part, "config"));
        bad |= json_object_set(file, "name", json_object_get(part, "name"));
        json_decref(part);
    }
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

static peft_status add_part(pf_adapter *ad, pf_model *model, const json_t *file, json_t *config,
                            const char *where, pf_arena *a, peft_error *err) {
    const pf_method *method;
    pf_peft_cfg cfg = {.given = true};
    pf_adapter *part;
    PF_TRY(pf_adapterhub_method(config, where, &method, err));
    json_t *one = json_copy((json_t *)(uintptr_t)file);
    if (one == NULL || json_object_set(one, "config", config) != 0) {
        json_decref(one);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    peft_status status = method->read_config(a, one, where, &cfg.method_cfg, err);
    json_decref(one);
    if (status != PEFT_OK) return status;
    cfg.method = method->name;
    status = pf_adapter_attach_loaded(&part, model, &cfg, err);
    if (status != PEFT_OK) return pf_fail_prefix(err, status, "%s", where);
    return pf_several_add(ad, part, err);
}

peft_status pf_adapterhub_open_union(pf_adapter **out, pf_model *model, const json_t *file,
                                     const char *where, pf_arena *a, peft_error *err) {
    const json_t *list, *config = json_object_get(file, "config");
    const pf_peft_cfg cfg = {.method = pf_method_several.name, .given = true};
    json_t *one;
    size_t i;
    PF_TRY(pf_json_get_array(config, where, "configs", &list, err));
    if (json_array_size(list) < 1 || json_array_size(list) > PF_SEVERAL_MOST) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: configs should be a list of 1 to %d methods", where,
                       PF_SEVERAL_MOST);
    }
    PF_TRY(pf_adapter_attach_loaded(out, model, &cfg, err));
    json_array_foreach(list, i, one) {
        if (!json_is_object(one) ||
            pf_streq(json_string_value(json_object_get(one, "architecture")), "union"))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: configs[%zu] should describe one method", where,
                           i);
        PF_TRY(add_part(*out, model, file, one, where, a, err));
    }
    (*out)->total_params = model->n_params + (*out)->extra_params;
    return PEFT_OK;
}
