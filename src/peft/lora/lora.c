/* lora.c - LoRA: y = W x + scale * B A drop(x)  (Hu et al. 2021, arXiv 2106.09685, section 4.1),
 * scale = alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732).
 *
 * On a linear layer and on the head A is (r, in) and B (out, r); on an embedding A is (r, V), B (C,
 * r), and the update of token t is scale * B A[:, t], without dropout. W stays frozen and never has
 * a gradient; no (out, in) update matrix ever exists, in training or in generation. Biases (bias:
 * all, lora_only) and whole modules (modules_to_save) are trained beside, as peft does. Names and
 * initial distributions are peft's. Which modules: peft/targets.c; the file: lora_config.c; first
 * weights: lora_init.c, lora_eva.c; DoRA: lora_dora.c; merging: lora_merge.c. */
#include "peft/lora/lora.h"

#include "base/log.h"
#include "ops/embed/embed.h"
#include "ops/matmul/linear.h"
#include "ops/matmul/lowrank.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status factors(pf_build *b, pf_param *pa, pf_param *pb, pf_value **va, pf_value **vb,
                           peft_error *err) {
    *va = pf_graph_param(b->graph, pa);
    *vb = pf_graph_param(b->graph, pb);
    PF_CHECK_ALLOC(*va, err);
    PF_CHECK_ALLOC(*vb, err);
    return PEFT_OK;
}

/* The update of a linear layer; what is taken off with the first factors is no part of what is
 * trained, so it sees all of x. */
static peft_status linear_update(pf_build *b, void *self, pf_site *site, pf_value *x,
                                 uint32_t mask_key, pf_value **y, peft_error *err) {
    pf_lora_site *l = self;
    pf_value *va, *vb, *va0, *vb0;
    PF_TRY(factors(b, l->a, l->b, &va, &vb, err));
    const pf_lowrank_args args = {
        .scale = l->scale, .dropout = l->dropout, .seed = l->ad->params.seed, .mask_key = mask_key};
    PF_TRY(pf_lowrank(b->graph, site->name, *y, x, va, vb, &args, y, err));
    if (l->a0 != NULL) {
        const pf_lowrank_args off = {.scale = -l->scale};
        PF_TRY(factors(b, l->a0, l->b0, &va0, &vb0, err));
        PF_TRY(pf_lowrank(b->graph, site->name, *y, x, va0, vb0, &off, y, err));
    }
    if (l->bias != NULL) {
        pf_value *bias = pf_graph_param(b->graph, l->bias);
        PF_CHECK_ALLOC(bias, err);
        PF_TRY(pf_add_scaled_bias(b->graph, site->name, *y, bias, l->scale, y, err));
    }
    return l->magnitude != NULL ? pf_lora_dora_scale(b, l, va, vb, y, err) : PEFT_OK;
}

static peft_status embedding_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                    uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    pf_lora_site *l = self;
    pf_value *va, *vb;
    PF_TRY(factors(b, l->a, l->b, &va, &vb, err));
    PF_TRY(pf_embed_lowrank(b->graph, site->name, *y, va, vb, l->scale, y, err));
    return l->magnitude != NULL ? pf_lora_dora_scale(b, l, va, vb, y, err) : PEFT_OK;
}

/* With the chunked loss the head's logits never exist: its update is formed chunk by chunk. With
 * DoRA, a bias on B, or first factors that are part of the base, they are made (nn/site.h). */
static peft_status head_loss(pf_build *b, void *self, pf_site *site, pf_value **va, pf_value **vb,
                             pf_head_ce_args *args, peft_error *err) {
    (void)site;
    const pf_lora_site *l = self;
    args->scale = l->scale;
    args->dropout = l->dropout;
    args->seed = l->ad->params.seed;
    return factors(b, l->a, l->b, va, vb, err);
}

static const pf_site_hooks linear_hooks = {.output = linear_update};
static const pf_site_hooks dora_hooks = {.product = linear_update}; /* before the bias */
static const pf_site_hooks head_hooks = {.output = linear_update, .head = head_loss};
static const pf_site_hooks embedding_hooks = {.output = embedding_output};

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_param(pf_adapter *ad, const pf_site *site, const char *suffix, int64_t rows,
                             int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s", site->name, suffix);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_add_param(ad, name, rows, cols, out, err);
}

/* B's own bias: y + s (B A x + bias). */
static peft_status attach_lora_bias(pf_adapter *ad, pf_lora_site *l, peft_error *err) {
    const pf_site *site = l->site;
    if (site->kind == PF_SITE_EMBEDDING) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.lora.lora_bias: %s is an %s; a bias on B is for linear layers and the "
                       "head. Leave it out of target_modules",
                       site->name, pf_site_kind_name(site->kind));
    }
    PF_TRY(add_param(ad, site, ".lora_B.bias", 1, site->out_dim, &l->bias, err));
    l->bias->is_vector = true;
    l->bias->decay = false;
    return PEFT_OK;
}

