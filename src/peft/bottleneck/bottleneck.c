/* bottleneck.c - bottleneck adapters: A(h) = scaling · up(f(down(h))), added where a branch joins
 * the stream (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247; He et
 * al. 2021, arXiv 2110.04366, parallel; Steitz & Roth 2024, arXiv 2406.06820, Adapter+).
 *
 * With stream r (what the branch started from) and branch y, the model goes on with r + y, with
 * N(r + y) where it norms the sum (BERT, RoBERTa, OPT-350m), or with r + N(y) where it norms the
 * branch (Gemma 2 and 3, OLMo 2). What replaces that is AdapterHub's (N: nothing where the model
 * has no norm there):
 *
 *   h   = N(y + r) if original_ln_before, else y       the adapter's input
 *   res = y if residual_before_ln, else h              the residual around it; post_add: y + r
 *   out = A(h) + res, with ln_after: LN(A(h)) + res, or LN(A(h) + res) if
 *         adapter_residual_before_ln;                  is_parallel: A(r) + y
 *   original_ln_after: r + out, N(r + out), r + N(out);  else out
 *
 * Without original_ln_after nothing of the model comes behind an adapter, so where it norms the
 * branch, y is N(y) already, and there is no other N. AdapterHub 1.3 hands each layer of Gemma 2
 * and 3 the norm of the last one for the h of original_ln_before; so does this, or its files would
 * give other numbers.
 *
 * In encoder-decoders blocks are counted over both stacks, and mh_adapter is behind the
 * self-attention of both, cross_adapter behind the attention to the source. Where attention and MLP
 * start from the same rows there is no stream between them: the MLP's adapter sees y alone. Layers
 * in leave_out have none. The projections may be PHM layers (phm.c), rows may pass an invertible
 * adapter behind the embeddings (invertible.c). Nothing of this can be folded into weights.
 * use_gating: A(h) is multiplied with the mean over the text of sigmoid(w · h + b) (Mao et al.
 * 2022, UniPELT, arXiv 2110.07577), before the norm behind. */
#include "peft/bottleneck/bottleneck.h"

#include "base/log.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale.h"
#include "ops/activation/scale_cols.h"
#include "ops/activation/spread.h"
#include "ops/activation/text_gate.h"
#include "ops/matmul/linear.h"
#include "ops/norm/layer_norm.h"
#include "peft/first_weights.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

#define LN_EPS 1e-5 /* torch's LayerNorm */

typedef struct norm {
    pf_param *weight, *bias;
} norm;

typedef struct unit { /* one adapter module */
    const pf_adapter *ad;
    const char *name; /* of its module */
    const pf_bottleneck_cfg *cfg;
    pf_projection down, up;
    norm before, after;
    pf_param *scaling;         /* learned: one number, channel: one per column */
    double scale;              /* else */
    pf_projection gate;        /* use_gating */
    const pf_site *reads_norm; /* whose norm h passes; where the model has one */
    struct unit *next;
} unit;

