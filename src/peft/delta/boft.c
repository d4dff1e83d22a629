/* boft.c - BOFT: y = s (W R x) + bias, R a product of block-diagonal rotations between butterfly
 * permutations (Liu et al. 2023, arXiv 2311.06243), s a factor for every output.
 *
 * R = B_m .. B_1, B_i = P_i diag(blocks) P_iᵀ, every block the Cayley transform of a square block
 * that is made skew-symmetric. The input is rotated, the outputs are scaled: W is not touched.
 * boft_R (factors, blocks, size, size), boft_s (out, 1) and the permutations are peft's. peft
 * without its CUDA extension takes one factor whatever boft_n_butterfly_factor says; here it
 * counts. */
#include "base/mem.h"
#include "ops/activation/scale_cols.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <string.h>

enum { MAX_FACTORS = 16 };

typedef struct boft_cfg {
    pf_delta_cfg d;
    int64_t boft_block_size, boft_block_num, boft_n_butterfly_factor;
    double boft_dropout;
    bool init_weights;
} boft_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(boft_cfg, boft_block_size, 4, 0, 4096, "size of a block; 0: as boft_block_num says"),
    PF_CFG_INT(boft_cfg, boft_block_num, 0, 0, 65536, "blocks of a factor; 0: as boft_block_size says"),
    PF_CFG_INT(boft_cfg, boft_n_butterfly_factor, 1, 1, MAX_FACTORS, "number of butterfly factors"),
    PF_CFG_FLOAT(boft_cfg, boft_dropout, 0, 0, 1, "share of the blocks of one factor, drawn anew, that do not rotate in a step; in training only", .flags = PF_CFG_BELOW_MAX),
    PF_DELTA_TARGET_ROWS(boft_cfg),
    PF_CFG_BOOL(boft_cfg, init_weights, true, "no rotation at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct boft_site {
    pf_delta_site s; /* R (factors blocks size, size), s (out, 1) */
    pf_cayley_args cayley;
    int n;
    pf_rotate_args factor[MAX_FACTORS]; /* [0] is B_1 */
} boft_site;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status input(pf_build *b, void *self, pf_site *site, pf_value **x, peft_error *err) {
    boft_site *l = self;
    const boft_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_value *p[PF_DELTA_PARAMS], *r;
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_derive_emit(b->graph, site->name, &pf_cayley, &l->cayley, p, 1, &r, err));
    PF_TRY(pf_delta_drop_blocks(b, &l->s, cfg->boft_dropout, l->n, l->s.p[0]->dims[1], &r, err));
    for (int i = l->n - 1; i >= 0; i--)
        PF_TRY(pf_rowmap_emit(b->graph, site->name, &pf_rotate, &l->factor[i], *x, &r, 1, x, err));
    return PEFT_OK;
}

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    boft_site *l = self;
    pf_value *p[PF_DELTA_PARAMS], *bias;
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    PF_TRY(pf_site_bias(b, site, &bias, err));
    if (bias == NULL) return pf_scale_cols(b->graph, site->name, *y, p[1], y, err);
    return pf_rowmap_emit(b->graph, site->name, &pf_scale_about, NULL, *y,
                          (pf_value *[]){p[1], bias}, 2, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

/* Inside of every run of `run` columns, halves of blocks: the even ones first, then the odd ones
 * (peft's block_butterfly_perm). */
static peft_status make_permutation(pf_adapter *ad, int64_t n, int64_t run, int64_t half,
                                    pf_rotate_args *out, peft_error *err) {
    int32_t *to = PF_NEW_ARRAY(&ad->arena, int32_t, n),
            *from = PF_NEW_ARRAY(&ad->arena, int32_t, n);
    PF_CHECK_ALLOC(to, err);
    PF_CHECK_ALLOC(from, err);
    const int64_t halves = run / half, evens = (halves + 1) / 2;
    for (int64_t c = 0; c < n; c++) {
        const int64_t h = c % run / half;
        const int64_t source = h < evens ? 2 * h : 2 * (h - evens) + 1;
        to[c] = (int32_t)(c / run * run + source * half + c % half);
        from[to[c]] = (int32_t)c;
    }
    out->to = to;
    out->from = from;
    return PEFT_OK;
}

static peft_status check_sizes(const boft_site *l, const boft_cfg *cfg, int64_t size, int64_t num,
                               peft_error *err) {
    const char *name = l->s.site->name;
    const long long C = (long long)l->s.site->in_dim, n = (long long)cfg->boft_n_butterfly_factor;
    const int64_t given = cfg->boft_block_size != 0 ? cfg->boft_block_size : cfg->boft_block_num;
    const int64_t pieces = (int64_t)1 << (n - 1);
    if (given > C || C % given != 0)
        return PF_FAIL(err, PEFT_E_CONFIG, "%s: peft.boft.%s is %lld, which does not divide %lld",
                       name, cfg->boft_block_size != 0 ? "boft_block_size" : "boft_block_num",
                       (long long)given, C);
    if (n > 1 && (num % pieces != 0 || num % 2 != 0 || size % 2 != 0))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: %lld blocks of %lld cannot be permuted %lld times; with "
                       "boft_n_butterfly_factor %lld the number of blocks should be a multiple of "
                       "%lld, their size even",
                       name, (long long)num, (long long)size, n, n,
                       (long long)(pieces > 2 ? pieces : 2));
    return PEFT_OK;
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const boft_cfg *cfg = ad->cfg.method_cfg;
    boft_site *l = self;
    pf_param *p;
    (void)t;
    const int64_t C = l->s.site->in_dim;
    const int64_t size = cfg->boft_block_size != 0 ? cfg->boft_block_size : C / cfg->boft_block_num,
                  num = size > 0 ? C / size : 0;
    PF_TRY(check_sizes(l, cfg, size, num, err));
    l->n = (int)cfg->boft_n_butterfly_factor;
    l->cayley = (pf_cayley_args){.size = size};
    for (int i = 0; i < l->n; i++) {
        l->factor[i] = (pf_rotate_args){.size = size, .first = i * num};
        if (l->n > 1) PF_TRY(make_permutation(ad, C, C / (num >> i), size / 2, &l->factor[i], err));
    }
    PF_TRY(pf_delta_param(ad, &l->s, ".boft_R", l->n * num * size, size, &p, err));
    p->n_dims = 4;
    memcpy(p->dims, (const int64_t[]){l->n, num, size, size}, sizeof p->dims);
    return pf_delta_param(ad, &l->s, ".boft_s", l->s.site->out_dim, 1, &p, err);
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const boft_cfg *cfg = ad->cfg.method_cfg;
    boft_site *l = self;
    pf_fill_constant(l->s.p[1], 1);
    if (cfg->init_weights) return;
    pf_fill_normal(l->s.p[0], seed, 0.1);
    pf_fill_normal(l->s.p[1], seed, 0.1);
    for (int64_t i = 0; i < l->s.p[1]->rows; i++) l->s.p[1]->data[i] += 1;
}

