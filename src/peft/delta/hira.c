/* hira.c - HiRA: y = W x + (W * B A) x, * element by element: a factor of low rank for each number
 * of the weight, and so an update of as high a rank as W (Huang et al. 2025, ICLR).
 *
 * Some rows of W * B A exist at a time (weighted_rows.c). hira_A (r, in), hira_B (out, r) and their
 * first numbers are peft's. peft has the same for embeddings; here it is for linear layers and the
 * head. */
#include "base/log.h"
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"
#include "peft/peft_json.h"
#include "text/json.h"

typedef struct hira_cfg {
    pf_delta_cfg d;
    int64_t r;
    double hira_dropout;
    const char *init_weights;
} hira_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(hira_cfg, r, 32, 1, 65536, "rank of the factors"),
    PF_CFG_FLOAT(hira_cfg, hira_dropout, 0, 0, 1, "share of the input dropped, in training only", .flags = PF_CFG_BELOW_MAX, .aliases = "dropout"),
    PF_DELTA_TARGET_ROWS(hira_cfg),
    PF_CFG_ENUM(hira_cfg, init_weights, "true", "true=yes=on gaussian false=no=off", "true: A uniform (Kaiming), B zero; gaussian: A normal, B zero; false: both random, for tests"),
    PF_CFG_END};
/* clang-format on */

enum { A, B };

typedef struct hira_site {
    pf_delta_site s; /* A (r, in), B (out, r) */
} hira_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    hira_site *l = self;
    const hira_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_graph *g = b->graph;
    pf_value *p[PF_DELTA_PARAMS], *delta;
    const pf_drop_args drop = {
        .p = cfg->hira_dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_site_weight(b, site, &p[2], err));
    PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
    PF_TRY(pf_rowmap_emit(g, site->name, &pf_weighted_rows, NULL, x, p, 3, &delta, err));
    return pf_add(g, site->name, *y, delta, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    hira_site *l = self;
    pf_param *p;
    PF_TRY(pf_delta_param(ad, &l->s, ".hira_A", t->r, l->s.site->in_dim, &p, err));
    return pf_delta_param(ad, &l->s, ".hira_B", l->s.site->out_dim, t->r, &p, err);
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const char *how = ((const hira_cfg *)ad->cfg.method_cfg)->init_weights;
    const hira_site *l = self;
    if (pf_streq(how, "true")) {
        pf_delta_fill_kaiming(l->s.p[A], seed);
    } else {
        pf_fill_normal(l->s.p[A], seed,
                       pf_streq(how, "gaussian") ? 1 / (double)l->s.p[A]->rows : 1);
    }
    if (pf_streq(how, "false")) pf_fill_normal(l->s.p[B], seed, 1);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const hira_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.hira",
                                   .what = "HiRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(hira_cfg),
                                   .site_size = sizeof(hira_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site};

static peft_status hira_attach(pf_adapter *ad, peft_error *err) {
    ad->dropout = ((const hira_cfg *)ad->cfg.method_cfg)->hira_dropout;
    return pf_delta_attach(ad, &kind, err);
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const hira_cfg *)ad->cfg.method_cfg)->hira_dropout > 0;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    if (!pf_peft_is_off(json_object_get(c, "rank_pattern")))
        PF_WARN("%s: rank_pattern is set, which peft does not apply to HiRA; nor is it here",
                where);
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const hira_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim, R = l->s.p[A]->rows;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        const pf_real *b = l->s.p[B]->data + (row0 + i) * R;
        for (int64_t c = 0; c < C; c++) {
            double sum = 1;
            for (int64_t k = 0; k < R; k++)
                sum += (double)b[k] * (double)l->s.p[A]->data[k * C + c];
            out[i * C + c] = (float)(sum * (double)out[i * C + c]);
        }
    }
    return PEFT_OK;
}

const pf_method pf_method_hira = {
    .name = "hira",
    .help = "low-rank factors for each number of a weight (HiRA, ICLR 2025)",
    .paper = "HiRA: Parameter-Efficient Hadamard High-Rank Adaptation for Large Language Models, "
             "Huang et al. 2025, ICLR",
    .cfg_rows = rows,
    .cfg_size = sizeof(hira_cfg),
    .peft_type = "HIRA",
    .attach = hira_attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
