/* bitfit.c - bias tuning: the base's own biases are trained and nothing else (Ben Zaken et al.
 * 2021, "BitFit", arXiv 2106.10199).
 *
 * Not a PEFT type: the tensors have the base's names, so what is saved is a part of a state dict
 * that transformers loads with load_state_dict(..., strict=False). */
#include "peft/peft_json.h"

#include "text/json.h"

#include <string.h>

typedef struct bitfit_cfg {
    pf_cfg_strings target_modules, exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern, modules_to_save;
} bitfit_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_STRLIST(bitfit_cfg, target_modules, NULL, "modules whose biases are trained: a list of names (suffixes), one regular expression for the full name, or all-linear; default: all that have one"),
    PF_CFG_STRLIST(bitfit_cfg, exclude_modules, NULL, "names (suffixes) or one regular expression: modules left out of target_modules"),
    PF_CFG_INTLIST(bitfit_cfg, layers_to_transform, 0, 100000, "only these layers, counted from 0; default: all"),
    PF_CFG_STRLIST(bitfit_cfg, layers_pattern, NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"),
    PF_CFG_STRLIST(bitfit_cfg, modules_to_save, NULL, "modules trained whole and saved with the biases"),
    PF_CFG_END};
// clang-format on

/* The last parts of the names of all modules that have a bias. */
static peft_status with_bias(pf_adapter *ad, const char *const **out, peft_error *err) {
    const pf_model *m = ad->model;
    pf_strlist names = {0};
    const char **list = PF_NEW_ARRAY(&ad->arena, const char *, m->n_sites + 1);
    PF_CHECK_ALLOC(list, err);
    for (int i = 0; i < m->n_sites; i++) {
        const char *dot = strrchr(m->sites[i]->name, '.');
        const char *last = dot == NULL ? m->sites[i]->name : dot + 1;
        if (m->sites[i]->bias == NULL || pf_strlist_has(&names, last)) continue;
        PF_TRY(pf_strlist_add(&names, &ad->arena, last, err));
        list[names.n - 1] = names.items[names.n - 1];
    }
    if (names.n == 0) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.method is bitfit, but %s (%s) has no biases to train; ia3 and "
                       "ln_tuning train as few numbers",
                       m->name, m->architecture);
    }
    *out = list;
    return PEFT_OK;
}

static pf_target_rules rules_of(const pf_adapter *ad) {
    const bitfit_cfg *cfg = ad->cfg.method_cfg;
    return (pf_target_rules){.key = "peft.bitfit",
                             .what = "bias tuning",
                             .kinds = 1u << PF_SITE_NORM | 1u << PF_SITE_LINEAR |
                                      1u << PF_SITE_EMBEDDING | 1u << PF_SITE_HEAD,
                             .acts_on = "modules with a bias",
                             .usual = ad->state,
                             .target_modules = cfg->target_modules,
                             .exclude_modules = cfg->exclude_modules,
                             .layers_to_transform = cfg->layers_to_transform,
                             .layers_pattern = cfg->layers_pattern,
                             .modules_to_save = cfg->modules_to_save};
}

static peft_status bitfit_attach(pf_adapter *ad, peft_error *err) {
    const pf_model *m = ad->model;
    const char *const *usual = NULL;
    pf_target *targets;
    int n = 0;
    PF_TRY(with_bias(ad, &usual, err));
    ad->state = (void *)usual;
    const pf_target_rules rules = rules_of(ad);
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *site = m->sites[i];
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, site, err));
        if (!targets[i].hit || site->bias == NULL) continue;
        PF_TRY(pf_adapter_train_whole(ad, site, true, site->bias->name, false, err));
        n++;
    }
    if (n > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "peft.bitfit.target_modules: none of these modules of %s has a bias", m->name);
}

static peft_status bitfit_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)ad, (void)seed, (void)err; /* the copies hold the base's numbers already */
    return PEFT_OK;
}

static peft_status bitfit_read_config(pf_arena *a, const struct json_t *c, const char *where,
                                      const void **method_cfg, peft_error *err) {
    bitfit_cfg *cfg = PF_NEW(a, bitfit_cfg);
    pf_target_rules r = {0};
    PF_CHECK_ALLOC(cfg, err);
    PF_TRY(pf_targets_from_json(a, c, where, &r, err));
    *cfg = (bitfit_cfg){r.target_modules, r.exclude_modules, r.layers_to_transform,
                        r.layers_pattern, r.modules_to_save};
    *method_cfg = cfg;
    return PEFT_OK;
}

static peft_status bitfit_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const pf_target_rules r = rules_of(ad);
    return pf_targets_to_json(ad, &r, c, err);
}

const pf_method pf_method_bitfit = {
    .name = "bitfit",
    .paper = "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked "
             "Language-models, Ben Zaken et al. 2021, arXiv 2106.10199",
    .help = "the base's biases, saved as a part of a state dict (BitFit, arXiv 2106.10199)",
    .cfg_rows = rows,
    .cfg_size = sizeof(bitfit_cfg),
    .peft_type = "BITFIT",
    .state_dict = true,
    .attach = bitfit_attach,
    .init = bitfit_init,
    .read_config = bitfit_read_config,
    .write_config = bitfit_write_config,
};
