/* ia3.c - (IA)3: keys, values and the inner activations of the MLP are multiplied by learned
 * vectors, y = l * (W x + b), or y = W (l * x) + b at feedforward modules (Liu et al. 2022,
 * arXiv 2205.05638, section 3.3).
 *
 * l is (out, 1) at an output and (1, in) at an input, and begins with ones. Both fold into W (and
 * an output's into b). On the head only the input can be scaled: its logits never exist as a whole.
 * Names, shapes and usual modules are peft's; which modules: peft/targets.c. */
#include "ops/activation/scale_cols.h"
#include "peft/first_weights.h"
#include "peft/match.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <string.h>

typedef struct ia3_cfg {
    pf_cfg_strings target_modules, feedforward_modules, exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern, modules_to_save;
    bool init_ia3_weights;
    bool feedforward_given; /* by a file, where an empty list means none */
} ia3_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_STRLIST(ia3_cfg, target_modules, NULL, "a list of module names (suffixes), one regular expression for the full name, or all-linear; default: keys, values and the MLP's second layer, as peft has them for the family"),
    PF_CFG_STRLIST(ia3_cfg, feedforward_modules, NULL, "those of them whose input is scaled instead of the output: a list of ends of names, one regular expression for the full name, or none; default: as peft has them for the family"),
    PF_CFG_STRLIST(ia3_cfg, exclude_modules, NULL, "names (suffixes) or one regular expression: modules left out of target_modules"),
    PF_CFG_INTLIST(ia3_cfg, layers_to_transform, 0, 100000, "only these layers, counted from 0; default: all"),
    PF_CFG_STRLIST(ia3_cfg, layers_pattern, NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"),
    PF_CFG_STRLIST(ia3_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter"),
    PF_CFG_BOOL(ia3_cfg, init_ia3_weights, true, "begin with ones, which change nothing; false: normal numbers, for tests"),
    PF_CFG_END};
// clang-format on

typedef struct ia3_site {
    pf_param *l; /* (out, 1); feedforward: (1, in) */
    bool feedforward;
} ia3_site;

typedef struct ia3 {
    ia3_site **at; /* by site->index; NULL where nothing is scaled */
} ia3;

static const ia3_site *site_of(const pf_adapter *ad, const pf_site *site) {
    return ((const ia3 *)ad->state)->at[site->index];
}

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status scale(pf_build *b, const ia3_site *s, const pf_site *site, pf_value **x,
                         peft_error *err) {
    pf_value *l = pf_graph_param(b->graph, s->l);
    PF_CHECK_ALLOC(l, err);
    return pf_scale_cols(b->graph, site->name, *x, l, x, err);
}

static peft_status scale_input(pf_build *b, void *self, pf_site *site, pf_value **x,
                               peft_error *err) {
    return scale(b, self, site, x, err);
}

static peft_status scale_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    return scale(b, self, site, y, err);
}

static const pf_site_hooks input_hooks = {.input = scale_input};
static const pf_site_hooks output_hooks = {.output = scale_output};

/* ---- attaching ------------------------------------------------------------------------------- */

static pf_target_rules rules_of(const pf_model *m, const ia3_cfg *cfg) {
    return (pf_target_rules){.key = "peft.ia3",
                             .what = "(IA)3",
                             .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                             .acts_on = "linear layers and the head",
                             .usual = m->usual.ia3,
                             .target_modules = cfg->target_modules,
                             .exclude_modules = cfg->exclude_modules,
                             .layers_to_transform = cfg->layers_to_transform,
                             .layers_pattern = cfg->layers_pattern,
                             .modules_to_save = cfg->modules_to_save};
}

/* Which of the targets are feedforward modules. */
typedef struct feedforward {
    pf_strlist names;
    pf_pattern *pattern; /* one text in place of a list */
    bool hit[64];        /* which names matched something */
} feedforward;

