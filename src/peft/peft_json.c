/* peft_json.c - lists, maps and target rules from and to adapter_config.json; see peft_json.h.
 *
 * peft writes sets as lists in any order, one text where a regular expression is meant, and null
 * for what was not given. */
#include "peft/peft_json.h"

#include "base/buf.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

static peft_status fail_type(const char *where, const char *key, const json_t *v,
                             const char *wanted, peft_error *err) {
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %s; it should be %s", where, key, pf_json_kind(v),
                   wanted);
}

peft_status pf_peft_get_strings(pf_arena *a, const json_t *c, const char *where, const char *key,
                                pf_cfg_strings *out, peft_error *err) {
    const json_t *v = json_object_get(c, key), *item;
    size_t i;
    *out = (pf_cfg_strings){.single = json_is_string(v)};
    if (v == NULL || json_is_null(v)) return PEFT_OK;
    if (json_is_string(v)) {
        const char *s;
        PF_TRY(pf_json_get_str(c, where, key, &s, err));
        return pf_strlist_add(&out->list, a, s, err);
    }
    if (!json_is_array(v)) return fail_type(where, key, v, "a list of names or one text", err);
    json_array_foreach(v, i, item) {
        const char *s = json_string_value(item);
        if (s == NULL || strlen(s) != json_string_length(item))
            return fail_type(where, key, item, "a list of names", err);
        PF_TRY(pf_strlist_add(&out->list, a, s, err));
    }
    return PEFT_OK;
}

peft_status pf_peft_get_ints(pf_arena *a, const json_t *c, const char *where, const char *key,
                             pf_cfg_ints *out, peft_error *err) {
    const json_t *v = json_object_get(c, key);
    *out = (pf_cfg_ints){0};
    if (v == NULL || json_is_null(v)) return PEFT_OK;
    const bool one = json_is_integer(v);
    if (!one && !json_is_array(v)) return fail_type(where, key, v, "a list of numbers", err);
    const size_t n = one ? 1 : json_array_size(v);
    out->items = PF_NEW_ARRAY(a, int64_t, n);
    PF_CHECK_ALLOC(out->items, err);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = one ? v : json_array_get(v, i);
        if (!json_is_integer(item)) return fail_type(where, key, item, "a list of numbers", err);
        out->items[out->n++] = json_integer_value(item);
    }
    return PEFT_OK;
}

peft_status pf_peft_get_map(pf_arena *a, const json_t *c, const char *where, const char *key,
                            pf_cfg_map *out, peft_error *err) {
    const json_t *obj;
    const char *name;
    json_t *v;
    *out = (pf_cfg_map){0};
    PF_TRY(pf_json_opt_object(c, where, key, &obj, err));
    if (obj == NULL) return PEFT_OK;
    out->items = PF_NEW_ARRAY(a, pf_cfg_pair, json_object_size(obj));
    PF_CHECK_ALLOC(out->items, err);
    json_object_foreach((json_t *)obj, name, v) {
        if (!json_is_number(v)) return fail_type(where, key, v, "names with a number each", err);
        pf_cfg_pair *p = &out->items[out->n++];
        p->key = pf_arena_strdup(a, name);
        PF_CHECK_ALLOC(p->key, err);
        p->number = json_number_value(v);
        p->is_number = true;
    }
    return PEFT_OK;
}

peft_status pf_peft_get_text(pf_arena *a, const json_t *c, const char *where, const char *key,
                             const char *def, const char **out, peft_error *err) {
    PF_TRY(pf_json_opt_str(c, where, key, def, out, err));
    if (*out == NULL || *out == def) return PEFT_OK;
    *out = pf_arena_strdup(a, *out);
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

peft_status pf_peft_get_word(const json_t *c, const char *where, const char *key,
                             const char *const *choices, const char *def, const char **out,
                             peft_error *err) {
    const char *word;
    pf_buf list = {0};
    PF_TRY(pf_json_opt_str(c, where, key, def, &word, err));
    for (int i = 0; choices[i] != NULL; i++) {
        *out = choices[i];
        if (pf_streq(word, choices[i])) return PEFT_OK;
    }
    for (int i = 0; choices[i] != NULL; i++) {
        pf_buf_addf(&list, "%s%s",
                    i == 0                   ? ""
                    : choices[i + 1] == NULL ? " or "
                                             : ", ",
                    choices[i]);
    }
    peft_status status = PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is '%s'; it should be %s", where, key,
                                 word, pf_buf_str(&list));
    pf_buf_free(&list);
    return status;
}

