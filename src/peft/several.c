/* several.c - see several.h. */
#include "peft/several.h"

#include "base/file.h"
#include "peft/adapter_file.h"
#include "text/json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- adapters.json --------------------------------------------------------------------------- */

/* A part's folder is a child of this one: a plain name. */
static bool is_plain(const char *name) {
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static peft_status read_list(const char **out, int *n, pf_arena *a, const json_t *object,
                             const char *where, const char *key, bool plain, peft_error *err) {
    const json_t *list = json_object_get(object, key);
    if (list == NULL) return PEFT_OK;
    if (!json_is_array(list) || json_array_size(list) > PF_SEVERAL_MOST)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s should be a list of at most %d names", where,
                       key, PF_SEVERAL_MOST);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL || name[0] == '\0' || (plain && !is_plain(name)))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s[%zu] should be the name of %s", where, key,
                           i, plain ? "a folder beside it" : "an adapter's folder");
        out[*n] = pf_arena_strdup(a, name);
        PF_CHECK_ALLOC(out[*n], err);
        ++*n;
    }
    return PEFT_OK;
}

peft_status pf_several_read(pf_several_list *out, pf_arena *a, const char *dir, peft_error *err) {
    *out = (pf_several_list){0};
    const char *where = pf_path_join(a, dir, PF_SEVERAL_FILE);
    PF_CHECK_ALLOC(where, err);
    if (!pf_path_exists(where)) return PEFT_OK;
    json_t *c;
    PF_TRY(pf_json_load(&c, where, (size_t)1 << 20, err));
    peft_status status = PEFT_OK;
    if (!json_is_object(c))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    if (status == PEFT_OK)
        status = read_list(out->parts, &out->n_parts, a, c, where, "parts", true, err);
    if (status == PEFT_OK)
        status = read_list(out->below, &out->n_below, a, c, where, "on_top_of", false, err);
    json_decref(c);
    return status;
}

static bool add_names(json_t *object, const char *key, const char *const *names, int n) {
    if (n == 0) return true;
    json_t *list = json_array();
    for (int i = 0; i < n && list != NULL; i++) {
        if (json_array_append_new(list, json_string(names[i])) != 0) {
            json_decref(list);
            return false;
        }
    }
    return list != NULL && json_object_set_new(object, key, list) == 0;
}

peft_status pf_several_write(const pf_adapter *ad, const char *dir, peft_error *err) {
    const int n_parts = pf_adapterhub_is_union(ad) ? 0 : ad->n_parts;
    if (n_parts == 0 && ad->below == NULL) return PEFT_OK;
    const char *parts[PF_SEVERAL_MOST], *below[PF_SEVERAL_MOST];
    int n_below = 0;
    pf_arena a;
    pf_arena_init(&a, "adapters");
    for (int i = 0; i < n_parts; i++) parts[i] = ad->parts[i]->method->name;
    for (const pf_adapter *b = ad->below; b != NULL && n_below < PF_SEVERAL_MOST; b = b->next) {
        char whole[PATH_MAX]; /* the folder may be read from anywhere */
        below[n_below++] = realpath(b->path, whole) != NULL ? pf_arena_strdup(&a, whole) : b->path;
    }
    json_t *c = json_object();
    const char *path = pf_path_join(&a, dir, PF_SEVERAL_FILE);
    peft_status status = PEFT_OK;
    if (c == NULL || path == NULL || !add_names(c, "parts", parts, n_parts) ||
        !add_names(c, "on_top_of", below, n_below))
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_json_write(path, c, 0, err);
    json_decref(c);
    pf_arena_release(&a);
    return status;
}

/* ---- opening --------------------------------------------------------------------------------- */

enum { MOST_DEEP = 8 };

/* All parts are attached before the first one's tensors are read: their numbers share a block. */
peft_status pf_several_open_parts(pf_adapter **out, pf_model *model, const pf_several_list *list,
                                  const char *dir, pf_arena *a, bool with_training,
                                  peft_error *err) {
    const pf_peft_cfg cfg = {.method = pf_method_several.name, .given = true};
    PF_TRY(pf_adapter_attach_loaded(out, model, &cfg, err));
    pf_adapter *ad = *out;
    const char *dirs[PF_SEVERAL_MOST];
    for (int i = 0; i < list->n_parts; i++) {
        pf_adapter *part = NULL;
        dirs[i] = pf_path_join(a, dir, list->parts[i]);
        PF_CHECK_ALLOC(dirs[i], err);
        peft_status status = pf_adapter_attach_folder(&part, model, dirs[i], a, err);
        if (status != PEFT_OK) {
            pf_adapter_close(part);
            return status;
        }
        PF_TRY(pf_several_add(ad, part, err));
    }
    ad->total_params = model->n_params + ad->extra_params;
    ad->base_name = ad->parts[0]->base_name;
    for (int i = 0; i < list->n_parts; i++)
        PF_TRY(pf_adapter_load_weights(ad->parts[i], a, dirs[i], with_training, err));
    return PEFT_OK;
}

/* A path that does not begin at the root begins at the folder that names it, if it is there. */
peft_status pf_several_open_below(pf_adapter **chain, pf_model *model, const pf_several_list *list,
                                  const char *dir, pf_arena *a, int depth, peft_error *err) {
    if (list->n_below > 0 && depth >= MOST_DEEP)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: more than %d adapters stand on each other", dir,
                       MOST_DEEP);
    for (int i = 0; i < list->n_below; i++) {
        const char *beside = pf_path_join(a, dir, list->below[i]);
        PF_CHECK_ALLOC(beside, err);
        const bool here = list->below[i][0] != '/' && pf_path_exists(beside);
        pf_adapter *below;
        peft_status status = pf_adapter_open_at(&below, model, here ? beside : list->below[i],
                                                false, depth + 1, err);
        if (status != PEFT_OK)
            return pf_fail_prefix(err, status, "%s stands on another adapter", dir);
        pf_adapter **end = chain;
        while (*end != NULL) end = &(*end)->next;
        *end = below;
    }
    return PEFT_OK;
}