typedef struct state {
    unit *first, **end;
    pf_bottleneck_shared shared;
    pf_invertible *inverse;
} state;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status part(pf_build *b, const pf_site *site, const char *what, const char **out,
                        peft_error *err) {
    *out = pf_arena_printf(&b->graph->arena, "%s.%s", site->name, what);
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

static peft_status build_norm(pf_build *b, const norm *n, const char *name, pf_value *x,
                              pf_value **y, peft_error *err) {
    pf_value *w = pf_graph_param(b->graph, n->weight), *bias = pf_graph_param(b->graph, n->bias);
    PF_CHECK_ALLOC(w, err);
    PF_CHECK_ALLOC(bias, err);
    return pf_layer_norm(b->graph, name, x, w, bias, LN_EPS, 0, y, err);
}

static peft_status build_scaling(pf_build *b, const unit *u, const char *name, pf_value **x,
                                 peft_error *err) {
    if (u->scaling == NULL) return pf_scale(b->graph, name, *x, u->scale, x, err);
    pf_value *v = pf_graph_param(b->graph, u->scaling);
    PF_CHECK_ALLOC(v, err);
    if (v->cols != (*x)->cols) PF_TRY(pf_spread(b->graph, name, v, (*x)->cols, &v, err));
    return pf_scale_cols(b->graph, name, *x, v, x, err);
}

/* scaling · up(f(down(h))) */
static peft_status build_up(pf_build *b, const unit *u, const pf_site *site, pf_value *h,
                            pf_value **y, peft_error *err) {
    const pf_bottleneck_cfg *cfg = u->cfg;
    const pf_op *f = pf_activation_find(cfg->non_linearity);
    const pf_drop_args depth = {.p = cfg->stochastic_depth,
                                .seed = u->ad->params.seed,
                                .mask_key = (uint32_t)site->index | 1u << 31,
                                .by_sample = true};
    const char *down, *up;
    PF_TRY(part(b, site, "adapter_down", &down, err));
    PF_TRY(part(b, site, "adapter_up", &up, err));
    if (u->before.weight != NULL) PF_TRY(build_norm(b, &u->before, down, h, &h, err));
    PF_TRY(pf_projection_build(b, cfg, &u->down, down, h, y, err));
    PF_TRY(pf_activation(b->graph, f, down, *y, y, err));
    PF_TRY(pf_projection_build(b, cfg, &u->up, up, *y, y, err));
    if (!cfg->is_parallel) PF_TRY(pf_drop(b->graph, up, *y, &depth, y, err));
    return build_scaling(b, u, up, y, err);
}

/* The same, dropped and gated. */
static peft_status build_unit(pf_build *b, const unit *u, const pf_site *site, pf_value *h,
                              pf_value **y, peft_error *err) {
    const pf_drop_args drop = {
        .p = u->cfg->dropout, .seed = u->ad->params.seed, .mask_key = (uint32_t)site->index};
    const char *name;
    pf_value *z;
    PF_TRY(part(b, site, "adapter_up", &name, err));
    PF_TRY(build_up(b, u, site, h, y, err));
    PF_TRY(pf_drop(b->graph, name, *y, &drop, y, err));
    if (u->gate.weight == NULL) return PEFT_OK;
    PF_TRY(pf_projection_build(b, u->cfg, &u->gate, name, h, &z, err));
    return pf_text_gate(b->graph, name, *y, z, y, err);
}

/* LN of A(h), with the residual inside where the configuration has it there: *rest is NULL then. */
static peft_status build_after(pf_build *b, const unit *u, const pf_site *site, pf_value **rest,
                               pf_value **y, peft_error *err) {
    const pf_bottleneck_cfg *cfg = u->cfg;
    if (u->after.weight == NULL) return PEFT_OK;
    if (cfg->adapter_residual_before_ln && !cfg->is_parallel) {
        PF_TRY(pf_add(b->graph, site->name, *rest, *y, y, err));
        *rest = NULL;
    }
    return build_norm(b, &u->after, site->name, *y, y, err);
}

static peft_status add_rest(pf_build *b, const pf_site *site, pf_value *rest, pf_value **y,
                            peft_error *err) {
    return rest == NULL ? PEFT_OK : pf_add(b->graph, site->name, rest, *y, y, err);
}

/* What the model does behind the adapter, whose output is rest + y; both: stream + rest, if that is
 * there already. */
static peft_status put_back(pf_build *b, const unit *u, const pf_site *site, pf_value *stream,
                            pf_value *rest, pf_value *both, pf_value *y, pf_value **sum,
                            peft_error *err) {
    *sum = y;
    if (!u->cfg->original_ln_after) return add_rest(b, site, rest, sum, err);
    if (site->norm != NULL && !site->norm->of_sum) {
        PF_TRY(add_rest(b, site, rest, sum, err));
        PF_TRY(pf_site_join_norm(b, site, *sum, sum, err));
        return pf_add(b->graph, site->name, stream, *sum, sum, err);
    }
    if (both == NULL) {
        both = stream;
        if (rest != NULL) PF_TRY(pf_add(b->graph, site->name, stream, rest, &both, err));
    }
    PF_TRY(pf_add(b->graph, site->name, both, y, sum, err));
    return site->norm != NULL ? pf_site_join_norm(b, site, *sum, sum, err) : PEFT_OK;
}

/* mix: in place of the unit's own A(h); NULL: none */
static peft_status join_unit(pf_build *b, const unit *u, const pf_bottleneck_mix *mix,
                             pf_site *site, pf_value *stream, pf_value *branch, pf_value **sum,
                             peft_error *err) {
    const pf_bottleneck_cfg *cfg = u->cfg;
    const bool of_branch = site->norm != NULL && !site->norm->of_sum,
               behind_norm = of_branch && !cfg->original_ln_after,
               before = cfg->original_ln_before && !cfg->is_parallel && !site->parallel;
    pf_value *both = NULL, *h, *rest, *y;
    if (behind_norm) PF_TRY(pf_site_join_norm(b, site, branch, &branch, err));
    if (before || (cfg->original_ln_after && !of_branch &&
                   (u->after.weight == NULL || mix != NULL))) /* the model's own node */
        PF_TRY(pf_add(b->graph, site->name, stream, branch, &both, err));
    h = cfg->is_parallel ? stream : before ? both : branch;
    if (before && site->norm != NULL && !behind_norm)
        PF_TRY(pf_site_join_norm(b, u->reads_norm, h, &h, err));
    rest = cfg->is_parallel || pf_streq(cfg->residual_before_ln, "true") ? branch
           : pf_streq(cfg->residual_before_ln, "post_add")               ? both
                                                                         : h;
    if (rest != branch) both = NULL;
    if (mix != NULL) {
        pf_bottleneck_flow f = {branch, h, cfg->is_parallel ? stream : rest, rest,
                                cfg->is_parallel};
        PF_TRY(mix->build(b, mix->self, site, &f, &y, err));
        rest = f.rest;
    } else {
        PF_TRY(build_unit(b, u, site, h, &y, err));
        PF_TRY(build_after(b, u, site, &rest, &y, err));
    }
    if (rest == NULL) both = NULL;
    return put_back(b, u, site, stream, rest, both, y, sum, err);
}

static peft_status join(pf_build *b, void *self, pf_site *site, pf_value *stream, pf_value *branch,
                        pf_value **sum, peft_error *err) {
    return join_unit(b, self, NULL, site, stream, branch, sum, err);
}

static const pf_site_hooks hooks = {.join = join};

/* ---- for fusion/ ----------------------------------------------------------------------------- */

static const unit *unit_at(const pf_adapter *ad, const pf_site *site) {
    for (int i = 0; i < ad->n_attached; i++) {
        const pf_attached *at = &ad->attached[i];
        if (at->site == site && at->hooks == &hooks) return at->self;
    }
    return NULL;
}

const char *pf_bottleneck_module(const pf_adapter *ad, const pf_site *site) {
    const unit *u = unit_at(ad, site);
    return u != NULL ? u->name : NULL;
}

peft_status pf_bottleneck_up(pf_build *b, const pf_adapter *ad, const pf_site *site, pf_value *h,
                             pf_value **y, peft_error *err) {
    return build_up(b, unit_at(ad, site), site, h, y, err);
}

peft_status pf_bottleneck_join_mixed(pf_build *b, const pf_adapter *ad,
                                     const pf_bottleneck_mix *mix, pf_site *site, pf_value *stream,
                                     pf_value *branch, pf_value **sum, peft_error *err) {
    return join_unit(b, unit_at(ad, site), mix, site, stream, branch, sum, err);
}

/* ---- parameters ------------------------------------------------------------------------------ */

peft_status pf_bottleneck_param(pf_adapter *ad, const char *prefix, const char *suffix,
                                int64_t rows, int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, "%s.%s", prefix, suffix);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_add_param(ad, name, rows, cols, out, err);
}

