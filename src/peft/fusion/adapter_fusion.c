/* adapter_fusion.c - AdapterFusion: attention over what several trained adapters add (Pfeiffer et
 * al. 2020, arXiv 2005.00247, section 3.2). At every place, with h what the adapters read and u_k
 * what adapter k adds there,
 *
 *   s_k = (W_q h + b_q) · (W_k u_k + b_k),   A(h) = sum over k of softmax(s)_k W_v u_k
 *
 * The adapters are frozen; W_q, W_k, W_v (each may be left away) are trained. Around A(h) things
 * are as the configuration of the last adapter has them. W_v begins as the identity and is drawn
 * back to it: 0.01 · |I - W_v|² is added to the loss, in the gradient alone.
 *
 * Files are AdapterHub's: adapter_fusion_config.json and model_adapter_fusion.safetensors, the
 * adapters in folders inside, by their names. Dropout and gates of the adapters do not act here, as
 * there. Not offered: temperature, whose value AdapterHub counts down in every forward pass and
 * saves nowhere; invertible adapters under a fusion. */
#include "peft/fusion/adapter_fusion.h"

#include "base/buf.h"
#include "base/file.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/attention/mix.h"
#include "ops/matmul/linear.h"
#include "ops/shape/split.h"
#include "peft/bottleneck/bottleneck.h"
#include "peft/adapter_file.h"
#include "peft/first_weights.h"
#include "peft/several.h"

#include <string.h>

#define KEY "peft.adapter_fusion"

typedef struct place { /* one site */
    const pf_adapter *ad;
    pf_projection query, key, value; /* without weight: left away */
    struct place *next;
} place;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status project(pf_build *b, const pf_projection *p, const char *name, pf_value *x,
                           pf_value **y, peft_error *err) {
    *y = x;
    return p->weight != NULL ? pf_projection_build(b, NULL, p, name, x, y, err) : PEFT_OK;
}

/* The columns of n values side by side, in two rounds where they are many. */
static peft_status side_by_side(pf_build *b, const char *name, pf_value **x, int n, pf_value **y,
                                peft_error *err) {
    while (n > 1) {
        int groups = 0;
        for (int i = 0; i < n; groups++) {
            pf_split_args args = {.periods = 1};
            const int from = i;
            for (; i < n && args.n < PF_SPLIT_MAX; i++) args.width[args.n++] = x[i]->cols;
            pf_value *group = x[from];
            if (args.n > 1) PF_TRY(pf_join(b->graph, name, x + from, &args, &group, err));
            x[groups] = group;
        }
        n = groups;
    }
    *y = x[0];
    return PEFT_OK;
}

static peft_status mix(pf_build *b, void *self, pf_site *site, pf_bottleneck_flow *f, pf_value **y,
                       peft_error *err) {
    const place *p = self;
    const pf_adapter *ad = p->ad;
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    pf_value *keys[PF_ADAPTER_HELD], *values[PF_ADAPTER_HELD], *q, *k, *v, *s;
    const pf_projection *early = cfg->value_before_softmax ? &p->value : &(pf_projection){0};
    const pf_drop_args drop = {
        .p = cfg->dropout_prob, .seed = ad->params.seed, .mask_key = (uint32_t)site->index};
    int n = 0;
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next, n++) {
        pf_value *up;
        PF_TRY(pf_bottleneck_up(b, h, site, f->h, &up, err));
        if (cfg->residual_before) PF_TRY(pf_add(b->graph, site->name, up, f->residual, &up, err));
        PF_TRY(project(b, &p->key, site->name, up, &keys[n], err));
        PF_TRY(project(b, early, site->name, up, &values[n], err));
    }
    PF_TRY(project(b, &p->query, site->name,
                   cfg->query_before_ln && !f->is_parallel ? f->branch : f->h, &q, err));
    PF_TRY(side_by_side(b, site->name, keys, n, &k, err));
    PF_TRY(side_by_side(b, site->name, values, n, &v, err));
    PF_TRY(pf_mix_scores(b->graph, site->name, q, k, &s, err));
    PF_TRY(pf_drop(b->graph, site->name, s, &drop, &s, err));
    PF_TRY(pf_mix_values(b->graph, site->name, s, v, y, err));
    if (!cfg->value_before_softmax) PF_TRY(project(b, &p->value, site->name, *y, y, err));
    if (!cfg->residual_before && f->is_parallel)
        return pf_add(b->graph, site->name, f->residual, *y, y, err);
    if (cfg->residual_before && !f->is_parallel) f->rest = NULL;
    return PEFT_OK;
}

