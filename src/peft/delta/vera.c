/* vera.c - VeRA: y = W x + b * B (d * A x), * element by element; A and B are random, frozen and
 * shared by all layers, b and d are trained (Kopiczko et al. 2023, arXiv 2310.11454).
 *
 * A is (r, widest input), B (widest output, r); a layer takes the corner that it needs. Rows go
 * through two thin products and two scalings, no (out, in) matrix exists. The two are drawn from
 * projection_prng_key as torch draws them (base/torch_rng.h), so a file without them
 * (save_projection: false) means the same here and in peft. */
#include "base/mem.h"
#include "base/torch_rng.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale_cols.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>

typedef struct vera_cfg {
    pf_delta_cfg d;
    int64_t r, projection_prng_key;
    double vera_dropout, d_initial;
    bool save_projection, init_weights;
} vera_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(vera_cfg, r, 256, 1, 65536, "rank of the two random matrices"),
    PF_CFG_INT(vera_cfg, projection_prng_key, 0, 0, 9007199254740992.0, "seed of the two random matrices"),
    PF_CFG_BOOL(vera_cfg, save_projection, true, "the two random matrices are in the file; else they are drawn again from the seed"),
    PF_CFG_FLOAT(vera_cfg, vera_dropout, 0, 0, 1, "share of the input dropped before A, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_FLOAT(vera_cfg, d_initial, 0.1, -1e6, 1e6, "first value of d; b is zero at first"),
    PF_DELTA_TARGET_ROWS(vera_cfg),
    PF_CFG_BOOL(vera_cfg, init_weights, true, "b is zero at first; false: d random and b one, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct vera_site {
    pf_delta_site s; /* lambda_b (out), lambda_d (r) */
    pf_param *a, *b; /* shared */
    pf_corner_args corner_a, corner_b;
    double dropout;
} vera_site;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status corner(pf_build *b, const pf_site *site, pf_param *p, const pf_corner_args *args,
                          pf_value **out, peft_error *err) {
    pf_value *all = pf_graph_param(b->graph, p);
    PF_CHECK_ALLOC(all, err);
    return pf_derive_emit(b->graph, site->name, &pf_corner, args, &all, 1, out, err);
}

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    vera_site *l = self;
    pf_graph *g = b->graph;
    pf_value *lambda[PF_DELTA_PARAMS], *va, *vb, *s;
    const pf_drop_args drop = {.p = l->dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    PF_TRY(pf_delta_values(b, &l->s, lambda, err));
    PF_TRY(corner(b, site, l->a, &l->corner_a, &va, err));
    PF_TRY(corner(b, site, l->b, &l->corner_b, &vb, err));
    PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
    PF_TRY(pf_linear(g, site->name, x, va, NULL, &s, err));
    PF_TRY(pf_scale_cols(g, site->name, s, lambda[1], &s, err));
    PF_TRY(pf_linear(g, site->name, s, vb, NULL, &s, err));
    PF_TRY(pf_scale_cols(g, site->name, s, lambda[0], &s, err));
    return pf_add(g, site->name, *y, s, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    vera_site *l = self;
    pf_param *p;
    (void)t;
    l->dropout = cfg->vera_dropout;
    l->corner_a = (pf_corner_args){cfg->r, l->s.site->in_dim};
    l->corner_b = (pf_corner_args){l->s.site->out_dim, cfg->r};
    PF_TRY(pf_delta_param(ad, &l->s, ".vera_lambda_b", 1, l->s.site->out_dim, &p, err));
    p->is_vector = true;
    PF_TRY(pf_delta_param(ad, &l->s, ".vera_lambda_d", 1, cfg->r, &p, err));
    p->is_vector = true;
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    vera_site *l = self;
    pf_fill_constant(l->s.p[0], cfg->init_weights ? 0 : 1);
    pf_fill_constant(l->s.p[1], cfg->d_initial);
    if (!cfg->init_weights) pf_fill_normal(l->s.p[1], seed, 1);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const vera_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.vera",
                                   .what = "VeRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(vera_cfg),
                                   .site_size = sizeof(vera_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

/* A matrix that all sites share: no parameter of peft's model, so it is not counted. */
static peft_status add_shared(pf_adapter *ad, const char *name, int64_t n_rows, int64_t cols,
                              pf_param **out, peft_error *err) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    PF_TRY(pf_params_add(&ad->params, name, n_rows, cols, out, err));
    pf_params_freeze(&ad->params, *out);
    (*out)->unsaved = !cfg->save_projection;
    return PEFT_OK;
}

static peft_status vera_attach(pf_adapter *ad, peft_error *err) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    int64_t in = 0, out = 0;
    pf_param *a, *b;
    PF_TRY(pf_delta_attach(ad, &kind, err));
    for (int i = 0; i < m->n_sites; i++) {
        if (!pf_delta_touches(ad, m->sites[i])) continue;
        if (m->sites[i]->in_dim > in) in = m->sites[i]->in_dim;
        if (m->sites[i]->out_dim > out) out = m->sites[i]->out_dim;
    }
    PF_TRY(add_shared(ad, "base_model.vera_A", cfg->r, in, &a, err));
    PF_TRY(add_shared(ad, "base_model.vera_B", out, cfg->r, &b, err));
    for (int i = 0; i < m->n_sites; i++) {
        vera_site *l = pf_delta_at(ad, m->sites[i]);
        if (l == NULL) continue;
        l->a = a;
        l->b = b;
    }
    return PEFT_OK;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Kaiming's uniform numbers of gain sqrt(2), in peft's order: A, then B. */
static void draw(pf_adapter *ad) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    pf_torch_rng g;
    pf_torch_rng_init(&g, (uint64_t)cfg->projection_prng_key);
    const vera_site *any = NULL;
    for (int i = 0; any == NULL; i++) any = pf_delta_at(ad, ad->model->sites[i]);
    for (int i = 0; i < 2; i++) {
        pf_param *p = i == 0 ? any->a : any->b;
        const double bound = sqrt(3.0) * (sqrt(2.0) / sqrt((double)p->cols));
        for (int64_t k = 0; k < p->rows * p->cols; k++)
            p->data[k] = (pf_real)pf_torch_rng_uniform(&g, (float)-bound, (float)bound);
    }
}

static peft_status vera_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    draw(ad);
    return pf_delta_init(ad, seed, err);
}

static void vera_ready(pf_adapter *ad) {
    const vera_cfg *cfg = ad->cfg.method_cfg;
    if (!cfg->save_projection) draw(ad);
    pf_delta_ready(ad);
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const vera_cfg *)ad->cfg.method_cfg)->vera_dropout > 0;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const vera_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim, r = l->a->rows;
    double *sum = pf_calloc((size_t)C, sizeof *sum);
    PF_CHECK_ALLOC(sum, err);
    for (int64_t i = 0; i < n; i++) {
        const double f = (double)l->s.p[0]->data[row0 + i];
        float *row = out + i * C;
        for (int64_t c = 0; c < C; c++) sum[c] = 0;
        for (int64_t k = 0; k < r; k++) {
            const double s = (double)l->b->data[(row0 + i) * r + k] * (double)l->s.p[1]->data[k];
            for (int64_t c = 0; c < C; c++) sum[c] += s * (double)l->a->data[k * l->a->cols + c];
        }
        for (int64_t c = 0; c < C; c++) row[c] = (float)((double)row[c] + f * sum[c]);
    }
    pf_free(sum);
    return PEFT_OK;
}

const pf_method pf_method_vera = {
    .name = "vera",
    .help = "two trained vectors between shared random matrices (VeRA, arXiv 2310.11454)",
    .paper = "VeRA: Vector-based Random Matrix Adaptation, Kopiczko et al. 2023, arXiv 2310.11454",
    .cfg_rows = rows,
    .cfg_size = sizeof(vera_cfg),
    .peft_type = "VERA",
    .attach = vera_attach,
    .init = vera_init,
    .ready = vera_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
