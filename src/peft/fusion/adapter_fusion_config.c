/* adapter_fusion_config.c - the section peft.adapter_fusion, and AdapterHub's
 * adapter_fusion_config.json (adapters 1.3, AdapterFusionConfig):
 *
 *   {"adapter_names": ["a", "b"], "config": {query, key, value, ...}, "name": "a,b", ...}
 *
 * An adapter "a" is looked for in the folder itself (<dir>/a, as it is written here), then beside
 * it
 * (<dir>/../a, as AdapterHub's save_adapter_setup has it). */
#include "peft/fusion/adapter_fusion.h"

#include "base/file.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <string.h>

#define KEY "peft.adapter_fusion"

// clang-format off
const pf_cfg_row pf_adapter_fusion_rows[] = {
    PF_CFG_STRLIST(pf_adapter_fusion_cfg, adapters, NULL, "folders of the trained bottleneck adapters, two or more; they stay as they are"),
    PF_CFG_STRLIST(pf_adapter_fusion_cfg, adapter_names, NULL, "names for them, where those in their files are not wanted or the same"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, query, true, "a trained matrix for what the adapters read"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, key, true, "a trained matrix for what they add, as far as scores go"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, value, true, "a trained matrix for what they add (AdapterHub's dynamic fusion; static: false)"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, query_before_ln, false, "the query reads the branch alone, before the stream is added"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, regularization, true, "value matrices are drawn back to the identity"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, residual_before, false, "the residual is added to what every adapter adds, not to their mixture"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, value_before_softmax, true, "the value matrix acts on what every adapter adds, else on their mixture"),
    PF_CFG_BOOL(pf_adapter_fusion_cfg, value_initialized, true, "value matrices begin as the identity"),
    PF_CFG_FLOAT(pf_adapter_fusion_cfg, dropout_prob, 0, 0, 1, "share of the scores dropped, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_END};
// clang-format on

void pf_adapter_fusion_check_config(pf_cfg *c, const void *section) {
    const pf_adapter_fusion_cfg *f = section;
    if (f->adapters.list.n < 2)
        pf_cfg_complain(c, KEY ".adapters",
                        "should name the folders of two trained adapters or more");
    if (!f->query && !f->key && !f->value)
        pf_cfg_complain(c, KEY ".query", "key and value are all false: there is nothing to train");
}

/* ---- files ----------------------------------------------------------------------------------- */

bool pf_adapter_fusion_is_config(const json_t *c) {
    return json_is_boolean(json_object_get(c, "query_before_ln"));
}

static bool is_true(const json_t *c, const char *key) {
    const json_t *v = json_object_get(c, key);
    return json_is_true(v) || pf_streq(json_string_value(v), "True") ||
           pf_streq(json_string_value(v), "true");
}

static peft_status read_keys(const json_t *c, const char *where, pf_adapter_fusion_cfg *f,
                             peft_error *err) {
    const struct {
        const char *key;
        bool def, *at;
    } flags[] = {
        {"query", true, &f->query},
        {"key", true, &f->key},
        {"value", true, &f->value},
        {"query_before_ln", false, &f->query_before_ln},
        {"regularization", true, &f->regularization},
        {"residual_before", false, &f->residual_before},
        {"value_before_softmax", true, &f->value_before_softmax},
    };
    for (size_t i = 0; i < PF_COUNT(flags); i++)
        PF_TRY(pf_json_opt_bool(c, where, flags[i].key, flags[i].def, flags[i].at, err));
    f->value_initialized = is_true(c, "value_initialized"); /* typed as text there */
    PF_TRY(pf_json_opt_real(c, where, "dropout_prob", 0, &f->dropout_prob, err));
    if (is_true(c, "temperature")) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: temperature is true: AdapterHub counts it down while it trains and saves "
            "it nowhere; fusions without it are read",
            where);
    }
    if (!f->query && !f->key && !f->value) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: query, key and value are all false: nothing in it is trained", where);
    }
    if (f->dropout_prob >= 0 && f->dropout_prob < 1) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: dropout_prob should be at least 0 and below 1", where);
}