static const pf_adapter *last_of(const pf_adapter *ad) {
    const pf_adapter *h = ad->held;
    while (h->next != NULL) h = h->next;
    return h;
}

static peft_status join(pf_build *b, void *self, pf_site *site, pf_value *stream, pf_value *branch,
                        pf_value **sum, peft_error *err) {
    const place *p = self;
    const pf_bottleneck_mix how = {.build = mix, .self = self};
    return pf_bottleneck_join_mixed(b, last_of(p->ad), &how, site, stream, branch, sum, err);
}

static const pf_site_hooks hooks = {.join = join};

/* ---- the adapters ---------------------------------------------------------------------------- */

static bool is_bottleneck(const pf_adapter *ad) {
    return ad->method->attach == pf_bottleneck_attach;
}

static pf_bottleneck_cfg *bottleneck_of(const pf_adapter *ad) {
    return (pf_bottleneck_cfg *)(uintptr_t)ad->cfg.method_cfg;
}

/* The name stands in the names of tensors: `.adapters.<name>.` */
static peft_status rename_adapter(pf_adapter *h, const char *name, peft_error *err) {
    pf_bottleneck_cfg *cfg = bottleneck_of(h);
    const char *old = pf_arena_printf(&h->arena, ".%s.", cfg->adapter_name);
    PF_CHECK_ALLOC(old, err);
    for (int i = 0; i < h->params.n; i++) {
        pf_param *p = h->params.items[i];
        const char *at = strstr(p->name, "adapters.");
        if (at == NULL) at = strstr(p->name, "parameters.");
        if (at != NULL) at = strstr(at, old);
        if (at == NULL) continue;
        p->name = pf_arena_printf(&h->arena, "%.*s.%s.%s", (int)(at - p->name), p->name, name,
                                  at + strlen(old));
        PF_CHECK_ALLOC(p->name, err);
    }
    cfg->adapter_name = pf_arena_strdup(&h->arena, name);
    PF_CHECK_ALLOC(cfg->adapter_name, err);
    return PEFT_OK;
}

static peft_status check_held(const pf_adapter *ad, const pf_adapter *h, const char *path,
                              peft_error *err) {
    const char *name;
    if (!is_bottleneck(h)) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is an adapter of method %s; AdapterFusion is over bottleneck adapters "
                       "(seq_bn, double_seq_bn, par_bn, ...)",
                       path, h->method->name);
    }
    name = bottleneck_of(h)->adapter_name;
    if (!pf_streq(bottleneck_of(h)->inv_adapter, "none")) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: adapter '%s' has an invertible adapter (inv_adapter), which cannot be "
                       "fused",
                       path, name);
    }
    for (const pf_adapter *o = ad->held; o != NULL; o = o->next) {
        if (!pf_streq(o->held_as, name)) continue;
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: two of the adapters are called '%s', and a fusion's files tell them "
                       "apart by their names; give " KEY ".adapter_names",
                       path, name);
    }
    if (name[0] != 0 && name[0] != '.' && strpbrk(name, "/,") == NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "%s: an adapter called '%s' cannot have a folder of that name; give " KEY
                   ".adapter_names",
                   path, name);
}

static bool has(pf_arena *a, const char *dir, const char *file) {
    const char *path = pf_path_join(a, dir, file);
    return path != NULL && pf_path_exists(path);
}

/* Before it is opened: folders could name each other in a circle. */
static peft_status check_folder(pf_arena *a, const char *dir, peft_error *err) {
    const bool single = has(a, dir, "adapter_config.json"),
               fusion = has(a, dir, PF_FUSION_CONFIG) && !single;
    if (!fusion && !has(a, dir, "adapter_setup.json") && !has(a, dir, PF_SEVERAL_FILE))
        return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s holds %s; AdapterFusion is over single bottleneck adapters", dir,
                   fusion ? "a fusion itself" : "several adapters");
}

