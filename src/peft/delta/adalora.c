/* adalora.c - AdaLoRA: y = W x + scale / init_r B (E * A x), a singular value decomposition whose
 * ranks compete for a budget that shrinks while training goes on (Zhang et al. 2023, arXiv
 * 2303.10512; the budget is adalora_ranks.c's).
 *
 * A (r, in), B (out, r), E (r, 1). Files are peft's: once a budget was shared out, they hold the
 * ranks that are kept, and rank_pattern says which of init_r those are; the scale stays that of
 * init_r. total_step is the run's unless it is given. */
#include "peft/delta/adalora.h"

#include "base/str.h"
#include "ops/activation/scale_cols.h"
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"
#include "text/json.h"

#include <string.h>

typedef pf_adalora_cfg adalora_cfg; /* for the rows */

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(adalora_cfg, init_r, 12, 1, 1024, "ranks of a module at first"),
    PF_CFG_INT(adalora_cfg, target_r, 8, 1, 1024, "ranks of a module in the end, on average"),
    PF_CFG_INT(adalora_cfg, tinit, 0, 0, 1e12, "steps before the budget begins to shrink"),
    PF_CFG_INT(adalora_cfg, tfinal, 0, 0, 1e12, "steps after it has shrunk"),
    PF_CFG_INT(adalora_cfg, deltaT, 1, 1, 1e12, "steps between two looks at the budget"),
    PF_CFG_INT(adalora_cfg, total_step, 0, 0, 1e12, "steps of the training; 0: those of the run"),
    PF_CFG_FLOAT(adalora_cfg, beta1, 0.85, 0, 1, "smoothing of the sensitivity"),
    PF_CFG_FLOAT(adalora_cfg, beta2, 0.85, 0, 1, "smoothing of its uncertainty"),
    PF_CFG_FLOAT(adalora_cfg, orth_reg_weight, 0.5, 0, 1e6, "weight of the regularization that keeps A and B orthogonal"),
    PF_CFG_FLOAT(adalora_cfg, lora_alpha, 8, 0, 1e6, "the update is scaled by lora_alpha / init_r", .aliases = "alpha"),
    PF_CFG_FLOAT(adalora_cfg, lora_dropout, 0, 0, 1, "share of the input dropped before A, in training only", .flags = PF_CFG_BELOW_MAX, .aliases = "dropout"),
    PF_DELTA_TARGET_ROWS(adalora_cfg),
    PF_CFG_BOOL(adalora_cfg, init_lora_weights, true, "E is zero at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

/* ---- in a build ------------------------------------------------------------------------------ */

static double scale_of(const pf_adapter *ad) {
    const adalora_cfg *cfg = ad->cfg.method_cfg;
    const double r = (double)cfg->init_r;
    return (cfg->lora_alpha > 0 ? cfg->lora_alpha : r) / (r + 1e-5); /* as peft divides */
}

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    const pf_adalora_site *l = self;
    const adalora_cfg *cfg = l->s.ad->cfg.method_cfg;
    if (l->r == 0) return PEFT_OK; /* it has lost all of them */
    pf_value *p[PF_DELTA_PARAMS], *s;
    const pf_lowrank_down_args down = {
        .dropout = cfg->lora_dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    const pf_lowrank_up_args up = {.scale = scale_of(l->s.ad)};
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_op_emit(b->graph, "lowrank_down", site->name, &down,
                      (pf_value *[]){x, p[PF_ADALORA_A]}, 2, &s, err));
    PF_TRY(pf_scale_cols(b->graph, site->name, s, p[PF_ADALORA_E], &s, err));
    return pf_op_emit(b->graph, "lowrank_up", site->name, &up,
                      (pf_value *[]){*y, s, p[PF_ADALORA_B]}, 3, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static const pf_adalora_mask *mask_of(const adalora_cfg *cfg, const pf_site *site) {
    for (int i = 0; i < cfg->n_masks; i++) {
        if (pf_streq(cfg->masks[i].name, site->name)) return &cfg->masks[i];
    }
    return NULL;
}

static peft_status add_score(pf_adapter *ad, pf_adalora_site *l, int k, peft_error *err) {
    const pf_param *p = l->s.p[k];
    const char *name = pf_arena_printf(&ad->arena, "%s.sensitivity", p->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_params_add(&ad->params, name, p->rows, p->cols, &l->score[k], err));
    pf_params_freeze(&ad->params, l->score[k]);
    l->score[k]->unsaved = true;
    return PEFT_OK;
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const adalora_cfg *cfg = ad->cfg.method_cfg;
    pf_adalora_site *l = self;
    pf_param *p;
    (void)t;
    const pf_site *site = l->s.site;
    const pf_adalora_mask *mask = mask_of(cfg, site);
    if (mask != NULL && mask->n != cfg->init_r)
        return PF_FAIL(err, PEFT_E_FORMAT, "rank_pattern has %lld ranks of %s, but init_r is %lld",
                       (long long)mask->n, site->name, (long long)cfg->init_r);
    l->place = PF_NEW_ARRAY(&ad->arena, int64_t, cfg->init_r);
    PF_CHECK_ALLOC(l->place, err);
    for (int64_t i = 0; i < cfg->init_r; i++) {
        if (mask == NULL || mask->kept[i]) l->place[l->r++] = i;
    }
    if (l->r == 0) return PEFT_OK;
    PF_TRY(pf_delta_param(ad, &l->s, ".lora_A", l->r, site->in_dim, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".lora_B", site->out_dim, l->r, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".lora_E", l->r, 1, &p, err));
    for (int k = 0; k < 3; k++) PF_TRY(add_score(ad, l, k, err));
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const adalora_cfg *cfg = ad->cfg.method_cfg;
    pf_adalora_site *l = self;
    const double std = cfg->init_lora_weights ? 0.02 : 1;
    for (int k = 0; k < l->s.n_p; k++) pf_fill_normal(l->s.p[k], seed, std);
    if (cfg->init_lora_weights) pf_fill_constant(l->s.p[PF_ADALORA_E], 0);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const adalora_cfg *)cfg)->init_r;
    *alpha = ((const adalora_cfg *)cfg)->lora_alpha;
}

