/* lora_config.c - LoRA's section of a configuration, and its part of adapter_config.json as peft's
 * LoraConfig has it.
 *
 * Reading: missing keys have LoraConfig's defaults, unknown keys are passed over (peft adds some
 * with every release), and what would change the numbers but is not done here is refused by name.
 * Writing: keys that differ from the default, and those that readers expect in any case. */
#include "peft/lora/lora.h"

#include "base/buf.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

/* ---- the section ----------------------------------------------------------------------------- */

/* clang-format off */
const pf_cfg_row pf_lora_cfg_rows[] = {
    PF_CFG_INT(pf_lora_cfg, r, 8, 1, 65536, "rank of the update", .aliases = "rank lora_r lora_rank"),
    PF_CFG_FLOAT(pf_lora_cfg, alpha, 16, 0, 1e6, "the update is scaled by alpha / r", .aliases = "lora_alpha"),
    PF_CFG_FLOAT(pf_lora_cfg, dropout, 0, 0, 1, "share of the input dropped before A, in training only", .aliases = "lora_dropout", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_STRLIST(pf_lora_cfg, target_modules, "q_proj,v_proj", "a list of module names (suffixes), one regular expression for the full name, or all-linear", .aliases = "lora_target_modules"),
    PF_CFG_STRLIST(pf_lora_cfg, exclude_modules, NULL, "names (suffixes) or one regular expression: modules left out of target_modules"),
    PF_CFG_INTLIST(pf_lora_cfg, layers_to_transform, 0, 100000, "only these layers, counted from 0; default: all"),
    PF_CFG_STRLIST(pf_lora_cfg, layers_pattern, NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"),
    PF_CFG_NUMMAP(pf_lora_cfg, rank_pattern, 1, 65536, "other ranks for some modules: {name or regular expression: r}", .flags = PF_CFG_WHOLE),
    PF_CFG_NUMMAP(pf_lora_cfg, alpha_pattern, 0, 1e6, "other alphas for some modules: {name or regular expression: alpha}"),
    PF_CFG_BOOL(pf_lora_cfg, use_rslora, false, "scale by alpha / sqrt(r) (rank-stabilized LoRA)"),
    PF_CFG_ENUM(pf_lora_cfg, bias, "none", "none all lora_only", "which biases are trained too"),
    PF_CFG_STRLIST(pf_lora_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter", .aliases = "lora_modules_to_save"),
    PF_CFG_ENUM(pf_lora_cfg, init_lora_weights, "true", "true=yes=on=default false=no=off gaussian",
                "true: A uniform (Kaiming), B zero; gaussian: A normal, B zero; false: both random, for tests", .aliases = "init"),
    PF_CFG_END};
/* clang-format on */

void pf_lora_check_config(pf_cfg *c, const void *section) {
    const pf_lora_cfg *lora = section;
    if (lora->layers_pattern.list.n > 0 && lora->layers_to_transform.n == 0)
        pf_cfg_complain(c, "peft.lora.layers_pattern",
                        "is given without layers_to_transform; it says where those are counted");
}

pf_target_rules pf_lora_rules(const pf_lora_cfg *cfg) {
    return (pf_target_rules){.key = "peft.lora",
                             .what = "LoRA",
                             .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_EMBEDDING |
                                      1u << PF_SITE_HEAD,
                             .acts_on = "linear layers, embeddings and the head",
                             .target_modules = cfg->target_modules,
                             .exclude_modules = cfg->exclude_modules,
                             .layers_to_transform = cfg->layers_to_transform,
                             .layers_pattern = cfg->layers_pattern,
                             .modules_to_save = cfg->modules_to_save,
                             .rank_pattern = cfg->rank_pattern,
                             .alpha_pattern = cfg->alpha_pattern,
                             .r = cfg->r,
                             .alpha = cfg->alpha};
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_off(const json_t *v) {
    if (v == NULL || json_is_null(v) || json_is_false(v)) return true;
    if (json_is_array(v)) return json_array_size(v) == 0;
    return json_is_object(v) && json_object_size(v) == 0;
}

static peft_status refuse_variants(const json_t *c, const char *where, peft_error *err) {
    static const struct {
        const char *key, *what;
    } variants[] = {
        {"use_dora", "DoRA"},
        {"lora_bias", "a bias on B"},
        {"use_qalora", "QALoRA"},
        {"use_bdlora", "block-diagonal LoRA"},
        {"alora_invocation_tokens", "activated LoRA"},
        {"trainable_token_indices", "training single token rows"},
        {"target_parameters", "LoRA on parameters that are no module"},
        {"layer_replication", "layer replication"},
        {"ensure_weight_tying", "tied adapters on embedding and head"},
        {"megatron_config", "Megatron layers"},
        {"arrow_config", "Arrow routing"},
        {"kasa_config", "KaSA"},
        {"monteclora_config", "MonteCLoRA"},
        {"velora_config", "VeLoRA"},
    };
    for (size_t i = 0; i < PF_COUNT(variants); i++) {
        if (is_off(json_object_get(c, variants[i].key))) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: %s is set: %s is not supported yet; plain LoRA is", where,
                       variants[i].key, variants[i].what);
    }
    return PEFT_OK;
}

/* Initializations that take something out of the base weight: the adapter is right on the changed
 * base only. */
static peft_status read_init(const json_t *c, const char *where, const char **out,
                             peft_error *err) {
    static const char *const on_base[] = {"pissa", "olora", "corda", "loftq", "lora_ga", "mica"};
    const json_t *v = json_object_get(c, "init_lora_weights");
    const char *s = json_string_value(v);
    *out = json_is_false(v) ? "false" : pf_streq(s, "gaussian") ? "gaussian" : "true";
    for (size_t i = 0; s != NULL && i < PF_COUNT(on_base); i++) {
        if (!pf_starts_with(s, on_base[i])) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: init_lora_weights is '%s', which changes the base weights when peft "
                       "loads it. Save the "
                       "adapter from peft with path_initial_model_for_weight_conversion, which "
                       "makes it plain LoRA",
                       where, s);
    }
    return PEFT_OK;
}

static peft_status fail_type(const char *where, const char *key, const json_t *v,
                             const char *wanted, peft_error *err) {
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %s; it should be %s", where, key, pf_json_kind(v),
                   wanted);
}

/* A list of texts, or one text (*out)->single. */
static peft_status read_strings(pf_arena *a, const json_t *c, const char *where, const char *key,
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

static peft_status read_layers(pf_arena *a, const json_t *c, const char *where, pf_cfg_ints *out,
                               peft_error *err) {
    const char *key = "layers_to_transform";
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

static peft_status read_map(pf_arena *a, const json_t *c, const char *where, const char *key,
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

peft_status pf_lora_read_config(pf_arena *a, const struct json_t *c, const char *where,
                                const void **method_cfg, peft_error *err) {
    pf_lora_cfg *l = PF_NEW(a, pf_lora_cfg);
    PF_CHECK_ALLOC(l, err);
    PF_TRY(refuse_variants(c, where, err));
    PF_TRY(read_init(c, where, &l->init_lora_weights, err));
    PF_TRY(pf_json_opt_int(c, where, "r", 8, 1, 65536, &l->r, err));
    PF_TRY(pf_json_opt_real(c, where, "lora_alpha", 8, &l->alpha, err));
    PF_TRY(pf_json_opt_real(c, where, "lora_dropout", 0, &l->dropout, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_rslora", false, &l->use_rslora, err));
    if (!isfinite(l->alpha) || !(l->dropout >= 0 && l->dropout < 1)) {
        return PF_FAIL(
            err, PEFT_E_FORMAT,
            "%s: lora_alpha is %g and lora_dropout %g; alpha should be a number, dropout "
            "from 0 to below 1",
            where, l->alpha, l->dropout);
    }
    PF_TRY(pf_json_opt_str(c, where, "bias", "none", &l->bias, err));
    if (!pf_streq(l->bias, "none") && !pf_streq(l->bias, "all") &&
        !pf_streq(l->bias, "lora_only")) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: bias is '%s'; it should be none, all or lora_only",
                       where, l->bias);
    }
    l->bias = pf_arena_strdup(a, l->bias);
    PF_CHECK_ALLOC(l->bias, err);
    PF_TRY(read_strings(a, c, where, "target_modules", &l->target_modules, err));
    PF_TRY(read_strings(a, c, where, "exclude_modules", &l->exclude_modules, err));
    PF_TRY(read_strings(a, c, where, "layers_pattern", &l->layers_pattern, err));
    PF_TRY(read_strings(a, c, where, "modules_to_save", &l->modules_to_save, err));
    PF_TRY(read_layers(a, c, where, &l->layers_to_transform, err));
    PF_TRY(read_map(a, c, where, "rank_pattern", &l->rank_pattern, err));
    PF_TRY(read_map(a, c, where, "alpha_pattern", &l->alpha_pattern, err));
    *method_cfg = l;
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Whole numbers without a point: peft's ints. */
static json_t *number(double v) {
    return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *strings(const pf_strlist *l) {
    json_t *a = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(a, json_string(l->items[i]));
    return a;
}

static json_t *list_or_text(const pf_strlist *l, bool single) {
    return single && l->n == 1 ? json_string(l->items[0]) : strings(l);
}

static json_t *map(const pf_cfg_map *m) {
    json_t *o = json_object();
    for (int i = 0; i < m->n; i++)
        json_object_set_new(o, m->items[i].key, number(m->items[i].number));
    return o;
}

peft_status pf_lora_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const pf_lora_cfg *l = ad->cfg.method_cfg;
    const pf_target_rules rules = pf_lora_rules(l);
    pf_arena scratch;
    pf_strlist targets;
    bool single;
    int bad = 0;
    pf_arena_init(&scratch, "scratch");
    peft_status status = pf_target_names(ad, &rules, &scratch, &targets, &single, err);
    if (status == PEFT_OK)
        bad |= json_object_set_new(c, "target_modules", list_or_text(&targets, single));
    pf_arena_release(&scratch);
    PF_TRY(status);
    bad |= json_object_set_new(c, "r", json_integer(l->r));
    bad |= json_object_set_new(c, "lora_alpha", number(l->alpha));
    bad |= json_object_set_new(c, "lora_dropout", json_real(l->dropout));
    bad |= json_object_set_new(c, "bias", json_string(l->bias));
    if (l->use_rslora) bad |= json_object_set_new(c, "use_rslora", json_true());
    if (pf_streq(l->init_lora_weights, "false"))
        bad |= json_object_set_new(c, "init_lora_weights", json_false());
    if (pf_streq(l->init_lora_weights, "gaussian")) {
        bad |= json_object_set_new(c, "init_lora_weights", json_string("gaussian"));
    }
    if (l->exclude_modules.list.n > 0) {
        json_t *v = list_or_text(&l->exclude_modules.list, l->exclude_modules.single);
        bad |= json_object_set_new(c, "exclude_modules", v);
    }
    if (l->modules_to_save.list.n > 0) {
        bad |= json_object_set_new(c, "modules_to_save", strings(&l->modules_to_save.list));
    }
    if (l->layers_pattern.list.n > 0) {
        bad |= json_object_set_new(c, "layers_pattern", strings(&l->layers_pattern.list));
    }
    if (l->layers_to_transform.n > 0) {
        json_t *v = json_array();
        for (int i = 0; i < l->layers_to_transform.n; i++) {
            bad |= json_array_append_new(v, json_integer(l->layers_to_transform.items[i]));
        }
        bad |= json_object_set_new(c, "layers_to_transform", v);
    }
    if (l->rank_pattern.n > 0) bad |= json_object_set_new(c, "rank_pattern", map(&l->rank_pattern));
    if (l->alpha_pattern.n > 0)
        bad |= json_object_set_new(c, "alpha_pattern", map(&l->alpha_pattern));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
