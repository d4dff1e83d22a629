/* lokr.c - LoKr: y = W x + scale (W1 kron W2) x, either factor whole or a product of two of rank r
 * (LyCORIS, Yeh et al. 2023, arXiv 2309.14859; KronA, Edalati et al. 2022, arXiv 2212.10650), scale
 * = alpha / r.
 *
 * (W1 kron W2) x is W1 X W2ᵀ with x as a matrix (kron.c), so no (out, in) matrix exists. Sizes are
 * peft's: in = in_m in_n and out = out_l out_k near their roots (or by decompose_factor); W2
 * (out_k, in_n) is a product if r is below half its larger side, W1 (out_l, in_m) likewise under
 * decompose_both. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/made/made.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

typedef struct lokr_cfg {
    pf_delta_cfg d;
    int64_t r, decompose_factor;
    double alpha;
    bool decompose_both;
    pf_delta_drop drop;
    const char *init_weights;
} lokr_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(lokr_cfg, r, 8, 1, 65536, "rank of a factor that is a product itself"),
    PF_CFG_FLOAT(lokr_cfg, alpha, 8, 0, 1e6, "the update is scaled by alpha / r"),
    PF_CFG_BOOL(lokr_cfg, decompose_both, false, "the first factor may be a product of rank r, too"),
    PF_CFG_INT(lokr_cfg, decompose_factor, -1, -1, 65536, "sizes of the first factor are at most this; -1: near the square root"),
    PF_DELTA_TARGET_ROWS(lokr_cfg),
    PF_DELTA_PATTERN_ROWS(lokr_cfg),
    PF_DELTA_DROP_ROWS(lokr_cfg),
    PF_CFG_BOOL_AS(lokr_cfg, drop.scaled, "rank_dropout_scale", false, "what rank_dropout keeps is divided by its share"),
    PF_CFG_ENUM(lokr_cfg, init_weights, "true", "true=yes=on false=no=off lycoris", "true: the first factor is zero at first; lycoris: the second; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct lokr_site {
    pf_delta_site s; /* w1 or w1_a, w1_b; then w2 or w2_a, w2_b */
    bool product[2];
    double scale;
} lokr_site;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)mask_key;
    lokr_site *l = self;
    const lokr_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_value *p[PF_DELTA_PARAMS], *w[2], *delta;
    const pf_batch_product_args one = {.n = 1};
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    for (int i = 0, at = 0; i < 2; at += l->product[i++] ? 2 : 1) {
        w[i] = p[at];
        if (l->product[i])
            PF_TRY(pf_batch_product(b->graph, site->name, p[at], p[at + 1], &one, &w[i], err));
    }
    PF_TRY(pf_rowmap_emit(b->graph, site->name, &pf_kron, &l->scale, x, w, 2, &delta, err));
    return pf_delta_add(b, &l->s, &cfg->drop, delta, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

/* n = m * k, m <= k, as peft's factorization(): by `factor` where it divides n, else the divisors
 * nearest to the root whose smaller one is at most `factor` (-1: any). */
static void factorize(int64_t n, int64_t factor, int64_t *m, int64_t *k) {
    *m = 1;
    *k = n;
    if (factor > 0 && n % factor == 0) {
        *m = factor;
        *k = n / factor;
        return;
    }
    if (factor == -1) factor = n;
    while (*m < *k) {
        int64_t next = *m + 1;
        while (n % next != 0) next++;
        if (next + n / next > *m + *k || next > factor) break;
        *m = next;
        *k = n / next;
    }
    if (*m > *k) {
        const int64_t t = *m;
        *m = *k;
        *k = t;
    }
}

static peft_status add_factor(pf_adapter *ad, lokr_site *l, int which, int64_t out, int64_t in,
                              int64_t r, peft_error *err) {
    static const char *const names[2][3] = {{".lokr_w1", ".lokr_w1_a", ".lokr_w1_b"},
                                            {".lokr_w2", ".lokr_w2_a", ".lokr_w2_b"}};
    pf_param *p;
    if (!l->product[which]) return pf_delta_param(ad, &l->s, names[which][0], out, in, &p, err);
    PF_TRY(pf_delta_param(ad, &l->s, names[which][1], out, r, &p, err));
    return pf_delta_param(ad, &l->s, names[which][2], r, in, &p, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const lokr_cfg *cfg = ad->cfg.method_cfg;
    lokr_site *l = self;
    int64_t in_m, in_n, out_l, out_k;
    const int64_t f = cfg->decompose_factor == 0 ? -1 : cfg->decompose_factor;
    factorize(l->s.site->in_dim, f, &in_m, &in_n);
    factorize(l->s.site->out_dim, f, &out_l, &out_k);
    l->scale = t->alpha / (double)t->r;
    l->product[0] = cfg->decompose_both && 2 * t->r < (out_l > in_m ? out_l : in_m);
    l->product[1] = 2 * t->r < (out_k > in_n ? out_k : in_n);
    PF_TRY(add_factor(ad, l, 0, out_l, in_m, t->r, err));
    PF_TRY(add_factor(ad, l, 1, out_k, in_n, t->r, err));
    pf_delta_may_drop(&l->s, &cfg->drop);
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const lokr_cfg *cfg = ad->cfg.method_cfg;
    lokr_site *l = self;
    const int second = l->product[0] ? 2 : 1;
    for (int i = 0; i < l->s.n_p; i++) pf_delta_fill_kaiming(l->s.p[i], seed);
    if (pf_streq(cfg->init_weights, "true")) pf_fill_constant(l->s.p[0], 0);
    if (pf_streq(cfg->init_weights, "lycoris"))
        pf_fill_constant(l->s.p[second + (l->product[1] ? 1 : 0)], 0);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const lokr_cfg *)cfg)->r;
    *alpha = ((const lokr_cfg *)cfg)->alpha;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.lokr",
                                   .what = "LoKr",
                                   .rows = rows,
                                   .cfg_size = sizeof(lokr_cfg),
                                   .site_size = sizeof(lokr_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site};

static peft_status lokr_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Element (i, j) of factor `which`. */
static double element(const lokr_site *l, int which, int64_t i, int64_t j) {
    pf_param *const *p = &l->s.p[which == 0 ? 0 : l->product[0] ? 2 : 1];
    if (!l->product[which]) return (double)p[0]->data[i * p[0]->cols + j];
    double sum = 0;
    for (int64_t k = 0; k < p[0]->cols; k++)
        sum += (double)p[0]->data[i * p[0]->cols + k] * (double)p[1]->data[k * p[1]->cols + j];
    return sum;
}

static int64_t side(const lokr_site *l, int which, bool rows_wanted) {
    pf_param *const *p = &l->s.p[which == 0 ? 0 : l->product[0] ? 2 : 1];
    return rows_wanted ? p[0]->rows : p[l->product[which] ? 1 : 0]->cols;
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const lokr_site *l = pf_delta_at(ad, site);
    const int64_t m = side(l, 0, false), k = side(l, 1, true), in_n = side(l, 1, false);
    double *w2 = pf_calloc((size_t)in_n, sizeof *w2);
    PF_CHECK_ALLOC(w2, err);
    for (int64_t i = 0; i < n; i++) {
        const int64_t o = row0 + i;
        for (int64_t c = 0; c < in_n; c++) w2[c] = element(l, 1, o % k, c);
        for (int64_t j = 0; j < m; j++) {
            const double f = l->scale * element(l, 0, o / k, j);
            float *row = out + i * site->in_dim + j * in_n;
            for (int64_t c = 0; c < in_n; c++) row[c] = (float)((double)row[c] + f * w2[c]);
        }
    }
    pf_free(w2);
    return PEFT_OK;
}

const pf_method pf_method_lokr = {
    .name = "lokr",
    .help = "Kronecker product of two small matrices (LoKr, arXiv 2309.14859)",
    .paper = "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model "
             "Evaluation, Yeh et al. 2023, arXiv 2309.14859",
    .cfg_rows = rows,
    .cfg_size = sizeof(lokr_cfg),
    .peft_type = "LOKR",
    .attach = lokr_attach,
    .init = pf_delta_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