peft_status pf_bottleneck_vector(pf_adapter *ad, const char *prefix, const char *suffix, int64_t n,
                                 pf_param **out, peft_error *err) {
    PF_TRY(pf_bottleneck_param(ad, prefix, suffix, 1, n, out, err));
    (*out)->is_vector = true;
    (*out)->decay = false;
    return PEFT_OK;
}

peft_status pf_projection_add(pf_adapter *ad, const pf_bottleneck_cfg *cfg,
                              const pf_bottleneck_shared *shared, const char *prefix, bool is_up,
                              int64_t in, int64_t out, pf_projection *p, peft_error *err) {
    *p = (pf_projection){.in = in, .out = out};
    if (cfg->phm_layer) return pf_phm_add(ad, cfg, shared, prefix, is_up, p, err);
    PF_TRY(pf_bottleneck_param(ad, prefix, "weight", out, in, &p->weight, err));
    return pf_bottleneck_vector(ad, prefix, "bias", out, &p->bias, err);
}

peft_status pf_projection_build(pf_build *b, const pf_bottleneck_cfg *cfg, const pf_projection *p,
                                const char *name, pf_value *x, pf_value **y, peft_error *err) {
    pf_value *w;
    if (p->weight != NULL) {
        w = pf_graph_param(b->graph, p->weight);
        PF_CHECK_ALLOC(w, err);
    } else {
        PF_TRY(pf_phm_build(b, cfg, p, name, &w, err));
    }
    PF_TRY(pf_linear(b->graph, name, x, w, NULL, y, err));
    if (p->bias == NULL) return PEFT_OK;
    pf_value *bias = pf_graph_param(b->graph, p->bias);
    PF_CHECK_ALLOC(bias, err);
    return pf_add_bias(b->graph, name, *y, bias, y, err);
}