static peft_status attach_lora(pf_adapter *ad, const pf_lora_cfg *cfg, const pf_target *t,
                               pf_site *site, peft_error *err) {
    const pf_site_hooks *hooks = &linear_hooks;
    pf_lora_site *l = PF_NEW(&ad->arena, pf_lora_site);
    PF_CHECK_ALLOC(l, err);
    l->ad = ad;
    l->site = site;
    l->r = t->r;
    l->alpha = t->alpha;
    l->scale = t->alpha / (cfg->use_rslora ? sqrt((double)t->r) : (double)t->r);
    l->dropout = cfg->dropout;
    if (site->kind == PF_SITE_EMBEDDING) {
        hooks = &embedding_hooks;
        PF_TRY(add_param(ad, site, ".lora_embedding_A", t->r, site->out_dim, &l->a, err));
        PF_TRY(add_param(ad, site, ".lora_embedding_B", site->in_dim, t->r, &l->b, err));
    } else {
        PF_TRY(add_param(ad, site, ".lora_A.weight", t->r, site->in_dim, &l->a, err));
        PF_TRY(add_param(ad, site, ".lora_B.weight", site->out_dim, t->r, &l->b, err));
    }
    if (ad->strict) /* else the factors come from a file */
        PF_TRY(pf_lora_init_attach(ad, l, pf_lora_init_of(cfg->init_lora_weights), err));
    if (cfg->lora_bias) PF_TRY(attach_lora_bias(ad, l, err));
    if (cfg->use_dora) {
        if (site->kind != PF_SITE_EMBEDDING) hooks = &dora_hooks;
        PF_TRY(pf_lora_dora_attach(ad, l, err));
    }
    if (site->kind == PF_SITE_HEAD && !cfg->use_dora && l->bias == NULL && l->a0 == NULL)
        hooks = &head_hooks;
    ((pf_lora *)ad->state)->at[site->index] = l;
    return pf_adapter_hook(ad, site, hooks, l, err);
}

/* The base's own bias, trained in place. peft finds it below base_layer where LoRA acts. */
static peft_status attach_bias(pf_adapter *ad, pf_site *site, bool has_lora, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s.bias", site->name,
                                       has_lora ? ".base_layer" : "");
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_train_whole(ad, site, true, name, false, err);
}

/* One matrix at two places, trained whole as one: the embedding's copy is the head's, too. Factors
 * are not tied: peft gives both modules parameters of their own, on one storage, which the
 * optimizer would move twice. */
static peft_status tie(pf_adapter *ad, pf_target *targets, bool *tied, peft_error *err) {
    const pf_model *m = ad->model;
    const pf_site *head = m->head, *embedding = m->embedding;
    *tied = false;
    if (head->tied_to == NULL) {
        PF_WARN("peft.lora.ensure_weight_tying is true, but embedding and head of %s share nothing",
                m->name);
        return PEFT_OK;
    }
    if (targets[head->index].hit || targets[embedding->index].hit)
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "peft.lora.ensure_weight_tying: %s is in target_modules, and factors are not "
            "tied here; name it in modules_to_save, or leave ensure_weight_tying out",
            targets[head->index].hit ? head->name : embedding->name);
    *tied = targets[head->index].whole || targets[embedding->index].whole;
    targets[head->index].whole = false;
    targets[embedding->index].whole = *tied;
    if (!*tied)
        PF_WARN(
            "peft.lora.ensure_weight_tying is true, but modules_to_save names neither %s nor %s",
            embedding->name, head->name);
    return PEFT_OK;
}