static peft_status read_feedforward(feedforward *f, const pf_model *m, const ia3_cfg *cfg,
                                    peft_error *err) {
    const pf_cfg_strings *s = &cfg->feedforward_modules;
    f->names = s->list;
    if (s->list.n == 0 && !cfg->feedforward_given && m->usual.ia3_feedforward != NULL) {
        f->names.items = (const char **)m->usual.ia3_feedforward;
        while (m->usual.ia3_feedforward[f->names.n] != NULL) f->names.n++;
    }
    if (!s->single || s->list.n != 1) return PEFT_OK;
    if (pf_streq(s->list.items[0], "none")) {
        f->names.n = 0;
        return PEFT_OK;
    }
    return pf_pattern_new(&f->pattern, "peft.ia3.feedforward_modules", "", s->list.items[0], "",
                          true, err);
}

/* peft: the end of the path, without a dot before it. */
static peft_status is_feedforward(feedforward *f, const char *path, bool *out, peft_error *err) {
    *out = false;
    if (f->pattern != NULL) return pf_pattern_match(f->pattern, path, out, NULL, err);
    for (int i = 0; i < f->names.n; i++) {
        if (!pf_ends_with(path, f->names.items[i])) continue;
        *out = true;
        if (i < (int)PF_COUNT(f->hit)) f->hit[i] = true;
    }
    return PEFT_OK;
}

static peft_status check_names(const feedforward *f, const pf_adapter *ad, const ia3_cfg *cfg,
                               peft_error *err) {
    if (!ad->strict || f->pattern != NULL || cfg->feedforward_modules.list.n == 0) return PEFT_OK;
    for (int i = 0; i < f->names.n && i < (int)PF_COUNT(f->hit); i++) {
        if (f->hit[i]) continue;
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.ia3.feedforward_modules: '%s' is none of the modules that (IA)3 acts "
                       "on; name it in target_modules too",
                       f->names.items[i]);
    }
    return PEFT_OK;
}

static peft_status attach_site(pf_adapter *ad, pf_site *site, bool is_ff, peft_error *err) {
    ia3_site *s = PF_NEW(&ad->arena, ia3_site);
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.ia3_l", site->name);
    PF_CHECK_ALLOC(s, err);
    PF_CHECK_ALLOC(name, err);
    s->feedforward = is_ff;
    PF_TRY(pf_adapter_add_param(ad, name, is_ff ? 1 : site->out_dim, is_ff ? site->in_dim : 1,
                                &s->l, err));
    ((ia3 *)ad->state)->at[site->index] = s;
    return pf_adapter_hook(ad, site, is_ff ? &input_hooks : &output_hooks, s, err);
}

static peft_status attach_all(pf_adapter *ad, const pf_target *targets, feedforward *f,
                              peft_error *err) {
    bool is_ff;
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_site *site = ad->model->sites[i];
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, site, err));
        if (!targets[i].hit) continue;
        PF_TRY(is_feedforward(f, site->name, &is_ff, err));
        PF_TRY(attach_site(ad, site, is_ff, err));
    }
    return check_names(f, ad, ad->cfg.method_cfg, err);
}

static peft_status ia3_attach(pf_adapter *ad, peft_error *err) {
    const ia3_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    pf_target *targets;
    feedforward f = {0};
    ia3 *st = PF_NEW(&ad->arena, ia3);
    PF_CHECK_ALLOC(st, err);
    st->at = PF_NEW_ARRAY(&ad->arena, ia3_site *, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    ad->state = st;
    if (cfg->target_modules.list.n == 0 && m->usual.ia3 == NULL) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.ia3.target_modules is not given, and there are no usual ones for %s; "
                       "name the projections of keys and values, and the MLP's last one",
                       m->architecture);
    }
    const pf_target_rules rules = rules_of(m, cfg);
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    peft_status status = read_feedforward(&f, m, cfg, err);
    if (status == PEFT_OK) status = attach_all(ad, targets, &f, err);
    pf_pattern_free(f.pattern);
    return status;
}