static peft_status add_norm(pf_adapter *ad, const char *prefix, const char *name, norm *n,
                            peft_error *err) {
    const char *at = pf_arena_printf(&ad->arena, "%s.%s", prefix, name);
    PF_CHECK_ALLOC(at, err);
    PF_TRY(pf_bottleneck_vector(ad, at, "weight", ad->model->hidden, &n->weight, err));
    return pf_bottleneck_vector(ad, at, "bias", ad->model->hidden, &n->bias, err);
}

static peft_status add_scaling(pf_adapter *ad, const char *prefix, unit *u, peft_error *err) {
    const char *word;
    if (!pf_bottleneck_scaling(u->cfg, &word, &u->scale)) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "scaling is '%s'; it should be a number, learned or channel",
                       u->cfg->scaling);
    }
    if (word == NULL) return PEFT_OK;
    PF_TRY(pf_bottleneck_vector(ad, prefix, "scaling",
                                pf_streq(word, "channel") ? ad->model->hidden : 1, &u->scaling,
                                err));
    u->scaling->decay = true; /* as transformers' Trainer: its name says neither bias nor norm */
    return PEFT_OK;
}

/* A row sees those behind it by way of the gate, so texts share no rows. */
static peft_status add_gate(pf_adapter *ad, const char *prefix, unit *u, peft_error *err) {
    const char *at = pf_arena_printf(&ad->arena, "%s.gate", prefix);
    PF_CHECK_ALLOC(at, err);
    u->gate = (pf_projection){.in = ad->model->hidden, .out = 1};
    ad->model->whole_texts = true;
    PF_TRY(pf_bottleneck_param(ad, at, "weight", 1, ad->model->hidden, &u->gate.weight, err));
    return pf_bottleneck_vector(ad, at, "bias", 1, &u->gate.bias, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status factor_of(const pf_bottleneck_cfg *cfg, int layer, double *factor,
                             peft_error *err) {
    double own = 0, rest = cfg->reduction_factor;
    for (int i = 0; i < cfg->reduction_factors.n; i++) {
        const pf_cfg_pair *p = &cfg->reduction_factors.items[i];
        int64_t at;
        if (pf_streq(p->key, "default")) rest = p->number;
        if (pf_parse_int(p->key, &at) && at == layer) own = p->number;
    }
    *factor = own > 0 ? own : rest;
    if (*factor > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "reduction_factor has no number for layer %d; add one, or \"default\"", layer);
}

static peft_status width_of(const pf_bottleneck_cfg *cfg, int64_t hidden, int layer, int64_t *width,
                            peft_error *err) {
    double factor;
    *width = cfg->bottleneck_size;
    if (*width > 0) return PEFT_OK;
    PF_TRY(factor_of(cfg, layer, &factor, err));
    const double w = pf_bottleneck_floor_divide((double)hidden, factor);
    if (!(w <= 64 * (double)hidden + 64)) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "a reduction_factor of %g makes adapters wider than 64 times the model; 16 "
                       "is usual",
                       factor);
    }
    *width = w < 1 ? 1 : (int64_t)w;
    return PEFT_OK;
}