static const pf_site_hooks hooks = {.output = output};
static const char *const refused[] = {"bias",
                                      "use_dora",
                                      "lora_bias",
                                      "use_rslora",
                                      "use_qalora",
                                      "use_bdlora",
                                      "alora_invocation_tokens",
                                      "target_parameters",
                                      "trainable_token_indices",
                                      "layer_replication",
                                      "ensure_weight_tying",
                                      "megatron_config",
                                      "arrow_config",
                                      "kasa_config",
                                      "monteclora_config",
                                      "velora_config",
                                      NULL};
static const pf_delta_kind kind = {.key = "peft.adalora",
                                   .what = "AdaLoRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(adalora_cfg),
                                   .site_size = sizeof(pf_adalora_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = refused};

static void check_config(pf_cfg *c, const void *section) {
    const adalora_cfg *cfg = section;
    if (cfg->target_r > cfg->init_r)
        pf_cfg_complain(c, "peft.adalora.target_r", "is %lld, more than init_r, which is %lld",
                        (long long)cfg->target_r, (long long)cfg->init_r);
    if (cfg->total_step > 0 && cfg->tinit >= cfg->total_step - cfg->tfinal)
        pf_cfg_complain(c, "peft.adalora.total_step",
                        "is %lld: tinit and tfinal leave no step to share out the budget",
                        (long long)cfg->total_step);
}

static peft_status attach(pf_adapter *ad, peft_error *err) {
    PF_TRY(pf_delta_attach(ad, &kind, err));
    ad->dropout = ((const adalora_cfg *)ad->cfg.method_cfg)->lora_dropout;
    return PEFT_OK;
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const adalora_cfg *)ad->cfg.method_cfg)->lora_dropout > 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

/* {"model.layers.0.self_attn.q_proj.lora_E": [true, false, ...], ...} */
static peft_status read_pattern(pf_arena *a, const json_t *c, const char *where, adalora_cfg *cfg,
                                peft_error *err) {
    const json_t *pattern;
    const char *name;
    json_t *list, *v;
    size_t i;
    PF_TRY(pf_json_opt_object(c, where, "rank_pattern", &pattern, err));
    if (pattern == NULL) return PEFT_OK;
    pf_adalora_mask *masks = PF_NEW_ARRAY(a, pf_adalora_mask, json_object_size(pattern));
    PF_CHECK_ALLOC(masks, err);
    cfg->masks = masks;
    json_object_foreach((json_t *)pattern, name, list) {
        const char *end = strstr(name, ".lora_E");
        if (end == NULL || !json_is_array(list))
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s: rank_pattern should have a list for each name that ends in .lora_E",
                           where);
        bool *kept = PF_NEW_ARRAY(a, bool, json_array_size(list));
        PF_CHECK_ALLOC(kept, err);
        json_array_foreach(list, i, v) kept[i] = json_is_true(v);
        pf_adalora_mask *m = &masks[cfg->n_masks++];
        m->name = pf_arena_printf(a, "%.*s", (int)(end - name), name);
        PF_CHECK_ALLOC(m->name, err);
        m->kept = kept;
        m->n = (int64_t)json_array_size(list);
    }
    return PEFT_OK;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **out, peft_error *err) {
    PF_TRY(pf_delta_read_config(&kind, a, c, where, out, err));
    return read_pattern(a, c, where, (adalora_cfg *)*out, err); /* made by the line above */
}