/* ---- parts ----------------------------------------------------------------------------------- */

peft_status pf_several_add(pf_adapter *ad, pf_adapter *part, peft_error *err) {
    peft_status status = PEFT_OK;
    if (pf_method_saves_model(part->method))
        status = PF_FAIL(err, PEFT_E_UNSUPPORTED,
                         "peft.method %s writes a model's own weights and no adapter; it cannot "
                         "train beside other methods",
                         part->method->name);
    for (int i = 0; i < ad->n_parts; i++) {
        if (ad->parts[i]->method == part->method)
            status = PF_FAIL(err, PEFT_E_UNSUPPORTED, "there are two parts of method %s",
                             part->method->name);
    }
    if (ad->n_parts == PF_SEVERAL_MOST)
        status = PF_FAIL(err, PEFT_E_UNSUPPORTED, "there are more than %d parts", PF_SEVERAL_MOST);
    if (status == PEFT_OK) status = pf_params_adopt(&ad->params, &part->params, err);
    if (status != PEFT_OK) {
        pf_adapter_close(part);
        return status;
    }
    part->whole = ad;
    ad->parts[ad->n_parts++] = part;
    ad->extra_params += part->extra_params;
    if (ad->rank == 0) ad->rank = part->rank;
    if (part->dropout > ad->dropout) ad->dropout = part->dropout;
    return PEFT_OK;
}

static peft_status attach_part(pf_adapter *ad, const char *method, const void *cfg,
                               peft_error *err) {
    const pf_peft_cfg one = {.method = method, .method_cfg = cfg, .given = true};
    pf_adapter *part;
    PF_TRY(pf_adapter_attach_part(&part, ad->model, &one, ad->strict, err));
    return pf_several_add(ad, part, err);
}

/* From a configuration; from a folder, whoever reads it adds the parts. */
static peft_status attach(pf_adapter *ad, peft_error *err) {
    const pf_peft_cfg *cfg = &ad->cfg;
    if (cfg->also.list.n == 0) return PEFT_OK;
    PF_TRY(attach_part(ad, cfg->method, cfg->method_cfg, err));
    for (int i = 0; i < cfg->also.list.n; i++)
        PF_TRY(attach_part(ad, cfg->also.list.items[i], cfg->also_cfg[i], err));
    return PEFT_OK;
}

static peft_status init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++)
        PF_TRY(ad->parts[i]->method->init(ad->parts[i], seed, err));
    return PEFT_OK;
}

static void ready(pf_adapter *ad) {
    for (int i = 0; i < ad->n_parts; i++) {
        if (ad->parts[i]->method->ready != NULL) ad->parts[i]->method->ready(ad->parts[i]);
    }
}

static bool touches(const pf_adapter *ad, const pf_site *site) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->touches != NULL && m->touches(ad->parts[i], site)) return true;
    }
    return false;
}

/* In the order in which they act. */
static peft_status merge_weight(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                                float *rows, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->touches == NULL || m->merge_weight == NULL || !m->touches(ad->parts[i], site))
            continue;
        PF_TRY(m->merge_weight(ad->parts[i], site, row0, n, rows, err));
    }
    return PEFT_OK;
}

static bool touches_bias(const pf_adapter *ad, const pf_site *site) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->touches_bias != NULL && m->touches_bias(ad->parts[i], site)) return true;
    }
    return false;
}

static void merge_bias(const pf_adapter *ad, const pf_site *site, float *bias) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->touches_bias != NULL && m->touches_bias(ad->parts[i], site))
            m->merge_bias(ad->parts[i], site, bias);
    }
}

static bool has_dropout(const pf_adapter *ad) {
    for (int i = 0; i < ad->n_parts; i++) {
        if (pf_adapter_has_dropout(ad->parts[i])) return true;
    }
    return false;
}

static peft_status after_backward(pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->after_backward != NULL) PF_TRY(m->after_backward(ad->parts[i], err));
    }
    return PEFT_OK;
}

static peft_status after_step(pf_adapter *ad, const pf_step_done *done, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->after_step != NULL) PF_TRY(m->after_step(ad->parts[i], done, err));
    }
    return PEFT_OK;
}

/* Of a union's file. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    for (int i = 0; i < ad->n_parts; i++) {
        const pf_method *m = ad->parts[i]->method;
        if (m->repeats != NULL && m->repeats(ad->parts[i], tensor)) return true;
    }
    return false;
}

const pf_method pf_method_several = {
    .name = "several",
    .help = "methods that train side by side",
    .paper = "a union of methods",
    .peft_type = "several",
    .weight_file = "adapter.safetensors", /* where they are saved as one: AdapterHub's union */
    .repeats = repeats,
    .write_config = pf_adapterhub_write_union,
    .attach = attach,
    .init = init,
    .ready = ready,
    .touches = touches,
    .merge_weight = merge_weight,
    .touches_bias = touches_bias,
    .merge_bias = merge_bias,
    .has_dropout = has_dropout,
    .after_backward = after_backward,
    .after_step = after_step,
};