static bool is_left_out(const pf_bottleneck_cfg *cfg, int64_t layer) {
    for (int i = 0; i < cfg->leave_out.n; i++) {
        if (cfg->leave_out.items[i] == layer) return true;
    }
    return false;
}

static bool wants(const pf_bottleneck_cfg *cfg, const pf_site *site) {
    return !is_left_out(cfg, site->block) &&
           ((cfg->mh_adapter && site->kind == PF_SITE_ATTENTION_OUTPUT) ||
            (cfg->cross_adapter && site->kind == PF_SITE_CROSS_OUTPUT) ||
            (cfg->output_adapter && site->kind == PF_SITE_MLP_OUTPUT));
}

/* Under which AdapterHub has an adapter: the module that adds branch and stream, or one of its own
 * in the block. */
static const char *module_of(pf_adapter *ad, const pf_site *site) {
    const int block = (int)(strrchr(site->name, '.') - site->name);
    if (site->module != NULL) return site->module;
    return pf_arena_printf(&ad->arena, "%.*s.%s_adapters", block, site->name,
                           site->kind == PF_SITE_MLP_OUTPUT ? "output" : "attention");
}

/* The last layer's, for model types whose layers AdapterHub 1.3 hands a getter in a loop. */
static const pf_site *whose_norm(const pf_model *m, const pf_site *site) {
    static const char *const of_last[] = {"gemma2", "gemma3_text", "gemma3"};
    const char *type = json_string_value(json_object_get(m->config, "model_type"));
    bool last = false;
    for (size_t i = 0; i < PF_COUNT(of_last); i++) last |= pf_streq(type, of_last[i]);
    for (int i = 0; i < m->n_sites && last; i++) {
        if (m->sites[i]->kind == site->kind) site = m->sites[i];
    }
    return site;
}

static peft_status attach_unit(pf_adapter *ad, pf_site *site, peft_error *err) {
    const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
    const int64_t hidden = ad->model->hidden;
    int64_t width;
    state *st = ad->state;
    unit *u = PF_NEW(&ad->arena, unit);
    PF_CHECK_ALLOC(u, err);
    const char *prefix =
        pf_arena_printf(&ad->arena, "%s.adapters.%s", module_of(ad, site), cfg->adapter_name);
    const char *down = pf_arena_printf(&ad->arena, "%s.adapter_down.%d", prefix, cfg->ln_before);
    const char *up = pf_arena_printf(&ad->arena, "%s.adapter_up", prefix);
    PF_CHECK_ALLOC(prefix, err);
    PF_CHECK_ALLOC(down, err);
    PF_CHECK_ALLOC(up, err);
    if (pf_streq(cfg->residual_before_ln, "post_add") && !cfg->is_parallel &&
        (!cfg->original_ln_before || site->norm == NULL)) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "residual_before_ln is post_add, the sum before the model's norm: that needs "
            "original_ln_before, and a model that norms behind a branch (BERT, Gemma 2); "
            "%s takes true or false",
            ad->model->architecture);
    }
    if (cfg->is_parallel && site->parallel) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: its MLP runs beside attention, so a parallel adapter there has no "
                       "input of its own; seq_bn works on such models",
                       ad->model->architecture);
    }
    u->ad = ad;
    u->name = prefix;
    u->cfg = cfg;
    u->reads_norm = whose_norm(ad->model, site);
    PF_TRY(width_of(cfg, hidden, site->block, &width, err));
    if (cfg->phm_layer) PF_TRY(pf_phm_check(cfg, hidden, width, err));
    PF_TRY(add_scaling(ad, prefix, u, err));
    if (cfg->ln_before) PF_TRY(add_norm(ad, prefix, "adapter_norm_before", &u->before, err));
    PF_TRY(pf_projection_add(ad, cfg, &st->shared, down, false, hidden, width, &u->down, err));
    PF_TRY(pf_projection_add(ad, cfg, &st->shared, up, true, width, hidden, &u->up, err));
    if (cfg->ln_after) PF_TRY(add_norm(ad, prefix, "adapter_norm_after", &u->after, err));
    if (cfg->use_gating) PF_TRY(add_gate(ad, prefix, u, err));
    *st->end = u;
    st->end = &u->next;
    return pf_adapter_hook(ad, site, &hooks, u, err);
}