static peft_status find_adapter(pf_arena *a, const char *dir, const char *name, const char **out,
                                peft_error *err) {
    const char *inside = pf_path_join(a, dir, name),
               *beside = pf_path_join(a, pf_path_dir(a, dir), name);
    PF_CHECK_ALLOC(inside, err);
    PF_CHECK_ALLOC(beside, err);
    if (name[0] == 0 || name[0] == '.' || strchr(name, '/') != NULL)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: '%s' is no name of an adapter", dir, name);
    *out = pf_path_exists(inside) ? inside : beside;
    if (pf_path_exists(*out)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s is a fusion over the adapter '%s', which is not here; put its folder at %s",
                   dir, name, inside);
}

static peft_status read_adapters(pf_arena *a, const json_t *file, const char *where,
                                 pf_adapter_fusion_cfg *f, peft_error *err) {
    const char *dir = pf_path_dir(a, where), *name;
    PF_CHECK_ALLOC(dir, err);
    PF_TRY(pf_peft_get_strings(a, file, where, "adapter_names", &f->adapter_names, err));
    pf_strlist *names = &f->adapter_names.list, *paths = &f->adapters.list;
    if (names->n == 0) { /* of earlier versions: the name is all there is */
        PF_TRY(pf_json_get_str(file, where, "name", &name, err));
        for (const char *at = name; at != NULL; at = strchr(at, ',')) {
            at += *at == ',';
            const char *one = pf_arena_printf(a, "%.*s", (int)strcspn(at, ","), at);
            PF_CHECK_ALLOC(one, err);
            PF_TRY(pf_strlist_add(names, a, one, err));
        }
    }
    paths->items = PF_NEW_ARRAY(a, const char *, names->n);
    PF_CHECK_ALLOC(paths->items, err);
    for (; paths->n < names->n; paths->n++) {
        PF_TRY(find_adapter(a, dir, names->items[paths->n], &paths->items[paths->n], err));
    }
    return PEFT_OK;
}

peft_status pf_adapter_fusion_read_config(pf_arena *a, const json_t *file, const char *where,
                                          const void **method_cfg, peft_error *err) {
    pf_adapter_fusion_cfg *f = PF_NEW(a, pf_adapter_fusion_cfg);
    PF_CHECK_ALLOC(f, err);
    PF_TRY(read_keys(json_object_get(file, "config"), where, f, err));
    PF_TRY(read_adapters(a, file, where, f, err));
    *method_cfg = f;
    return PEFT_OK;
}

peft_status pf_adapter_fusion_write_config(const pf_adapter *ad, json_t *file, peft_error *err) {
    const pf_adapter_fusion_cfg *f = ad->cfg.method_cfg;
    json_t *c = json_object_get(file, "config"), *names = json_array();
    const char *name = pf_adapter_fusion_name(ad);
    PF_CHECK_ALLOC(name, err);
    const struct {
        const char *key;
        json_t *value;
    } keys[] = {
        {"dropout_prob", f->dropout_prob > 0 ? json_real(f->dropout_prob) : json_null()},
        {"key", json_boolean(f->key)},
        {"query", json_boolean(f->query)},
        {"query_before_ln", json_boolean(f->query_before_ln)},
        {"regularization", json_boolean(f->regularization)},
        {"residual_before", json_boolean(f->residual_before)},
        {"temperature", json_false()},
        {"value", json_boolean(f->value)},
        {"value_before_softmax", json_boolean(f->value_before_softmax)},
        {"value_initialized", json_boolean(f->value_initialized)},
    };
    int bad = 0;
    for (size_t i = 0; i < PF_COUNT(keys); i++)
        bad |= json_object_set_new(c, keys[i].key, keys[i].value);
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next)
        bad |= json_array_append_new(names, json_string(h->held_as));
    bad |= json_object_set_new(file, "adapter_names", names);
    bad |= json_object_set_new(file, "name", json_string(name));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM,
                              "out of memory while writing adapter_fusion_config.json");
}
