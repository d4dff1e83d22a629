/* ln_tuning.c - layer-norm tuning: the norms are trained, as copies; the base keeps its own (Zhao
 * et al. 2023, "Tuning LayerNorm in Attention", arXiv 2312.11420; peft's LN_TUNING).
 *
 * peft copies whatever target_modules name, so any module with weights may be named. Which norms
 * are usual comes with the family; where peft has none for it, all of its norms. */
#include "peft/peft_json.h"

#include <string.h>

typedef struct ln_cfg {
    pf_cfg_strings target_modules, exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern, modules_to_save;
} ln_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_STRLIST(ln_cfg, target_modules, NULL, "a list of module names (suffixes), or one regular expression for the full name; default: the norms that peft has for the family, else all of its norms"),
    PF_CFG_STRLIST(ln_cfg, exclude_modules, NULL, "names (suffixes) or one regular expression: modules left out of target_modules"),
    PF_CFG_INTLIST(ln_cfg, layers_to_transform, 0, 100000, "only these layers, counted from 0; default: all"),
    PF_CFG_STRLIST(ln_cfg, layers_pattern, NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"),
    PF_CFG_STRLIST(ln_cfg, modules_to_save, NULL, "further modules trained whole and saved with the adapter"),
    PF_CFG_END};
// clang-format on

typedef struct ln_state {
    const char *const *usual;
    bool *at; /* by site->index */
} ln_state;

/* The last parts of the names of all norms. */
static peft_status all_norms(pf_adapter *ad, const char *const **out, peft_error *err) {
    const pf_model *m = ad->model;
    pf_strlist names = {0};
    const char **list = PF_NEW_ARRAY(&ad->arena, const char *, m->n_sites + 1);
    PF_CHECK_ALLOC(list, err);
    for (int i = 0; i < m->n_sites; i++) {
        const char *dot = strrchr(m->sites[i]->name, '.');
        const char *last = dot == NULL ? m->sites[i]->name : dot + 1;
        if (m->sites[i]->kind != PF_SITE_NORM || pf_strlist_has(&names, last)) continue;
        PF_TRY(pf_strlist_add(&names, &ad->arena, last, err));
        list[names.n - 1] = names.items[names.n - 1];
    }
    if (names.n == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG, "peft.ln_tuning: %s (%s) has no norms with weights",
                       m->name, m->architecture);
    }
    *out = list;
    return PEFT_OK;
}

static pf_target_rules rules_of(const pf_adapter *ad) {
    const ln_cfg *cfg = ad->cfg.method_cfg;
    return (pf_target_rules){.key = "peft.ln_tuning",
                             .what = "layer-norm tuning",
                             .kinds = 1u << PF_SITE_NORM | 1u << PF_SITE_LINEAR |
                                      1u << PF_SITE_EMBEDDING | 1u << PF_SITE_HEAD,
                             .acts_on = "modules with weights",
                             .usual = ((const ln_state *)ad->state)->usual,
                             .target_modules = cfg->target_modules,
                             .exclude_modules = cfg->exclude_modules,
                             .layers_to_transform = cfg->layers_to_transform,
                             .layers_pattern = cfg->layers_pattern,
                             .modules_to_save = cfg->modules_to_save};
}

static peft_status attach_copy(pf_adapter *ad, pf_site *site, bool bias, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.ln_tuning_layers.%s",
                                       site->name, bias ? "bias" : "weight");
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_train_whole(ad, site, bias, name, true, err);
}

static peft_status ln_attach(pf_adapter *ad, peft_error *err) {
    const pf_model *m = ad->model;
    pf_target *targets;
    ln_state *st = PF_NEW(&ad->arena, ln_state);
    PF_CHECK_ALLOC(st, err);
    ad->state = st;
    st->at = PF_NEW_ARRAY(&ad->arena, bool, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    st->usual = m->usual.norms;
    if (st->usual == NULL) PF_TRY(all_norms(ad, &st->usual, err));
    const pf_target_rules rules = rules_of(ad);
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *site = m->sites[i];
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, site, err));
        if (!targets[i].hit) continue;
        st->at[i] = true;
        PF_TRY(attach_copy(ad, site, false, err));
        if (site->bias != NULL) PF_TRY(attach_copy(ad, site, true, err));
    }
    return PEFT_OK;
}

static peft_status ln_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)ad, (void)seed, (void)err; /* the copies hold the base's numbers already */
    return PEFT_OK;
}

static peft_status ln_read_config(pf_arena *a, const struct json_t *c, const char *where,
                                  const void **method_cfg, peft_error *err) {
    ln_cfg *cfg = PF_NEW(a, ln_cfg);
    pf_target_rules r = {0};
    PF_CHECK_ALLOC(cfg, err);
    PF_TRY(pf_targets_from_json(a, c, where, &r, err));
    *cfg = (ln_cfg){r.target_modules, r.exclude_modules, r.layers_to_transform, r.layers_pattern,
                    r.modules_to_save};
    *method_cfg = cfg;
    return PEFT_OK;
}

static bool is_copied(const pf_adapter *ad, const pf_site *site) {
    return ((const ln_state *)ad->state)->at[site->index];
}

static peft_status ln_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const pf_target_rules r = rules_of(ad);
    return pf_targets_to_json_by_path(ad, &r, is_copied, c, err);
}

const pf_method pf_method_ln_tuning = {
    .name = "ln_tuning",
    .paper = "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning, Zhao et "
             "al. 2023, arXiv 2312.11420",
    .help = "the norms, as copies beside the base's (layer-norm tuning, arXiv 2312.11420)",
    .cfg_rows = rows,
    .cfg_size = sizeof(ln_cfg),
    .peft_type = "LN_TUNING",
    .attach = ln_attach,
    .init = ln_init,
    .read_config = ln_read_config,
    .write_config = ln_write_config,
};