/* Shared PHM parameters stand under the model itself: "model", "transformer", and with two stacks
 * above both (where AdapterHub 1.3 reads them, but forgets to save them). */
static peft_status add_shared(pf_adapter *ad, const pf_site *site, peft_error *err) {
    const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
    int64_t width;
    if (!cfg->phm_layer || (!cfg->shared_phm_rule && !cfg->shared_W_phm)) return PEFT_OK;
    const int n = ad->model->encoder_decoder ? 0 : (int)strcspn(site->name, ".") + 1;
    const char *prefix =
        pf_arena_printf(&ad->arena, "%.*sshared_parameters.%s", n, site->name, cfg->adapter_name);
    PF_CHECK_ALLOC(prefix, err);
    if (cfg->shared_W_phm && cfg->reduction_factors.n > 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "shared_W_phm shares matrices of one size: it cannot go with a "
                       "reduction_factor per layer");
    }
    PF_TRY(width_of(cfg, ad->model->hidden, site->block, &width, err));
    PF_TRY(pf_phm_check(cfg, ad->model->hidden, width, err));
    return pf_phm_add_shared(ad, cfg, prefix, ad->model->hidden, width,
                             &((state *)ad->state)->shared, err);
}

/* What a name in the configuration cannot mean here. */
static peft_status check_model(const pf_adapter *ad, peft_error *err) {
    const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    bool attention = false, mlp = false;
    int n_blocks = 0;
    for (int i = 0; i < m->n_sites; i++) {
        attention |= m->sites[i]->kind == PF_SITE_ATTENTION_OUTPUT;
        mlp |= m->sites[i]->kind == PF_SITE_MLP_OUTPUT;
        n_blocks += m->sites[i]->kind == PF_SITE_BLOCK_OUTPUT;
    }
    if (!attention || !mlp) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s has no place for bottleneck adapters yet; peft.method lora works on it",
                       m->architecture);
    }
    for (int i = 0; i < cfg->leave_out.n && ad->strict; i++) {
        if (cfg->leave_out.items[i] >= 0 && cfg->leave_out.items[i] < n_blocks) continue;
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.%s.leave_out has layer %lld; the layers of '%s' are 0 to %d%s",
                       ad->method->name, (long long)cfg->leave_out.items[i], m->name, n_blocks - 1,
                       m->encoder_decoder ? ", those of the decoder after those of the encoder"
                                          : "");
    }
    if (cfg->cross_adapter && !m->encoder_decoder && ad->strict) {
        return PF_FAIL(
            err, PEFT_E_CONFIG,
            "peft.%s.cross_adapter is true, but %s has no cross attention; leave it away",
            ad->method->name, m->architecture);
    }
    if (pf_activation_find(cfg->non_linearity) == NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "non_linearity '%s' is not known",
                       cfg->non_linearity);
    }
    return PEFT_OK;
}

peft_status pf_bottleneck_attach(pf_adapter *ad, peft_error *err) {
    const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    state *st = PF_NEW(&ad->arena, state);
    PF_CHECK_ALLOC(st, err);
    st->end = &st->first;
    ad->state = st;
    ad->dropout = cfg->dropout;
    PF_TRY(check_model(ad, err));
    PF_TRY(pf_invertible_attach(ad, cfg, &st->inverse, err));
    for (int i = 0; i < m->n_sites; i++) {
        if (!wants(cfg, m->sites[i])) continue;
        if (st->first == NULL) PF_TRY(add_shared(ad, m->sites[i], err));
        PF_TRY(attach_unit(ad, m->sites[i], err));
    }
    if (st->first != NULL || st->inverse != NULL) return PEFT_OK;
    return PF_FAIL(
        err, PEFT_E_CONFIG,
        "peft.%s: there is nothing to train: mh_adapter, output_adapter and cross_adapter are "
        "false, or "
        "leave_out has every layer",
        ad->method->name);
}

