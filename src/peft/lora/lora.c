/* lora.c - LoRA: y = W x + scale * B A drop(x)  (Hu et al. 2021, arXiv 2106.09685, section 4.1),
 * scale = alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023, arXiv 2312.03732).
 *
 * On a linear layer and on the head A is (r, in) and B (out, r); on an embedding A is (r, V), B (C,
 * r), and the update of token t is scale * B A[:, t], without dropout. W stays frozen and never has
 * a gradient; no (out, in) update matrix ever exists, in training or in generation. Biases (bias:
 * all, lora_only) and whole modules (modules_to_save) are trained beside, as peft does. Names and
 * initial distributions are peft's. Which modules: peft/targets.c; the file: lora_config.c. */
#include "peft/lora/lora.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "ops/embed/embed.h"
#include "ops/matmul/lowrank.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct lora_site {
    pf_param *a, *b; // linear, head: (r,in), (out,r); embedding: (r,V), (C,r)
    int64_t r;
    double scale, dropout;
    const pf_adapter *ad;
} lora_site;

typedef struct lora {
    lora_site **at; /* by site->index; NULL where LoRA does not act */
} lora;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status factors(pf_build *b, const lora_site *l, pf_value **va, pf_value **vb,
                           peft_error *err) {
    *va = pf_graph_param(b->graph, l->a);
    *vb = pf_graph_param(b->graph, l->b);
    PF_CHECK_ALLOC(*va, err);
    PF_CHECK_ALLOC(*vb, err);
    return PEFT_OK;
}

static peft_status linear_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                 uint32_t mask_key, pf_value **y, peft_error *err) {
    const lora_site *l = self;
    pf_value *va, *vb;
    PF_TRY(factors(b, l, &va, &vb, err));
    const pf_lowrank_args args = {
        .scale = l->scale, .dropout = l->dropout, .seed = l->ad->params.seed, .mask_key = mask_key};
    return pf_lowrank(b->graph, site->name, *y, x, va, vb, &args, y, err);
}

static peft_status embedding_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                    uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    const lora_site *l = self;
    pf_value *va, *vb;
    PF_TRY(factors(b, l, &va, &vb, err));
    return pf_embed_lowrank(b->graph, site->name, *y, va, vb, l->scale, y, err);
}

/* With the chunked loss the head's logits never exist: its update is formed chunk by chunk. */
static peft_status head_loss(pf_build *b, void *self, pf_site *site, pf_value **va, pf_value **vb,
                             pf_head_ce_args *args, peft_error *err) {
    (void)site;
    const lora_site *l = self;
    args->scale = l->scale;
    args->dropout = l->dropout;
    args->seed = l->ad->params.seed;
    return factors(b, l, va, vb, err);
}

static const pf_site_hooks linear_hooks = {.output = linear_output};
static const pf_site_hooks head_hooks = {.output = linear_output, .head = head_loss};
static const pf_site_hooks embedding_hooks = {.output = embedding_output};

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_param(pf_adapter *ad, const pf_site *site, const char *suffix, int64_t rows,
                             int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s", site->name, suffix);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_add_param(ad, name, rows, cols, out, err);
}

static peft_status attach_lora(pf_adapter *ad, const pf_lora_cfg *cfg, const pf_target *t,
                               pf_site *site, peft_error *err) {
    const pf_site_hooks *hooks = site->kind == PF_SITE_HEAD ? &head_hooks : &linear_hooks;
    lora_site *l = PF_NEW(&ad->arena, lora_site);
    PF_CHECK_ALLOC(l, err);
    l->ad = ad;
    l->r = t->r;
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
    ((lora *)ad->state)->at[site->index] = l;
    return pf_adapter_hook(ad, site, hooks, l, err);
}

/* The base's own bias, trained in place. peft finds it below base_layer where LoRA acts. */
static peft_status attach_bias(pf_adapter *ad, pf_site *site, bool has_lora, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s.bias", site->name,
                                       has_lora ? ".base_layer" : "");
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_train_whole(ad, site, true, name, false, err);
}