static peft_status lora_attach(pf_adapter *ad, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    const bool all_biases = pf_streq(cfg->bias, "all"),
               lora_biases = pf_streq(cfg->bias, "lora_only");
    int n_biases = 0;
    pf_target *targets;
    pf_lora *st = PF_NEW(&ad->arena, pf_lora);
    PF_CHECK_ALLOC(st, err);
    st->at = PF_NEW_ARRAY(&ad->arena, pf_lora_site *, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    ad->state = st;
    ad->rank = cfg->r;
    ad->dropout = cfg->dropout;
    if (pf_lora_init_of(cfg->init_lora_weights) == PF_LORA_INIT_UNKNOWN) {
        return PF_FAIL(err, PEFT_E_CONFIG, "peft.lora.init_lora_weights is '%s'; it should be %s",
                       cfg->init_lora_weights, pf_lora_init_names);
    }
    st->converted = ad->strict && pf_lora_init_on_base(pf_lora_init_of(cfg->init_lora_weights));
    if (st->converted) {
        PF_INFO("init_lora_weights is %s: the base stays as it is, and the adapter is saved as "
                "plain LoRA of twice the rank, which needs no other base",
                cfg->init_lora_weights);
    }
    const pf_target_rules rules = pf_lora_rules(cfg);
    bool tied = false;
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    if (cfg->ensure_weight_tying) PF_TRY(tie(ad, targets, &tied, err));
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *site = m->sites[i];
        if (targets[i].hit) PF_TRY(attach_lora(ad, cfg, &targets[i], site, err));
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, site, err));
        if (site->bias == NULL || targets[i].whole) continue;
        if (all_biases || (lora_biases && targets[i].hit)) {
            PF_TRY(attach_bias(ad, site, targets[i].hit, err));
            n_biases++;
        }
    }
    if (tied)
        PF_TRY(pf_adapter_train_shared(ad, m->head, false, m->embedding->trained_weight, err));
    pf_token_list room[1];
    const pf_token_lists tokens = pf_lora_token_lists(cfg, room);
    PF_TRY(pf_tokens_attach(ad, &tokens, "peft.lora.trainable_token_indices",
                            ".token_adapter.trainable_tokens_delta", &st->tokens, err));
    if ((all_biases || lora_biases) && n_biases == 0) {
        PF_WARN("peft.lora.bias is %s, but %s has no bias there: nothing is added", cfg->bias,
                m->name);
    }
    return PEFT_OK;
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        if (p->data[i] != 0) return false;
    }
    return true;
}

/* The gradient of one factor is zero as long as the other one is. */
static void lora_ready(pf_adapter *ad) {
    const pf_lora *st = ad->state;
    pf_lora_dora_prepare(ad);
    pf_tokens_ready(st->tokens);
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        l->a->zero_grad_ok = all_zero(l->b);
        l->b->zero_grad_ok = all_zero(l->a);
    }
}

static bool lora_has_dropout(const pf_adapter *ad) {
    return ((const pf_lora_cfg *)ad->cfg.method_cfg)->dropout > 0;
}

static bool keeps_tie(const pf_adapter *ad) {
    const pf_lora *st = ad->state;
    return pf_tokens_keep_tie(ad, st->tokens);
}

/* peft's file has a tied matrix by both of its names. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    const pf_site *head = ad->model->head, *embedding = ad->model->embedding;
    const size_t n = strlen(PF_ADAPTER_PREFIX);
    return head->trained_weight != NULL && head->trained_weight == embedding->trained_weight &&
           pf_starts_with(tensor, PF_ADAPTER_PREFIX) && pf_starts_with(tensor + n, head->name) &&
           pf_streq(tensor + n + strlen(head->name), ".weight");
}

/* ---- merging the bias of B ------------------------------------------------------------------- */

static bool touches_bias(const pf_adapter *ad, const pf_site *site) {
    const pf_lora_site *l = ((const pf_lora *)ad->state)->at[site->index];
    return l != NULL && l->bias != NULL;
}

static void merge_bias(const pf_adapter *ad, const pf_site *site, float *bias) {
    const pf_lora_site *l = ((const pf_lora *)ad->state)->at[site->index];
    for (int64_t i = 0; i < l->bias->cols; i++)
        bias[i] = (float)((double)bias[i] + l->scale * (double)l->bias->data[i]);
}

const pf_method pf_method_lora = {
    .name = "lora",
    .paper = "LoRA: Low-Rank Adaptation of Large Language Models, Hu et al. 2021, arXiv 2106.09685",
    .help = "low-rank updates of chosen matrices (LoRA, arXiv 2106.09685)",
    .cfg_rows = pf_lora_cfg_rows,
    .cfg_size = sizeof(pf_lora_cfg),
    .check_cfg = pf_lora_check_config,
    .peft_type = "LORA",
    .attach = lora_attach,
    .init = pf_lora_init,
    .first_look = &pf_lora_first_look,
    .ready = lora_ready,
    .train_as = pf_lora_train_as,
    .touches = pf_lora_touches,
    .merge_weight = pf_lora_merge,
    .touches_bias = touches_bias,
    .merge_bias = merge_bias,
    .file_size = pf_lora_file_size,
    .file_row = pf_lora_file_row,
    .keeps_tie = keeps_tie,
    .repeats = repeats,
    .has_dropout = lora_has_dropout,
    .read_config = pf_lora_read_config,
    .write_config = pf_lora_write_config,
};