/* ---- first weights --------------------------------------------------------------------------- */

/* The part of a normal distribution within two standard deviations. */
static void fill_truncated(pf_param *p, uint64_t seed, double std) {
    pf_fill_normal(p, seed, std);
    for (int64_t i = 0; i < p->rows * p->cols; i++) { /* what lies outside is drawn in again */
        const double x = (double)p->data[i] / std;
        if (fabs(x) > 2) p->data[i] = (pf_real)(float)(std * remainder(x, 4));
    }
}

static void init_projection(const pf_bottleneck_cfg *cfg, const pf_projection *p, bool is_up,
                            uint64_t seed) {
    if (p->weight == NULL) {
        pf_phm_init(cfg, p, seed);
    } else if (pf_streq(cfg->init_weights, "houlsby")) {
        fill_truncated(p->weight, seed, 1e-2);
    } else if (pf_streq(cfg->init_weights, "bert")) {
        pf_fill_normal(p->weight, seed, 0.02);
    } else if (!is_up) { /* kaiming_uniform_(a = sqrt(5)); up stays zero */
        pf_fill_uniform(p->weight, seed, 1 / sqrt((double)p->in));
    }
}

/* houlsby leaves a gate as torch's Linear begins. */
static void init_gate(const unit *u, uint64_t seed) {
    const double bound = 1 / sqrt((double)u->gate.in);
    if (!pf_streq(u->cfg->init_weights, "houlsby")) {
        pf_fill_normal(u->gate.weight, seed, 0.02);
        return;
    }
    pf_fill_uniform(u->gate.weight, seed, bound);
    pf_fill_uniform(u->gate.bias, seed, bound);
}

peft_status pf_bottleneck_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const state *st = ad->state;
    for (const unit *u = st->first; u != NULL; u = u->next) {
        init_projection(u->cfg, &u->down, false, seed);
        init_projection(u->cfg, &u->up, true, seed);
        if (u->before.weight != NULL) pf_fill_constant(u->before.weight, 1);
        if (u->after.weight != NULL) pf_fill_constant(u->after.weight, 1);
        if (u->scaling != NULL) pf_fill_constant(u->scaling, 1);
        if (u->gate.weight != NULL) init_gate(u, seed);
    }
    if (st->inverse != NULL) pf_invertible_init(st->inverse, seed);
    return PEFT_OK;
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; p != NULL && i < p->rows * p->cols; i++) {
        if (p->data[i] != 0) return false;
    }
    return p != NULL;
}

/* While up is zero, what comes before it has no gradient. */
void pf_bottleneck_ready(pf_adapter *ad) {
    const state *st = ad->state;
    for (const unit *u = st->first; u != NULL; u = u->next) {
        const bool zero = all_zero(u->up.weight);
        pf_param *const above[] = {u->down.weight, u->down.bias,   u->before.weight,
                                   u->before.bias, u->gate.weight, u->gate.bias};
        for (size_t i = 0; i < PF_COUNT(above); i++) {
            if (above[i] != NULL) above[i]->zero_grad_ok = zero;
        }
        if (u->scaling != NULL) u->scaling->zero_grad_ok = zero && all_zero(u->up.bias);
    }
}

bool pf_bottleneck_has_dropout(const pf_adapter *ad) {
    const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
    return cfg->dropout > 0 || cfg->stochastic_depth > 0;
}

/* torch knows the norm before the bottleneck by two names: a file made of all of them repeats it.
 */
bool pf_bottleneck_repeats(const pf_adapter *ad, const char *tensor) {
    return ((const pf_bottleneck_cfg *)ad->cfg.method_cfg)->ln_before &&
           (pf_ends_with(tensor, ".adapter_down.0.weight") ||
            pf_ends_with(tensor, ".adapter_down.0.bias"));
}
