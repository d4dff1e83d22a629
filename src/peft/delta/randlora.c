/* randlora.c - RandLoRA: y = W x + scale sum_b B_b diag(lambda_b) A diag(gamma_b) x, a sum over so
 * many frozen random bases that it has full rank, with two trained vectors each (Albert et al.
 * 2025, arXiv 2502.00987), scale = randlora_alpha / r.
 *
 * A (r, 1, least side) and B (largest side, bases, r) are shared by all layers, each of which takes
 * a corner of them; A is on the smaller side of the layer. The bases' parts are one matrix of rows
 * k bases + b (scaled_bases.c), which meets column number k bases + b of B, as in peft. The file
 * has A and B. peft can draw them again from a key instead (save_projection: false), by torch's
 * generator of 16-bit numbers; that is refused here. */
#include "base/mem.h"
#include "base/rng.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale.h"
#include "ops/made/made.h"
#include "ops/matmul/linear.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>
#include <string.h>

typedef struct randlora_cfg {
    pf_delta_cfg d;
    int64_t r, randlora_alpha, projection_prng_key;
    double randlora_dropout;
    bool sparse, very_sparse, save_projection, init_weights;
} randlora_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(randlora_cfg, r, 32, 1, 65536, "rank of a base; the smaller it is, the more bases, and numbers that are trained"),
    PF_CFG_INT(randlora_cfg, randlora_alpha, 640, 0, 1000000, "the update is scaled by randlora_alpha / r", .aliases = "alpha"),
    PF_CFG_FLOAT(randlora_cfg, randlora_dropout, 0, 0, 1, "share of the input dropped, in training only", .flags = PF_CFG_BELOW_MAX, .aliases = "dropout"),
    PF_CFG_INT(randlora_cfg, projection_prng_key, 0, 0, 4294967295.0, "seed of the random bases"),
    PF_CFG_BOOL(randlora_cfg, save_projection, true, "the file has the random bases; false is not possible here"),
    PF_CFG_BOOL(randlora_cfg, sparse, false, "bases of -1, 0 and 1, two thirds of them zeros"),
    PF_CFG_BOOL(randlora_cfg, very_sparse, false, "bases of -1, 0 and 1, all but one in sqrt(least side) zeros"),
    PF_DELTA_NAME_ROWS(randlora_cfg),
    PF_DELTA_LAYER_ROWS(randlora_cfg),
    PF_CFG_BOOL(randlora_cfg, init_weights, true, "the update is zero at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

enum { LAMBDA, GAMMA };

typedef struct randlora_site {
    pf_delta_site s; /* lambda (r, bases), gamma (bases, least side) */
    double scale;
    bool narrow_in; /* the inputs are the smaller side */
    pf_param *a, *b;
    pf_scaled_bases_args bases;
    pf_corner_args corner; /* of b, as (largest side, bases r) */
} randlora_site;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    randlora_site *l = self;
    const randlora_cfg *cfg = l->s.ad->cfg.method_cfg;
    pf_graph *g = b->graph;
    pf_value *p[PF_DELTA_PARAMS], *in[3], *part, *other = pf_graph_param(g, l->b);
    const pf_drop_args drop = {
        .p = cfg->randlora_dropout, .seed = l->s.ad->params.seed, .mask_key = mask_key};
    PF_CHECK_ALLOC(other, err);
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    in[0] = p[LAMBDA];
    in[1] = p[GAMMA];
    in[2] = pf_graph_param(g, l->a);
    PF_CHECK_ALLOC(in[2], err);
    PF_TRY(pf_derive_emit(g, site->name, &pf_scaled_bases, &l->bases, in, 3, &part, err));
    PF_TRY(pf_derive_emit(g, site->name, &pf_corner, &l->corner, &other, 1, &other, err));
    if (!l->narrow_in) PF_TRY(pf_turn(g, site->name, other, &other, err));
    PF_TRY(pf_drop(g, site->name, x, &drop, &x, err));
    PF_TRY(pf_linear(g, site->name, x, l->narrow_in ? part : other, NULL, &x, err));
    PF_TRY(pf_linear(g, site->name, x, l->narrow_in ? other : part, NULL, &x, err));
    PF_TRY(pf_scale(g, site->name, x, l->scale, &x, err));
    return pf_add(g, site->name, *y, x, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static int64_t bases_of(int64_t least, int64_t r) {
    return (least + r - 1) / r;
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const randlora_cfg *cfg = ad->cfg.method_cfg;
    randlora_site *l = self;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim;
    const int64_t least = in < out ? in : out, n = bases_of(least, cfg->r);
    pf_param *p;
    (void)t;
    l->scale = (double)cfg->randlora_alpha / (double)cfg->r;
    l->narrow_in = in <= out;
    l->bases.turned = !l->narrow_in;
    l->corner = (pf_corner_args){in > out ? in : out, n * cfg->r};
    PF_TRY(pf_delta_param(ad, &l->s, ".randlora_lambda", cfg->r, n, &p, err));
    return pf_delta_param(ad, &l->s, ".randlora_gamma", n, least, &p, err);
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const randlora_cfg *cfg = ad->cfg.method_cfg;
    const randlora_site *l = self;
    const pf_param *g = l->s.p[GAMMA];
    if (!cfg->init_weights) pf_fill_normal(l->s.p[LAMBDA], seed, 1);
    pf_fill_constant(l->s.p[GAMMA], 1 / (double)(g->rows > g->cols ? g->rows : g->cols));
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const randlora_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.randlora",
                                   .what = "RandLoRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(randlora_cfg),
                                   .site_size = sizeof(randlora_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

/* A matrix that all sites share, in three dimensions; no parameter of peft's model. */
static peft_status add_shared(pf_adapter *ad, const char *name, int64_t n0, int64_t n1, int64_t n2,
                              pf_param **out, peft_error *err) {
    PF_TRY(pf_params_add(&ad->params, name, n0, n1 * n2, out, err));
    pf_params_freeze(&ad->params, *out);
    (*out)->n_dims = 3;
    memcpy((*out)->dims, (const int64_t[]){n0, n1, n2}, 3 * sizeof *(*out)->dims);
    return PEFT_OK;
}

static peft_status randlora_attach(pf_adapter *ad, peft_error *err) {
    const randlora_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    int64_t in = 0, out = 0;
    pf_param *a, *b;
    ad->dropout = cfg->randlora_dropout;
    if (!cfg->save_projection)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.randlora.save_projection is false: the random bases would have to be "
                       "drawn by torch's generator; have peft save them, or leave the key out");
    PF_TRY(pf_delta_attach(ad, &kind, err));
    for (int i = 0; i < m->n_sites; i++) {
        if (!pf_delta_touches(ad, m->sites[i])) continue;
        if (m->sites[i]->in_dim > in) in = m->sites[i]->in_dim;
        if (m->sites[i]->out_dim > out) out = m->sites[i]->out_dim;
    }
    const int64_t least = in < out ? in : out, most = in > out ? in : out;
    PF_TRY(add_shared(ad, "base_model.randlora_A", cfg->r, 1, least, &a, err));
    PF_TRY(add_shared(ad, "base_model.randlora_B", most, bases_of(least, cfg->r), cfg->r, &b, err));
    for (int i = 0; i < m->n_sites; i++) {
        randlora_site *l = pf_delta_at(ad, m->sites[i]);
        if (l == NULL) continue;
        l->a = a;
        l->b = b;
    }
    return PEFT_OK;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Uniform with deviation 1; or -1, 0, 1, of which one in `one_in` is no zero, divided by their
 * deviation. */
static void draw(pf_param *p, uint64_t seed, double one_in) {
    const int64_t n = p->rows * p->cols;
    double squares = 0;
    pf_fill_uniform(p, seed, one_in > 0 ? 1 : sqrt(3.0));
    for (int64_t i = 0; one_in > 0 && i < n; i++) {
        p->data[i] = p->data[i] < -1 + 1 / one_in ? -1 : p->data[i] > 1 - 1 / one_in ? 1 : 0;
        squares += (double)(p->data[i] * p->data[i]);
    }
    for (int64_t i = 0; squares > 0 && i < n; i++)
        p->data[i] = (pf_real)((double)p->data[i] / sqrt(squares / (double)n));
}

static peft_status randlora_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    const randlora_cfg *cfg = ad->cfg.method_cfg;
    const randlora_site *any = NULL;
    for (int i = 0; any == NULL; i++) any = pf_delta_at(ad, ad->model->sites[i]);
    const double one_in = cfg->very_sparse ? sqrt((double)any->a->cols) : cfg->sparse ? 3 : 0;
    draw(any->a, (uint64_t)cfg->projection_prng_key, one_in);
    draw(any->b, (uint64_t)cfg->projection_prng_key, one_in);
    return pf_delta_init(ad, seed, err);
}

/* peft's file has the shared bases once more for every layer. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    (void)ad;
    return (pf_ends_with(tensor, ".randlora_A") || pf_ends_with(tensor, ".randlora_B")) &&
           !pf_streq(tensor, "base_model.randlora_A") && !pf_streq(tensor, "base_model.randlora_B");
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const randlora_cfg *)ad->cfg.method_cfg)->randlora_dropout > 0;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const randlora_site *l = pf_delta_at(ad, site);
    const pf_mat in[] = {pf_delta_mat(l->s.p[LAMBDA]), pf_delta_mat(l->s.p[GAMMA]),
                         pf_delta_mat(l->a)};
    const int64_t R = l->corner.cols, C = site->in_dim, stride = l->b->cols;
    pf_mat part;
    PF_TRY(pf_delta_derive(&pf_scaled_bases, &l->bases, in, 3, &part, err));
    if (l->narrow_in) { /* rows of B times the part (R, in) */
        pf_delta_add_product(out, n, C, l->scale, R, l->b->data + row0 * stride, stride, part.data);
    } else { /* rows of the part (out, R) times B (in, R) turned */
        for (int64_t i = 0; i < n; i++) {
            for (int64_t c = 0; c < C; c++) {
                double sum = 0;
                for (int64_t k = 0; k < R; k++)
                    sum +=
                        (double)part.data[(row0 + i) * R + k] * (double)l->b->data[c * stride + k];
                out[i * C + c] = (float)((double)out[i * C + c] + l->scale * sum);
            }
        }
    }
    pf_free(part.data);
    return PEFT_OK;
}

const pf_method pf_method_randlora = {
    .name = "randlora",
    .help = "full rank of random bases with trained factors (RandLoRA, arXiv 2502.00987)",
    .paper = "RandLoRA: Full-rank parameter-efficient fine-tuning of large models, Albert et al. "
             "2025, arXiv 2502.00987",
    .cfg_rows = rows,
    .cfg_size = sizeof(randlora_cfg),
    .peft_type = "RANDLORA",
    .attach = randlora_attach,
    .init = randlora_init,
    .ready = pf_delta_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .has_dropout = has_dropout,
    .repeats = repeats,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
