/* hra.c - HRA: y = W (H_1 H_2 .. H_r) x, reflections at planes u_i that are trained (Yuan et al.
 * 2024, arXiv 2405.17484); apply_GS: at the space of all u, which Gram and Schmidt make orthogonal.
 *
 * The weight is not touched: the input is reflected before the product, as x + (x Aᵀ) Bᵀ with two
 * thin matrices made once per pass (reflect.c). u (in, r) and its first numbers are peft's. */
#include "base/log.h"
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

typedef struct hra_cfg {
    pf_delta_cfg d;
    int64_t r;
    bool apply_GS, init_weights;
} hra_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(hra_cfg, r, 8, 1, 1024, "number of reflections; even, so that they cancel at first"),
    PF_CFG_BOOL(hra_cfg, apply_GS, false, "reflect at the space of all u, made orthogonal by Gram and Schmidt"),
    PF_DELTA_TARGET_ROWS(hra_cfg),
    PF_CFG_BOOL(hra_cfg, init_weights, true, "pairs of equal reflections at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct hra_site {
    pf_delta_site s; /* u (in, r) */
    pf_reflect_args args;
} hra_site;

static peft_status input(pf_build *b, void *self, pf_site *site, pf_value **x, peft_error *err) {
    hra_site *l = self;
    pf_value *u, *f[2], *s, *moved;
    PF_TRY(pf_delta_values(b, &l->s, &u, err));
    PF_TRY(pf_derive_emit(b->graph, site->name, &pf_reflect, &l->args, &u, 1, f, err));
    PF_TRY(pf_linear(b->graph, site->name, *x, f[0], NULL, &s, err));
    PF_TRY(pf_linear(b->graph, site->name, s, f[1], NULL, &moved, err));
    return pf_add(b->graph, site->name, *x, moved, x, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const hra_cfg *cfg = ad->cfg.method_cfg;
    hra_site *l = self;
    pf_param *p;
    (void)t;
    l->args.orthogonal = cfg->apply_GS;
    return pf_delta_param(ad, &l->s, ".hra_u", l->s.site->in_dim, cfg->r, &p, err);
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const hra_cfg *cfg = ad->cfg.method_cfg;
    pf_param *u = ((hra_site *)self)->s.p[0];
    pf_delta_fill_kaiming(u, seed);
    for (int64_t i = 0; cfg->init_weights && cfg->r % 2 == 0 && i < u->rows * u->cols; i += 2)
        u->data[i + 1] = u->data[i];
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const hra_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.input = input};
static const pf_delta_kind kind = {.key = "peft.hra",
                                   .what = "HRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(hra_cfg),
                                   .site_size = sizeof(hra_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status hra_attach(pf_adapter *ad, peft_error *err) {
    const hra_cfg *cfg = ad->cfg.method_cfg;
    if (cfg->init_weights && cfg->r % 2 != 0 && ad->strict)
        PF_WARN("peft.hra.r is %lld, which is odd: the reflections do not cancel at first",
                (long long)cfg->r);
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Rows of W H_1 .. H_r: a row w becomes w + (w B) A. */
static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    hra_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim;
    const pf_mat u = pf_delta_mat(l->s.p[0]);
    pf_mat f[2];
    (void)row0;
    PF_TRY(pf_delta_derive(&pf_reflect, &l->args, &u, 1, f, err));
    const int64_t r = f[0].rows;
    peft_status status = PEFT_OK;
    pf_real *s = pf_calloc((size_t)r, sizeof *s);
    if (s == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory while merging");
    for (int64_t i = 0; status == PEFT_OK && i < n; i++) {
        float *row = out + i * C;
        for (int64_t k = 0; k < r; k++) {
            double sum = 0;
            for (int64_t c = 0; c < C; c++) sum += (double)row[c] * (double)f[1].data[c * r + k];
            s[k] = (pf_real)sum;
        }
        pf_delta_add_product(row, 1, C, 1, r, s, r, f[0].data);
    }
    pf_free(s);
    pf_free(f[0].data);
    pf_free(f[1].data);
    return status;
}

const pf_method pf_method_hra = {
    .name = "hra",
    .help = "input reflected at trained planes (HRA, arXiv 2405.17484)",
    .paper = "Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder "
             "Reflection Adaptation, Yuan et al. 2024, arXiv 2405.17484",
    .cfg_rows = rows,
    .cfg_size = sizeof(hra_cfg),
    .peft_type = "HRA",
    .attach = hra_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
