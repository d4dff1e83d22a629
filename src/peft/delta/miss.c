/* miss.c - MiSS: y = W x + D S x, S sums the shards of x, D is small (Kang and Yin 2024, arXiv
 * 2409.15371; first named Bone).
 *
 *   init_weights: true   y += fold(x) P,  fold(x)[c] = sum over g of x[g r + c],  P (r, out)
 *                 mini   the same with P (r, mini_r), its columns used again and again
 *                 bat    W' = W + W_og B_o + B_o for every block W_og of (r, r) of W, B (out / r,
 * r, r) The first two have no (out, in) matrix. In the third the update depends on W itself, block
 * by block: it is made once per pass (fold.c) and multiplied by as a matrix. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

typedef struct miss_cfg {
    pf_delta_cfg d;
    int64_t r, mini_r;
    double miss_dropout;
    const char *init_weights;
} miss_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(miss_cfg, r, 64, 1, 65536, "width of a shard"),
    PF_CFG_INT(miss_cfg, mini_r, 1, 1, 65536, "columns that are trained, with init_weights: mini; has to divide the outputs"),
    PF_CFG_FLOAT(miss_cfg, miss_dropout, 0, 0, 1, "share of the input dropped before the sums, in training only; not with bat", .flags = PF_CFG_BELOW_MAX),
    PF_DELTA_TARGET_ROWS(miss_cfg),
    PF_CFG_ENUM(miss_cfg, init_weights, "true", "true=yes=on false=no=off bat mini", "true: one sum of shards; mini: fewer columns; bat: blocks of the weight itself; false: as true, but random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct miss_site {
    pf_delta_site s; /* (r, out), (r, mini_r), or (out, r): blocks one above the other */
    int64_t r, out;
    double dropout;
    bool bat;
} miss_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    miss_site *l = self;
    const pf_drop_args drop = {.p = l->dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    pf_graph *g = b->graph;
    pf_value *p, *w, *in[2], *delta;
    PF_TRY(pf_delta_values(b, &l->s, &p, err));
    if (l->bat) {
        in[0] = p;
        PF_TRY(pf_site_weight(b, site, &in[1], err));
        PF_TRY(pf_derive_emit(g, site->name, &pf_shard_update, NULL, in, 2, &w, err));
    } else {
        PF_TRY(pf_derive_emit(g, site->name, &pf_tile_turned, &l->out, &p, 1, &w, err));
        PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
        PF_TRY(pf_rowmap_emit(g, site->name, &pf_fold, &l->r, x, NULL, 0, &x, err));
    }
    PF_TRY(pf_linear(g, site->name, x, w, NULL, &delta, err));
    return pf_add(g, site->name, *y, delta, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const miss_cfg *cfg = ad->cfg.method_cfg;
    miss_site *l = self;
    pf_param *p;
    (void)t;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim, r = cfg->r;
    const bool mini = pf_streq(cfg->init_weights, "mini");
    l->bat = pf_streq(cfg->init_weights, "bat");
    l->r = r;
    l->dropout = cfg->miss_dropout;
    l->out = out;
    if (r > in)
        return PF_FAIL(err, PEFT_E_CONFIG, "%s: peft.miss.r is %lld, but there are %lld inputs",
                       l->s.site->name, (long long)r, (long long)in);
    if (l->bat && (in % r != 0 || out % r != 0))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: init_weights bat cuts the weight into blocks of peft.miss.r, but %lld "
                       "does not divide %lld x %lld",
                       l->s.site->name, (long long)r, (long long)out, (long long)in);
    if (mini && out % cfg->mini_r != 0)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.miss.mini_r is %lld, which does not divide the %lld outputs",
                       l->s.site->name, (long long)cfg->mini_r, (long long)out);
    if (!l->bat)
        return pf_delta_param(ad, &l->s, ".miss_block", r, mini ? cfg->mini_r : out, &p, err);
    PF_TRY(pf_delta_param(ad, &l->s, ".miss_block", out, r, &p, err));
    p->n_dims = 3;
    p->dims[0] = out / r;
    p->dims[1] = p->dims[2] = r;
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const miss_cfg *cfg = ad->cfg.method_cfg;
    miss_site *l = self;
    if (pf_streq(cfg->init_weights, "false")) pf_delta_fill_kaiming(l->s.p[0], seed);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const miss_cfg *)cfg)->r;
    *alpha = 0;
}

static const char *const refused[] = {"bias", NULL};
static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.miss",
                                   .what = "MiSS",
                                   .rows = rows,
                                   .cfg_size = sizeof(miss_cfg),
                                   .site_size = sizeof(miss_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = refused};

static peft_status miss_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static bool has_dropout(const pf_adapter *ad) {
    const miss_cfg *cfg = ad->cfg.method_cfg;
    return cfg->miss_dropout > 0 && !pf_streq(cfg->init_weights, "bat");
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Row o of the block's update: W_o (I + B) + B, shard by shard. */
static void merge_bat(const miss_site *l, int64_t o, int64_t C, float *row, double *sum) {
    const int64_t r = l->r;
    const pf_real *b = l->s.p[0]->data + o / r * r * r, *own = l->s.p[0]->data + o * r;
    for (int64_t at = 0; at < C; at += r) {
        for (int64_t c = 0; c < r; c++) {
            sum[c] = (double)row[at + c] + (double)own[c];
            for (int64_t k = 0; k < r; k++) sum[c] += (double)row[at + k] * (double)b[k * r + c];
        }
        for (int64_t c = 0; c < r; c++) row[at + c] = (float)sum[c];
    }
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const miss_site *l = pf_delta_at(ad, site);
    const pf_param *p = l->s.p[0];
    const int64_t C = site->in_dim;
    double *sum = pf_calloc((size_t)l->r, sizeof *sum);
    PF_CHECK_ALLOC(sum, err);
    for (int64_t i = 0; i < n; i++) {
        float *row = out + i * C;
        const int64_t o = row0 + i;
        if (l->bat) {
            merge_bat(l, o, C, row, sum);
            continue;
        }
        for (int64_t c = 0; c < C; c++)
            row[c] = (float)((double)row[c] + (double)p->data[c % l->r * p->cols + o % p->cols]);
    }
    pf_free(sum);
    return PEFT_OK;
}

const pf_method pf_method_miss = {
    .name = "miss",
    .help = "sums of shards of the input times one small matrix (MiSS, Bone, arXiv 2409.15371)",
    .paper = "MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure, "
             "Kang and Yin 2024, arXiv 2409.15371",
    .cfg_rows = rows,
    .cfg_size = sizeof(miss_cfg),
    .peft_type = "MISS",
    .attach = miss_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
