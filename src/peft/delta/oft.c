/* oft.c - OFT: y = W R x, R block-diagonal and orthogonal (Qiu et al. 2023, arXiv 2306.07280); made
 * of skew-symmetric blocks by the Cayley transform or, use_cayley_neumann, by the first terms of
 * its series (OFTv2, Qiu et al. 2025, arXiv 2506.19847).
 *
 * The weight is not touched: rows of the input are rotated block by block before the product
 * (cayley.c once per pass, rotate.c). Only the numbers above the diagonals are trained:
 * oft_R.weight (blocks, size (size - 1) / 2). coft keeps every block near the identity: whenever a
 * pass begins, parameters beyond eps are scaled down to it, as peft does; the file has them as the
 * optimizer left them. Give r (blocks) or oft_block_size. */
#include "base/log.h"
#include "base/mem.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>

typedef struct oft_cfg {
    pf_delta_cfg d;
    int64_t r, oft_block_size, num_cayley_neumann_terms;
    bool coft, block_share, use_cayley_neumann, init_weights;
    double eps, module_dropout;
} oft_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(oft_cfg, r, 0, 0, 65536, "number of blocks; 0: as oft_block_size says"),
    PF_CFG_INT(oft_cfg, oft_block_size, 32, 0, 4096, "size of a block; 0: as r says"),
    PF_CFG_BOOL(oft_cfg, coft, false, "blocks stay near the identity"),
    PF_CFG_FLOAT(oft_cfg, eps, 6e-5, 0, 1e6, "how near, with coft"),
    PF_CFG_BOOL(oft_cfg, block_share, false, "one block for all of a layer"),
    PF_CFG_BOOL(oft_cfg, use_cayley_neumann, true, "a polynomial in place of an inverse"),
    PF_CFG_INT(oft_cfg, num_cayley_neumann_terms, 5, 1, 64, "terms of that polynomial"),
    PF_CFG_FLOAT(oft_cfg, module_dropout, 0, 0, 1, "share of the blocks that do not rotate in a step, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_DELTA_TARGET_ROWS(oft_cfg),
    PF_CFG_BOOL(oft_cfg, init_weights, true, "no rotation at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct oft_site {
    pf_delta_site s; /* (blocks, size (size - 1) / 2) */
    pf_cayley_args cayley;
    pf_rotate_args rotate;
} oft_site;

static peft_status input(pf_build *b, void *self, pf_site *site, pf_value **x, peft_error *err) {
    oft_site *l = self;
    const oft_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_value *p, *r;
    PF_TRY(pf_delta_values(b, &l->s, &p, err));
    PF_TRY(pf_derive_emit(b->graph, site->name, &pf_cayley, &l->cayley, &p, 1, &r, err));
    PF_TRY(pf_delta_drop_blocks(b, &l->s, cfg->module_dropout, 1, l->s.p[0]->rows, &r, err));
    return pf_rowmap_emit(b->graph, site->name, &pf_rotate, &l->rotate, *x, &r, 1, x, err);
}

/* Of an embedding the rows that come out are rotated. */
static peft_status embedding_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                    uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    return input(b, self, site, y, err);
}

