/* gralora.c - GraLoRA: the weight cut into gralora_k x gralora_k blocks, each with a LoRA of rank r
 * / gralora_k of its own (Jung et al. 2025, arXiv 2505.20355): as many numbers as LoRA of rank r,
 * and gralora_k times its rank. hybrid_r adds a plain LoRA. scale = alpha / (r + hybrid_r).
 *
 * The blocks of a column of blocks share their input and those of a row their output, so there are
 * gralora_k As and Bs with all ranks of their column or row (granular.c). Tensors are peft's:
 * gralora_A (k, in / k, r), gralora_B (k, r, out / k), gralora_A_general, gralora_B_general. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/matmul/lowrank.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>
#include <string.h>

typedef struct gralora_cfg {
    pf_delta_cfg d;
    int64_t r, hybrid_r, gralora_k;
    double alpha, gralora_dropout;
    bool init_weights;
} gralora_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(gralora_cfg, r, 32, 1, 65536, "ranks of a block's column and row together; a multiple of gralora_k"),
    PF_CFG_INT(gralora_cfg, hybrid_r, 0, 0, 65536, "rank of a plain LoRA beside; 0: none"),
    PF_CFG_FLOAT(gralora_cfg, alpha, 64, 0, 1e6, "the update is scaled by alpha / (r + hybrid_r)"),
    PF_CFG_FLOAT(gralora_cfg, gralora_dropout, 0, 0, 1, "share of the input dropped, in training only", .flags = PF_CFG_BELOW_MAX, .aliases = "dropout"),
    PF_CFG_INT(gralora_cfg, gralora_k, 2, 1, 4096, "the weight is cut into so many by so many blocks; a divisor of inputs and outputs"),
    PF_DELTA_NAME_ROWS(gralora_cfg),
    PF_DELTA_LAYER_ROWS(gralora_cfg),
    PF_CFG_BOOL(gralora_cfg, init_weights, true, "the update is zero at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

enum { A, B, A_GENERAL, B_GENERAL };

typedef struct gralora_site {
    pf_delta_site s; /* A (in, r), B (k r, out / k); A_general (hybrid_r, in), B_general */
    pf_granular_args args;
} gralora_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    gralora_site *l = self;
    const gralora_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_graph *g = b->graph;
    pf_value *p[PF_DELTA_PARAMS], *delta;
    const pf_drop_args drop = {
        .p = cfg->gralora_dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    const pf_lowrank_args plain = {.scale = l->args.scale};
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
    PF_TRY(pf_rowmap_emit(g, site->name, &pf_granular, &l->args, x, p, 2, &delta, err));
    PF_TRY(pf_add(g, site->name, *y, delta, y, err));
    if (cfg->hybrid_r == 0) return PEFT_OK;
    return pf_lowrank(g, site->name, *y, x, p[A_GENERAL], p[B_GENERAL], &plain, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const gralora_cfg *cfg = ad->cfg.method_cfg;
    gralora_site *l = self;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim, k = cfg->gralora_k;
    pf_param *p;
    (void)t;
    if (in % k != 0 || out % k != 0 || cfg->r % k != 0)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.gralora.gralora_k is %lld; it should divide %lld x %lld and r, "
                       "which is %lld",
                       l->s.site->name, (long long)k, (long long)out, (long long)in,
                       (long long)cfg->r);
    l->args = (pf_granular_args){k, cfg->alpha / (double)(cfg->r + cfg->hybrid_r)};
    PF_TRY(pf_delta_param(ad, &l->s, ".gralora_A", in, cfg->r, &p, err));
    p->n_dims = 3;
    memcpy(p->dims, (const int64_t[]){k, in / k, cfg->r}, 3 * sizeof *p->dims);
    PF_TRY(pf_delta_param(ad, &l->s, ".gralora_B", k * cfg->r, out / k, &p, err));
    p->n_dims = 3;
    memcpy(p->dims, (const int64_t[]){k, cfg->r, out / k}, 3 * sizeof *p->dims);
    if (cfg->hybrid_r == 0) return PEFT_OK;
    PF_TRY(pf_delta_param(ad, &l->s, ".gralora_A_general.weight", cfg->hybrid_r, in, &p, err));
    return pf_delta_param(ad, &l->s, ".gralora_B_general.weight", out, cfg->hybrid_r, &p, err);
}

/* peft draws A and B with their inputs in a row: bounds are of those. */
static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const gralora_cfg *cfg = ad->cfg.method_cfg;
    const gralora_site *l = self;
    const double k = (double)cfg->gralora_k;
    pf_fill_uniform(l->s.p[A], seed, sqrt(k / (double)l->s.site->in_dim));
    if (!cfg->init_weights) pf_fill_uniform(l->s.p[B], seed, 1 / sqrt((double)cfg->r));
    if (cfg->hybrid_r == 0) return;
    pf_delta_fill_kaiming(l->s.p[A_GENERAL], seed);
    if (!cfg->init_weights) pf_delta_fill_kaiming(l->s.p[B_GENERAL], seed);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const gralora_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.gralora",
                                   .what = "GraLoRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(gralora_cfg),
                                   .site_size = sizeof(gralora_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status gralora_attach(pf_adapter *ad, peft_error *err) {
    ad->dropout = ((const gralora_cfg *)ad->cfg.method_cfg)->gralora_dropout;
    return pf_delta_attach(ad, &kind, err);
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const gralora_cfg *)ad->cfg.method_cfg)->gralora_dropout > 0;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Of output o in row j of blocks and input c in column i: ranks i r / k .. of B_j, j r / k .. of
 * A_i */
static double element(const gralora_site *l, int64_t o, int64_t c) {
    const pf_param *a = l->s.p[A], *b = l->s.p[B];
    const int64_t k = l->args.n, q = a->cols, part = q / k, out = b->cols;
    const int64_t i = c / (a->rows / k), j = o / out;
    double sum = 0;
    for (int64_t s = 0; s < part; s++)
        sum += (double)a->data[c * q + j * part + s] *
               (double)b->data[(j * q + i * part + s) * out + o % out];
    return sum;
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const gralora_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t c = 0; c < C; c++) {
            float *at = out + i * C + c;
            *at = (float)((double)*at + l->args.scale * element(l, row0 + i, c));
        }
    }
    if (l->s.n_p > B_GENERAL) {
        const pf_param *a = l->s.p[A_GENERAL], *b = l->s.p[B_GENERAL];
        pf_delta_add_product(out, n, C, l->args.scale, a->rows, b->data + row0 * b->cols, b->cols,
                             a->data);
    }
    return PEFT_OK;
}

const pf_method pf_method_gralora = {
    .name = "gralora",
    .help = "a low-rank update for each block of a weight (GraLoRA, arXiv 2505.20355)",
    .paper = "GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning, Jung et "
             "al. 2025, arXiv 2505.20355",
    .cfg_rows = rows,
    .cfg_size = sizeof(gralora_cfg),
    .peft_type = "GRALORA",
    .attach = gralora_attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