static peft_status ia3_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const ia3_cfg *cfg = ad->cfg.method_cfg;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const ia3_site *s = site_of(ad, ad->model->sites[i]);
        if (s == NULL) continue;
        if (cfg->init_ia3_weights) {
            pf_fill_constant(s->l, 1);
        } else {
            pf_fill_normal(s->l, seed, 1);
        }
    }
    return PEFT_OK;
}

/* ---- merging --------------------------------------------------------------------------------- */

static bool ia3_touches(const pf_adapter *ad, const pf_site *site) {
    return site_of(ad, site) != NULL;
}

static peft_status ia3_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                             float *out, peft_error *err) {
    (void)err;
    const ia3_site *s = site_of(ad, site);
    const int64_t C = site->in_dim;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < C; c++) {
            const pf_real l = s->l->data[s->feedforward ? c : row0 + i];
            out[i * C + c] = (float)((double)out[i * C + c] * (double)l);
        }
    }
    return PEFT_OK;
}

static bool ia3_touches_bias(const pf_adapter *ad, const pf_site *site) {
    const ia3_site *s = site_of(ad, site);
    return s != NULL && !s->feedforward;
}

static void ia3_merge_bias(const pf_adapter *ad, const pf_site *site, float *bias) {
    const pf_param *l = site_of(ad, site)->l;
    for (int64_t i = 0; i < site->out_dim; i++)
        bias[i] = (float)((double)bias[i] * (double)l->data[i]);
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

static peft_status ia3_read_config(pf_arena *a, const json_t *c, const char *where,
                                   const void **method_cfg, peft_error *err) {
    ia3_cfg *cfg = PF_NEW(a, ia3_cfg);
    pf_target_rules r = {0};
    const json_t *ff = json_object_get(c, "feedforward_modules");
    PF_CHECK_ALLOC(cfg, err);
    PF_TRY(pf_targets_from_json(a, c, where, &r, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "feedforward_modules", &cfg->feedforward_modules, err));
    PF_TRY(pf_json_opt_bool(c, where, "init_ia3_weights", true, &cfg->init_ia3_weights, err));
    cfg->feedforward_given = ff != NULL && !json_is_null(ff);
    cfg->target_modules = r.target_modules;
    cfg->exclude_modules = r.exclude_modules;
    cfg->layers_to_transform = r.layers_to_transform;
    cfg->layers_pattern = r.layers_pattern;
    cfg->modules_to_save = r.modules_to_save;
    *method_cfg = cfg;
    return PEFT_OK;
}

static peft_status ia3_write_config(const pf_adapter *ad, json_t *c, peft_error *err) {
    const ia3_cfg *cfg = ad->cfg.method_cfg;
    const pf_target_rules r = rules_of(ad->model, cfg);
    feedforward f = {0};
    PF_TRY(pf_targets_to_json_by_path(ad, &r, ia3_touches, c, err));
    PF_TRY(read_feedforward(&f, ad->model, cfg, err));
    const pf_cfg_strings names = {f.names, f.pattern != NULL};
    pf_pattern_free(f.pattern);
    int bad = json_object_set_new(c, "feedforward_modules", pf_peft_strings(&names));
    bad |= json_object_set_new(c, "init_ia3_weights", json_boolean(cfg->init_ia3_weights));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_ia3 = {
    .name = "ia3",
    .paper = "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context "
             "Learning, Liu et al. 2022, arXiv 2205.05638",
    .help = "learned factors on keys, values and inner activations ((IA)3, arXiv 2205.05638)",
    .cfg_rows = rows,
    .cfg_size = sizeof(ia3_cfg),
    .peft_type = "IA3",
    .attach = ia3_attach,
    .init = ia3_init,
    .touches = ia3_touches,
    .merge_weight = ia3_merge,
    .touches_bias = ia3_touches_bias,
    .merge_bias = ia3_merge_bias,
    .read_config = ia3_read_config,
    .write_config = ia3_write_config,
};