static int write_pattern(const pf_adapter *ad, json_t *c) {
    const adalora_cfg *cfg = ad->cfg.method_cfg;
    json_t *pattern = json_object();
    int bad = 0;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = pf_delta_at(ad, ad->model->sites[i]);
        if (l == NULL) continue;
        json_t *list = json_array();
        int64_t at = 0;
        for (int64_t k = 0; k < cfg->init_r; k++) {
            const bool here = at < l->r && l->place[at] == k;
            bad |= json_array_append_new(list, json_boolean(here && pf_adalora_keeps(ad, l, at)));
            at += here;
        }
        char name[512];
        snprintf(name, sizeof name, "%s.lora_E", ad->model->sites[i]->name);
        bad |= json_object_set_new(pattern, name, list);
    }
    return bad | json_object_set_new(c, "rank_pattern", pattern);
}

static peft_status write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const adalora_cfg *cfg = ad->cfg.method_cfg;
    int64_t total = cfg->total_step;
    for (int i = 0; total == 0 && i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = pf_delta_at(ad, ad->model->sites[i]);
        if (l != NULL) total = l->total > 0 ? l->total : cfg->tinit + cfg->tfinal + 1;
    }
    PF_TRY(pf_delta_write_config(ad, c, err));
    int bad = json_object_set_new(c, "total_step", json_integer(total));
    if (pf_adalora_has_ranks(ad)) bad |= write_pattern(ad, c);
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

/* Whose parameter it is, and which (PF_ADALORA_A ..); NULL: a whole module's. */
static const pf_adalora_site *owner(const pf_adapter *ad, const pf_param *p, int *which) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = pf_delta_at(ad, ad->model->sites[i]);
        for (*which = 0; l != NULL && *which < l->s.n_p; (*which)++) {
            if (l->s.p[*which] == p) return l;
        }
    }
    return NULL;
}

static void file_size(const pf_adapter *ad, const pf_param *p, int64_t *n_rows, int64_t *cols) {
    int which;
    const pf_adalora_site *l = owner(ad, p, &which);
    if (l != NULL) *(which == PF_ADALORA_B ? cols : n_rows) = pf_adalora_n_kept(ad, l);
}

static void file_row(const pf_adapter *ad, const pf_param *p, int64_t row, float *out) {
    int which;
    const pf_adalora_site *l = owner(ad, p, &which);
    int64_t n = 0;
    if (l != NULL && which != PF_ADALORA_B) { /* the row-th that is kept */
        for (int64_t i = 0; i < l->r; i++) {
            if (pf_adalora_keeps(ad, l, i) && n++ == row) {
                row = i;
                break;
            }
        }
    }
    n = 0;
    for (int64_t c = 0; c < p->cols; c++) {
        if (l == NULL || which != PF_ADALORA_B || pf_adalora_keeps(ad, l, c))
            out[n++] = (float)p->data[row * p->cols + c];
    }
}

/* Tensors without a number, of modules that have lost all ranks. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = pf_delta_at(ad, ad->model->sites[i]);
        const size_t n = strlen(ad->model->sites[i]->name);
        const char *at = l == NULL || l->r > 0 ? NULL : strstr(tensor, ad->model->sites[i]->name);
        if (at != NULL && pf_starts_with(at + n, ".lora_")) return true;
    }
    return false;
}

/* ---- merging --------------------------------------------------------------------------------- */

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const pf_adalora_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < C && l->r > 0; c++) {
            double sum = 0;
            for (int64_t k = 0; k < l->r; k++)
                sum += (double)l->s.p[PF_ADALORA_B]->data[(row0 + i) * l->r + k] *
                       (double)l->s.p[PF_ADALORA_E]->data[k] *
                       (double)l->s.p[PF_ADALORA_A]->data[k * C + c];
            out[i * C + c] = (float)((double)out[i * C + c] + scale_of(ad) * sum);
        }
    }
    return PEFT_OK;
}

const pf_method pf_method_adalora = {
    .name = "adalora",
    .help = "low-rank updates whose ranks compete for a budget (AdaLoRA, arXiv 2303.10512)",
    .paper =
        "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, Zhang et al. "
        "2023, arXiv 2303.10512",
    .cfg_rows = rows,
    .cfg_size = sizeof(adalora_cfg),
    .check_cfg = check_config,
    .peft_type = "ADALORA",
    .attach = attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .after_backward = pf_adalora_after_backward,
    .after_step = pf_adalora_after_step,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .file_size = file_size,
    .file_row = file_row,
    .repeats = repeats,
    .read_config = read_config,
    .write_config = write_config,
};
