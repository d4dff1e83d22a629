/* delora.c - DeLoRA: y = W x + B S A (n * x), A and B with their ranks made of length 1 and
 * weighted by one trained number, S = lambda / r / (|a_i| |b_i|) on the diagonal; n, the norm of
 * each column of W, times the input (Bini et al. 2025, arXiv 2503.18225). So the size of the update
 * is bounded by lambda whatever the learning rate, and apart from its direction.
 *
 * S is made once per pass (bounded.c). n is a constant that the file has (delora_w_norm), which is
 * why a file fits other bases too. Names and first weights are peft's. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale_cols.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>

typedef struct delora_cfg {
    pf_delta_cfg d;
    int64_t r;
    double delora_lambda, module_dropout;
    pf_cfg_map lambda_pattern;
    bool init_weights;
} delora_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(delora_cfg, r, 8, 1, 65536, "rank of the update"),
    PF_CFG_FLOAT(delora_cfg, delora_lambda, 15, 0, 1e6, "size of the update at first, which is trained"),
    PF_CFG_FLOAT(delora_cfg, module_dropout, 0, 0, 1, "share of the input dropped before A, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_DELTA_TARGET_ROWS(delora_cfg),
    PF_CFG_NUMMAP_AS(delora_cfg, d.rank_pattern, "rank_pattern", 1, 65536, "other ranks for some modules: {name or regular expression: r}", .flags = PF_CFG_WHOLE),
    PF_CFG_NUMMAP(delora_cfg, lambda_pattern, 0, 1e6, "other sizes for some modules: {name or regular expression: lambda}"),
    PF_CFG_BOOL(delora_cfg, init_weights, true, "the update is zero at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

enum { A, B, LAMBDA };

typedef struct delora_site {
    pf_delta_site s; /* A (r, in), B (out, r), lambda (1) */
    pf_param *norms; /* (1, in), frozen */
    double lambda;
} delora_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    delora_site *l = self;
    const delora_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_graph *g = b->graph;
    pf_value *p[PF_DELTA_PARAMS], *s, *norms = pf_graph_param(g, l->norms);
    const pf_drop_args drop = {
        .p = cfg->module_dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    PF_CHECK_ALLOC(norms, err);
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_derive_emit(g, site->name, &pf_bounded_ranks, NULL, p, 3, &s, err));
    PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
    PF_TRY(pf_scale_cols(g, site->name, x, norms, &x, err));
    PF_TRY(pf_linear(g, site->name, x, p[A], NULL, &x, err));
    PF_TRY(pf_scale_cols(g, site->name, x, s, &x, err));
    PF_TRY(pf_linear(g, site->name, x, p[B], NULL, &x, err));
    return pf_add(g, site->name, *y, x, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const delora_cfg *cfg = ad->cfg.method_cfg;
    delora_site *l = self;
    const pf_site *site = l->s.site;
    pf_param *p;
    l->lambda = cfg->delora_lambda;
    PF_TRY(pf_delta_pattern(ad, "peft.delora.lambda_pattern", &cfg->lambda_pattern, site->name,
                            &l->lambda, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".delora_A", t->r, site->in_dim, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".delora_B", site->out_dim, t->r, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".delora_lambda", 1, 1, &p, err));
    p->is_vector = true;
    const char *name =
        pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.delora_w_norm", site->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_params_add(&ad->params, name, 1, site->in_dim, &l->norms, err)); /* no parameter */
    pf_params_freeze(&ad->params, l->norms);
    l->norms->is_vector = true;
    return PEFT_OK;
}

static void column_norms(const pf_weight *w, pf_param *out) {
    enum { PART = 512 };
    pf_real wide[PART];
    double sum[PART];
    for (int64_t c = 0; c < w->cols; c += PART) {
        const int64_t n = w->cols - c < PART ? w->cols - c : PART;
        for (int64_t k = 0; k < n; k++) sum[k] = 0;
        for (int64_t i = 0; i < w->rows; i++) {
            pf_weight_read_tile(w, i, 1, c, n, wide, n);
            for (int64_t k = 0; k < n; k++) sum[k] += (double)wide[k] * (double)wide[k];
        }
        for (int64_t k = 0; k < n; k++) out->data[c + k] = (pf_real)(float)sqrt(sum[k]);
    }
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const delora_cfg *cfg = ad->cfg.method_cfg;
    delora_site *l = self;
    pf_delta_fill_kaiming(l->s.p[A], seed);
    if (!cfg->init_weights) pf_delta_fill_kaiming(l->s.p[B], seed);
    pf_fill_constant(l->s.p[LAMBDA], l->lambda);
    column_norms(l->s.site->weight, l->norms);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const delora_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.delora",
                                   .what = "DeLoRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(delora_cfg),
                                   .site_size = sizeof(delora_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status delora_attach(pf_adapter *ad, peft_error *err) {
    ad->dropout = ((const delora_cfg *)ad->cfg.method_cfg)->module_dropout;
    return pf_delta_attach(ad, &kind, err);
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const delora_cfg *)ad->cfg.method_cfg)->module_dropout > 0;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Rows of W + B S A diag(n). */
static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const delora_site *l = pf_delta_at(ad, site);
    const pf_mat in[] = {pf_delta_mat(l->s.p[A]), pf_delta_mat(l->s.p[B]),
                         pf_delta_mat(l->s.p[LAMBDA])};
    const int64_t C = site->in_dim, R = in[A].rows;
    pf_mat s;
    PF_TRY(pf_delta_derive(&pf_bounded_ranks, NULL, in, 3, &s, err));
    for (int64_t i = 0; i < n; i++) {
        const pf_real *b = in[B].data + (row0 + i) * R;
        for (int64_t c = 0; c < C; c++) {
            double sum = 0;
            for (int64_t k = 0; k < R; k++)
                sum += (double)b[k] * (double)s.data[k] * (double)in[A].data[k * C + c];
            float *at = out + i * C + c;
            *at = (float)((double)*at + sum * (double)l->norms->data[c]);
        }
    }
    pf_free(s.data);
    return PEFT_OK;
}

const pf_method pf_method_delora = {
    .name = "delora",
    .help = "low-rank update whose size is apart from its direction (DeLoRA, arXiv 2503.18225)",
    .paper = "Decoupling Angles and Strength in Low-rank Adaptation, Bini et al. 2025, arXiv "
             "2503.18225",
    .cfg_rows = rows,
    .cfg_size = sizeof(delora_cfg),
    .peft_type = "DELORA",
    .attach = delora_attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
