/* loha.c - LoHa: y = W x + scale (A1 B1 * A2 B2) x, * element by element (Hyeon-Woo et al. 2021,
 * FedPara, arXiv 2108.06098; as adapters: LyCORIS, Yeh et al. 2023, arXiv 2309.14859), scale =
 * alpha / r.
 *
 * The Hadamard product of two matrices of rank r has rank r^2 at most, and factors for it are
 * known: (A1 B1 * A2 B2) = P Q,   P[o, i r + j] = A1[o, i] A2[o, j],   Q[i r + j, c] = B1[i, c]
 * B2[j, c] (rows of P are Kronecker products, and columns of Q). So no (out, in) matrix exists: P
 * and Q are made once per pass, and rows go through two thin products. Names and first weights are
 * peft's. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

typedef struct loha_cfg {
    pf_delta_cfg d;
    int64_t r;
    double alpha;
    pf_delta_drop drop;
    bool init_weights;
} loha_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(loha_cfg, r, 8, 1, 1024, "rank of each of the two factors; their product has rank r * r"),
    PF_CFG_FLOAT(loha_cfg, alpha, 8, 0, 1e6, "the update is scaled by alpha / r"),
    PF_DELTA_TARGET_ROWS(loha_cfg),
    PF_DELTA_PATTERN_ROWS(loha_cfg),
    PF_DELTA_DROP_ROWS(loha_cfg),
    PF_CFG_BOOL(loha_cfg, init_weights, true, "the update is zero at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct loha_site {
    pf_delta_site s; /* w1_a (out,r), w1_b (r,in), w2_a (out,r), w2_b (r,in) */
    double scale;
    bool is_wide;
} loha_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)mask_key;
    loha_site *l = self;
    const loha_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_graph *g = b->graph;
    const pf_delta_drop drop = {cfg->drop.columns, cfg->drop.module, .scaled = true};
    pf_value *w[PF_DELTA_PARAMS], *p, *q, *s, *delta;
    PF_TRY(pf_delta_values(b, &l->s, w, err));
    if (l->is_wide) {
        PF_TRY(pf_derive_emit(g, site->name, &pf_hadamard, &l->scale, w, 4, &p, err));
        PF_TRY(pf_linear(g, site->name, x, p, NULL, &delta, err));
        return pf_delta_add(b, &l->s, &drop, delta, y, err);
    }
    PF_TRY(pf_derive_emit(g, site->name, &pf_khatri_rao_rows, &l->scale, (pf_value *[]){w[0], w[2]},
                          2, &p, err));
    PF_TRY(pf_derive_emit(g, site->name, &pf_khatri_rao_cols, NULL, (pf_value *[]){w[1], w[3]}, 2,
                          &q, err));
    PF_TRY(pf_linear(g, site->name, x, q, NULL, &s, err));
    PF_TRY(pf_linear(g, site->name, s, p, NULL, &delta, err));
    return pf_delta_add(b, &l->s, &drop, delta, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    loha_site *l = self;
    pf_param *p;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim;
    l->scale = t->alpha / (double)t->r;
    l->is_wide = (double)(t->r * t->r) * (double)(in + out) > (double)in * (double)out;
    PF_TRY(pf_delta_param(ad, &l->s, ".hada_w1_a", out, t->r, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".hada_w1_b", t->r, in, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".hada_w2_a", out, t->r, &p, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".hada_w2_b", t->r, in, &p, err));
    pf_delta_may_drop(&l->s, &((const loha_cfg *)ad->cfg.method_cfg)->drop);
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const loha_cfg *cfg = ad->cfg.method_cfg;
    loha_site *l = self;
    for (int i = 0; i < 4; i++) pf_delta_fill_kaiming(l->s.p[i], seed);
    if (cfg->init_weights) pf_fill_constant(l->s.p[3], 0);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const loha_cfg *)cfg)->r;
    *alpha = ((const loha_cfg *)cfg)->alpha;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.loha",
                                   .what = "LoHa",
                                   .rows = rows,
                                   .cfg_size = sizeof(loha_cfg),
                                   .site_size = sizeof(loha_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site};

static peft_status loha_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const loha_site *l = pf_delta_at(ad, site);
    const pf_mat a[] = {pf_delta_mat(l->s.p[0]), pf_delta_mat(l->s.p[2])},
                 b[] = {pf_delta_mat(l->s.p[1]), pf_delta_mat(l->s.p[3])};
    pf_mat p, q;
    PF_TRY(pf_delta_derive(&pf_khatri_rao_rows, &l->scale, a, 2, &p, err));
    peft_status status = pf_delta_derive(&pf_khatri_rao_cols, NULL, b, 2, &q, err);
    if (status == PEFT_OK) {
        pf_delta_add_product(out, n, site->in_dim, 1, p.cols, p.data + row0 * p.cols, p.cols,
                             q.data);
        pf_free(q.data);
    }
    pf_free(p.data);
    return status;
}

const pf_method pf_method_loha = {
    .name = "loha",
    .help = "Hadamard product of two low-rank updates (LoHa, arXiv 2108.06098)",
    .paper = "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning, "
             "Hyeon-Woo et al. 2021, arXiv 2108.06098",
    .cfg_rows = rows,
    .cfg_size = sizeof(loha_cfg),
    .peft_type = "LOHA",
    .attach = loha_attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