static peft_status lora_attach(pf_adapter *ad, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    const bool all_biases = pf_streq(cfg->bias, "all"),
               lora_biases = pf_streq(cfg->bias, "lora_only");
    int n_biases = 0;
    pf_target *targets;
    lora *st = PF_NEW(&ad->arena, lora);
    PF_CHECK_ALLOC(st, err);
    st->at = PF_NEW_ARRAY(&ad->arena, lora_site *, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    ad->state = st;
    ad->rank = cfg->r;
    ad->dropout = cfg->dropout;
    const pf_target_rules rules = pf_lora_rules(cfg);
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
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
    if ((all_biases || lora_biases) && n_biases == 0) {
        PF_WARN("peft.lora.bias is %s, but %s has no bias there: nothing is added", cfg->bias,
                m->name);
    }
    return PEFT_OK;
}

/* ---- first weights --------------------------------------------------------------------------- */

/* A parameter's numbers depend on the seed and its name alone, not on what else is trained. */
static pf_rng_key param_key(const pf_param *p, uint64_t seed) {
    return pf_rng_make_key(seed, PF_RNG_INIT, pf_hash64(p->name, strlen(p->name), 0));
}

static void fill_uniform(pf_param *p, uint64_t seed, double bound) {
    const pf_rng_key key = param_key(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(bound * (2 * pf_rng_uniform_at(key, (uint64_t)i) - 1));
    }
}

static void fill_normal(pf_param *p, uint64_t seed, double std) {
    const pf_rng_key key = param_key(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(std * pf_rng_normal_at(key, (uint64_t)i));
    }
}

/* kaiming_uniform_(a = sqrt(5)), torch's default for a linear layer, is uniform in
 * +-1/sqrt(fan_in). */
static void fill_kaiming(pf_param *p, uint64_t seed) {
    fill_uniform(p, seed, 1 / sqrt((double)p->cols));
}

static peft_status lora_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const lora *st = ad->state;
    const char *how = cfg->init_lora_weights;
    const bool gaussian = pf_streq(how, "gaussian"), random_b = pf_streq(how, "false");
    if (!gaussian && !random_b && !pf_streq(how, "true")) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "peft.lora.init_lora_weights '%s' is not supported yet; true, false and gaussian are",
            how);
    }
    for (int i = 0; i < ad->model->n_sites; i++) {
        const lora_site *l = st->at[i];
        if (l == NULL) continue;
        if (ad->model->sites[i]->kind ==
            PF_SITE_EMBEDDING) { /* A stays zero: the update is none at first */
            if (random_b) fill_normal(l->a, seed, 1);
            fill_normal(l->b, seed, 1);
        } else {
            if (gaussian) {
                fill_normal(l->a, seed, 1 / (double)l->r);
            } else {
                fill_kaiming(l->a, seed);
            }
            if (random_b) fill_kaiming(l->b, seed); /* else B stays zero */
        }
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
    const lora *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const lora_site *l = st->at[i];
        if (l == NULL) continue;
        l->a->zero_grad_ok = all_zero(l->b);
        l->b->zero_grad_ok = all_zero(l->a);
    }
}

/* ---- merging --------------------------------------------------------------------------------- */

static bool lora_touches(const pf_adapter *ad, const pf_site *site) {
    return ((const lora *)ad->state)->at[site->index] != NULL;
}

/* A factor as a matrix for the merge: element (i, k) is data[i * row_step + k * col_step]. */
typedef struct factor {
    const pf_real *data;
    int64_t row_step, col_step;
} factor;

/* rows (n,cols) += scale * left (n,r) right (r,cols), in double */
static void add_product(float *rows, int64_t n, int64_t cols, double scale, int64_t r, factor left,
                        factor right) {
    enum { CHUNK = 512 };
    double sum[CHUNK];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j0 = 0; j0 < cols; j0 += CHUNK) {
            const int64_t width = cols - j0 < CHUNK ? cols - j0 : CHUNK;
            float *row = rows + i * cols + j0;
            memset(sum, 0, sizeof sum);
            for (int64_t k = 0; k < r; k++) {
                const double a = (double)left.data[i * left.row_step + k * left.col_step];
                const pf_real *b = right.data + k * right.row_step + j0 * right.col_step;
                for (int64_t j = 0; j < width; j++) sum[j] += a * (double)b[j * right.col_step];
            }
            for (int64_t j = 0; j < width; j++) row[j] = (float)((double)row[j] + scale * sum[j]);
        }
    }
}

static peft_status lora_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                              float *rows, peft_error *err) {
    (void)err;
    const lora_site *l = ((const lora *)ad->state)->at[site->index];
    const int64_t r = l->r;
    factor left = {l->b->data + row0 * r, r, 1}, right = {l->a->data, site->in_dim, 1};
    if (site->kind == PF_SITE_EMBEDDING) { /* row t of the table: (B A[:, t])^T */
        left = (factor){l->a->data + row0, 1, l->a->cols};
        right = (factor){l->b->data, 1, r};
    }
    add_product(rows, n, site->in_dim, l->scale, r, left, right);
    return PEFT_OK;
}

static bool lora_has_dropout(const pf_adapter *ad) {
    return ((const pf_lora_cfg *)ad->cfg.method_cfg)->dropout > 0;
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
    .init = lora_init,
    .ready = lora_ready,
    .touches = lora_touches,
    .merge_weight = lora_merge,
    .has_dropout = lora_has_dropout,
    .read_config = pf_lora_read_config,
    .write_config = pf_lora_write_config,
};