/* The divisor of n nearest to `wanted`, as peft's adjust_oft_parameters; the smaller of two. */
static int64_t nearest_divisor(int64_t n, int64_t wanted) {
    if (wanted >= n) return n;
    int64_t up = wanted, down = wanted;
    while (n % up != 0) up++;
    while (n % down != 0) down--;
    return wanted - down <= up - wanted ? down : up;
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const oft_cfg *cfg = ad->cfg.method_cfg;
    oft_site *l = self;
    pf_param *p;
    (void)t;
    const int64_t C = l->s.site->in_dim;
    const int64_t wanted = cfg->r != 0 ? cfg->r : cfg->oft_block_size,
                  got = nearest_divisor(C, wanted);
    const int64_t size = cfg->r != 0 ? C / got : got, blocks = cfg->block_share ? 1 : C / size;
    if (got != wanted && ad->strict)
        PF_INFO("%s: peft.oft.%s %lld does not divide the %lld inputs; %lld is taken",
                l->s.site->name, cfg->r != 0 ? "r" : "oft_block_size", (long long)wanted,
                (long long)C, (long long)got);
    if (size > 4096)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: blocks of %lld numbers are too large; peft.oft.r should be at least "
                       "%lld",
                       l->s.site->name, (long long)size, (long long)(C / 4096 + 1));
    if (size < 2)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: blocks of one number cannot be rotated; peft.oft.r should be at most "
                       "%lld",
                       l->s.site->name, (long long)(C / 2));
    l->cayley =
        (pf_cayley_args){.size = size,
                         .packed = true,
                         .terms = cfg->use_cayley_neumann ? cfg->num_cayley_neumann_terms : 0,
                         .limit = cfg->coft ? cfg->eps / sqrt((double)blocks) : 0};
    l->rotate.size = size;
    const char *suffix =
        l->s.site->kind == PF_SITE_EMBEDDING ? ".oft_embedding_R.weight" : ".oft_R.weight";
    return pf_delta_param(ad, &l->s, suffix, blocks, size * (size - 1) / 2, &p, err);
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const oft_cfg *cfg = ad->cfg.method_cfg;
    oft_site *l = self;
    if (!cfg->init_weights) pf_fill_normal(l->s.p[0], seed, 0.1);
}

static const pf_site_hooks hooks = {.input = input};
static const pf_site_hooks embedding_hooks = {.output = embedding_output};
static const pf_delta_kind kind = {.key = "peft.oft",
                                   .what = "OFT",
                                   .rows = rows,
                                   .cfg_size = sizeof(oft_cfg),
                                   .site_size = sizeof(oft_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD |
                                            1u << PF_SITE_EMBEDDING,
                                   .acts_on = "linear layers, embeddings and the head",
                                   .hooks = &hooks,
                                   .embedding_hooks = &embedding_hooks,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status oft_attach(pf_adapter *ad, peft_error *err) {
    const oft_cfg *cfg = ad->cfg.method_cfg;
    if ((cfg->r != 0) == (cfg->oft_block_size != 0))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.oft: r is %lld and oft_block_size %lld; give one of them and set the "
                       "other to 0",
                       (long long)cfg->r, (long long)cfg->oft_block_size);
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Rows of a table, x R block by block. */
static void rotate_table(const oft_site *l, const pf_mat *r, float *out, int64_t n, int64_t C) {
    enum { MOST = 4096 };
    const int64_t s = l->rotate.size, stride = r->rows == s ? 0 : s * s;
    double sum[MOST];
    for (int64_t i = 0; i < n * (C / s); i++) {
        const pf_real *m = r->data + i % (C / s) * stride;
        float *x = out + i * s;
        for (int64_t c = 0; c < s; c++) {
            sum[c] = 0;
            for (int64_t j = 0; j < s; j++) sum[c] += (double)x[j] * (double)m[j * s + c];
        }
        for (int64_t c = 0; c < s; c++) x[c] = (float)sum[c];
    }
}

/* Rows of W R, as row vectors: w Rᵀ block by block. */
static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    oft_site *l = pf_delta_at(ad, site);
    const pf_mat p = pf_delta_mat(l->s.p[0]);
    pf_mat r;
    (void)row0;
    PF_TRY(pf_delta_derive(&pf_cayley, &l->cayley, &p, 1, &r, err));
    peft_status status = PEFT_OK;
    if (site->kind == PF_SITE_EMBEDDING) {
        rotate_table(l, &r, out, n, site->in_dim);
    } else {
        status = pf_delta_rotate_rows(&l->rotate, &r, 1, out, n, site->in_dim, err);
    }
    pf_free(r.data);
    return status;
}

const pf_method pf_method_oft = {
    .name = "oft",
    .help = "input rotated block by block (OFT, arXiv 2306.07280, 2506.19847)",
    .paper = "Controlling Text-to-Image Diffusion by Orthogonal Finetuning, Qiu et al. 2023, arXiv "
             "2306.07280",
    .cfg_rows = rows,
    .cfg_size = sizeof(oft_cfg),
    .peft_type = "OFT",
    .attach = oft_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