static const pf_site_hooks hooks = {.input = input, .output = output};
static const pf_delta_kind kind = {.key = "peft.boft",
                                   .what = "BOFT",
                                   .rows = rows,
                                   .cfg_size = sizeof(boft_cfg),
                                   .site_size = sizeof(boft_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status boft_attach(pf_adapter *ad, peft_error *err) {
    const boft_cfg *cfg = ad->cfg.method_cfg;
    if ((cfg->boft_block_size != 0) == (cfg->boft_block_num != 0))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.boft: boft_block_size is %lld and boft_block_num %lld; give one of "
                       "them and set the other to 0",
                       (long long)cfg->boft_block_size, (long long)cfg->boft_block_num);
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* Rows of diag(s) W B_1ᵀ .. B_mᵀ. */
static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    boft_site *l = pf_delta_at(ad, site);
    const pf_mat p = pf_delta_mat(l->s.p[0]);
    pf_mat r;
    PF_TRY(pf_delta_derive(&pf_cayley, &l->cayley, &p, 1, &r, err));
    peft_status status = pf_delta_rotate_rows(l->factor, &r, l->n, out, n, site->in_dim, err);
    pf_free(r.data);
    for (int64_t i = 0; i < n * site->in_dim; i++)
        out[i] = (float)((double)out[i] * (double)l->s.p[1]->data[row0 + i / site->in_dim]);
    return status;
}

const pf_method pf_method_boft = {
    .name = "boft",
    .help = "input rotated by butterfly factors, outputs scaled (BOFT, arXiv 2311.06243)",
    .paper = "Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, Liu et al. "
             "2023, arXiv 2311.06243",
    .cfg_rows = rows,
    .cfg_size = sizeof(boft_cfg),
    .peft_type = "BOFT",
    .attach = boft_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