static peft_status hold(pf_adapter *ad, const char *path, const char *name, peft_error *err) {
    pf_adapter *h, **end = &ad->held;
    PF_TRY(check_folder(&ad->arena, path, err));
    PF_TRY(pf_adapter_open(&h, ad->model, path, false, err));
    pf_adapter_suspend(h);
    peft_status status = PEFT_OK;
    if (name != NULL && is_bottleneck(h)) status = rename_adapter(h, name, err);
    if (status == PEFT_OK) status = check_held(ad, h, path, err);
    if (status != PEFT_OK) {
        pf_adapter_close(h);
        return status;
    }
    h->held_as = bottleneck_of(h)->adapter_name;
    while (*end != NULL) end = &(*end)->next;
    *end = h;
    return PEFT_OK;
}

static peft_status hold_all(pf_adapter *ad, peft_error *err) {
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    const pf_strlist *paths = &cfg->adapters.list, *names = &cfg->adapter_names.list;
    if (paths->n < 2 || paths->n > PF_ADAPTER_HELD) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       KEY ".adapters should name the folders of 2 to %d "
                           "adapters; there are %d",
                       PF_ADAPTER_HELD, paths->n);
    }
    if (names->n > 0 && names->n != paths->n) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       KEY ".adapter_names has %d names for %d adapters; one for each", names->n,
                       paths->n);
    }
    for (int i = 0; i < paths->n; i++)
        PF_TRY(hold(ad, paths->items[i], names->n > 0 ? names->items[i] : NULL, err));
    return PEFT_OK;
}

const char *pf_adapter_fusion_name(const pf_adapter *ad) {
    pf_buf b = {0};
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next)
        pf_buf_addf(&b, "%s%s", h == ad->held ? "" : ",", h->held_as);
    const char *name = pf_buf_ok(&b)
                           ? pf_arena_strdup(&((pf_adapter *)(uintptr_t)ad)->arena, pf_buf_str(&b))
                           : NULL;
    pf_buf_free(&b);
    return name;
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_projection(pf_adapter *ad, const char *prefix, const char *name, bool bias,
                                  pf_projection *p, peft_error *err) {
    const int64_t C = ad->model->hidden;
    const char *at = pf_arena_printf(&ad->arena, "%s.%s", prefix, name);
    PF_CHECK_ALLOC(at, err);
    *p = (pf_projection){.in = C, .out = C};
    PF_TRY(pf_bottleneck_param(ad, at, "weight", C, C, &p->weight, err));
    return bias ? pf_bottleneck_vector(ad, at, "bias", C, &p->bias, err) : PEFT_OK;
}

static peft_status attach_place(pf_adapter *ad, pf_site *site, const char *module, const char *name,
                                place ***end, peft_error *err) {
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    const char *adapters = strstr(module, ".adapters.");
    place *p = PF_NEW(&ad->arena, place);
    PF_CHECK_ALLOC(p, err);
    const char *prefix = pf_arena_printf(&ad->arena, "%.*s.adapter_fusion_layer.%s",
                                         (int)(adapters - module), module, name);
    PF_CHECK_ALLOC(prefix, err);
    p->ad = ad;
    if (cfg->query) PF_TRY(add_projection(ad, prefix, "query", true, &p->query, err));
    if (cfg->key) PF_TRY(add_projection(ad, prefix, "key", true, &p->key, err));
    if (cfg->value) PF_TRY(add_projection(ad, prefix, "value", false, &p->value, err));
    **end = p;
    *end = &p->next;
    return pf_adapter_hook(ad, site, &hooks, p, err);
}