peft_status pf_targets_from_json(pf_arena *a, const json_t *c, const char *where,
                                 pf_target_rules *out, peft_error *err) {
    PF_TRY(pf_peft_get_strings(a, c, where, "target_modules", &out->target_modules, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "exclude_modules", &out->exclude_modules, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "layers_pattern", &out->layers_pattern, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "modules_to_save", &out->modules_to_save, err));
    PF_TRY(pf_peft_get_ints(a, c, where, "layers_to_transform", &out->layers_to_transform, err));
    PF_TRY(pf_peft_get_map(a, c, where, "rank_pattern", &out->rank_pattern, err));
    return pf_peft_get_map(a, c, where, "alpha_pattern", &out->alpha_pattern, err);
}

/* ---- writing --------------------------------------------------------------------------------- */

json_t *pf_peft_number(double v) {
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

json_t *pf_peft_strings(const pf_cfg_strings *l) {
    if (l->single && l->list.n == 1) return json_string(l->list.items[0]);
    json_t *a = json_array();
    for (int i = 0; i < l->list.n; i++) json_array_append_new(a, json_string(l->list.items[i]));
    return a;
}

json_t *pf_peft_map(const pf_cfg_map *m) {
    json_t *o = json_object();
    for (int i = 0; i < m->n; i++)
        json_object_set_new(o, m->items[i].key, pf_peft_number(m->items[i].number));
    return o;
}

static json_t *ints(const pf_cfg_ints *l) {
    json_t *a = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(a, json_integer(l->items[i]));
    return a;
}

static int put_strings(json_t *c, const char *key, const pf_strlist *list, bool single) {
    const pf_cfg_strings l = {*list, single};
    return list->n == 0 ? 0 : json_object_set_new(c, key, pf_peft_strings(&l));
}

peft_status pf_targets_to_json(const pf_adapter *ad, const pf_target_rules *r, json_t *c,
                               peft_error *err) {
    pf_arena scratch;
    pf_strlist targets;
    bool single;
    int bad = 0;
    pf_arena_init(&scratch, "scratch");
    peft_status status = pf_target_names(ad, r, &scratch, &targets, &single, err);
    if (status == PEFT_OK) bad |= put_strings(c, "target_modules", &targets, single);
    pf_arena_release(&scratch);
    PF_TRY(status);
    bad |= put_strings(c, "exclude_modules", &r->exclude_modules.list, r->exclude_modules.single);
    bad |= put_strings(c, "modules_to_save", &r->modules_to_save.list, false);
    bad |= put_strings(c, "layers_pattern", &r->layers_pattern.list, false);
    if (r->layers_to_transform.n > 0)
        bad |= json_object_set_new(c, "layers_to_transform", ints(&r->layers_to_transform));
    if (r->rank_pattern.n > 0)
        bad |= json_object_set_new(c, "rank_pattern", pf_peft_map(&r->rank_pattern));
    if (r->alpha_pattern.n > 0)
        bad |= json_object_set_new(c, "alpha_pattern", pf_peft_map(&r->alpha_pattern));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

peft_status pf_targets_to_json_by_path(const pf_adapter *ad, const pf_target_rules *rules,
                                       bool (*acts)(const pf_adapter *ad, const pf_site *site),
                                       json_t *c, peft_error *err) {
    pf_target_rules r = *rules;
    r.layers_to_transform = (pf_cfg_ints){0};
    r.layers_pattern = (pf_cfg_strings){0};
    PF_TRY(pf_targets_to_json(ad, &r, c, err));
    if (rules->layers_to_transform.n == 0) return PEFT_OK;
    json_t *paths = json_array();
    int bad = paths == NULL;
    for (int i = 0; i < ad->model->n_sites && bad == 0; i++) {
        const pf_site *site = ad->model->sites[i];
        if (acts(ad, site)) bad |= json_array_append_new(paths, json_string(site->name));
    }
    bad |= json_object_set_new(c, "target_modules", paths);
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