/* Where the first adapter has a module the others have to have one, and only there. */
static peft_status check_place(const pf_adapter *ad, const pf_site *site, peft_error *err) {
    const bool first = pf_bottleneck_module(ad->held, site) != NULL;
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next) {
        if ((pf_bottleneck_module(h, site) != NULL) == first) continue;
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "adapter '%s' acts at %s and '%s' does not; the adapters of a fusion have to "
            "have the same places (mh_adapter, output_adapter, leave_out)",
            first ? ad->held->held_as : h->held_as, site->name,
            first ? h->held_as : ad->held->held_as);
    }
    return PEFT_OK;
}

static peft_status attach(pf_adapter *ad, peft_error *err) {
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    place *first = NULL, **end = &first;
    PF_TRY(hold_all(ad, err));
    const char *name = pf_adapter_fusion_name(ad);
    PF_CHECK_ALLOC(name, err);
    ad->dropout = cfg->dropout_prob;
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_site *site = ad->model->sites[i];
        const char *module = pf_bottleneck_module(ad->held, site);
        PF_TRY(check_place(ad, site, err));
        if (module != NULL) PF_TRY(attach_place(ad, site, module, name, &end, err));
    }
    ad->state = first;
    return PEFT_OK;
}

/* ---- weights --------------------------------------------------------------------------------- */

#define OFF_DIAGONAL 1e-6 /* of a value matrix at first, as AdapterHub has it */

static peft_status init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    for (const place *p = ad->state; p != NULL; p = p->next) {
        if (p->query.weight != NULL) pf_fill_normal(p->query.weight, seed, 0.02);
        if (p->key.weight != NULL) pf_fill_normal(p->key.weight, seed, 0.02);
        if (p->value.weight == NULL) continue;
        if (!cfg->value_initialized) {
            pf_fill_normal(p->value.weight, seed, 0.02);
            continue;
        }
        pf_fill_constant(p->value.weight, OFF_DIAGONAL);
        for (int64_t i = 0; i < p->value.in; i++) p->value.weight->data[i * p->value.in + i] = 1;
    }
    return PEFT_OK;
}

/* All scores of a row have what the key's bias adds, which a softmax does not see. */
static void ready(pf_adapter *ad) {
    for (const place *p = ad->state; p != NULL; p = p->next) {
        if (p->key.bias != NULL) p->key.bias->may_idle = true;
    }
}

/* The gradient of 0.01 · |I - W_v|² */
static peft_status after_backward(pf_adapter *ad, peft_error *err) {
    (void)err;
    const pf_adapter_fusion_cfg *cfg = ad->cfg.method_cfg;
    for (const place *p = ad->state; cfg->regularization && p != NULL; p = p->next) {
        const pf_param *v = p->value.weight;
        if (v == NULL || v->frozen) continue;
        for (int64_t i = 0; i < v->rows * v->cols; i++)
            v->grad[i] += (pf_real)0.02 * (v->data[i] - (i % (v->cols + 1) == 0));
    }
    return PEFT_OK;
}

static bool has_dropout(const pf_adapter *ad) {
    bool random = ((const pf_adapter_fusion_cfg *)ad->cfg.method_cfg)->dropout_prob > 0;
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next)
        random |= bottleneck_of(h)->stochastic_depth > 0;
    return random;
}

const pf_method pf_method_adapter_fusion = {
    .name = "adapter_fusion",
    .help = "attention over several trained bottleneck adapters (AdapterFusion, arXiv 2005.00247)",
    .paper = "AdapterFusion: Non-Destructive Task Composition for Transfer Learning, Pfeiffer et "
             "al. 2020, arXiv 2005.00247",
    .cfg_rows = pf_adapter_fusion_rows,
    .cfg_size = sizeof(pf_adapter_fusion_cfg),
    .check_cfg = pf_adapter_fusion_check_config,
    .is_adapterhub = pf_adapter_fusion_is_config,
    .config_file = "adapter_fusion_config.json",
    .weight_file = "model_adapter_fusion.safetensors",
    .no_merge = "what the adapters add depends on the row, so no weight can hold it",
    .attach = attach,
    .init = init,
    .ready = ready,
    .after_backward = after_backward,
    .has_dropout = has_dropout,
    .read_config = pf_adapter_fusion_read_config,
    .write_config = pf_adapter_fusion_write_config,
};
