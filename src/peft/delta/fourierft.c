/* fourierft.c - FourierFT: y = W x + D x, D the inverse Fourier transform of a matrix with n
 * trained numbers at random places (Gao et al. 2024, arXiv 2405.03003), times `scaling`.
 *
 * The places follow from random_loc_seed alone, drawn as torch draws them (base/torch_rng.h), so
 * files go both ways; layers of one shape have the same. Rows are transformed instead of D
 * (fourier.c): no (out, in) matrix exists. */
#include "base/mem.h"
#include "base/torch_rng.h"
#include "ops/activation/activation.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

typedef struct fourierft_cfg {
    pf_delta_cfg d;
    int64_t n_frequency, random_loc_seed;
    double scaling;
    pf_cfg_map n_frequency_pattern;
    bool init_weights;
} fourierft_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(fourierft_cfg, n_frequency, 1000, 1, 16777216, "trained Fourier coefficients of a layer"),
    PF_CFG_FLOAT(fourierft_cfg, scaling, 150, -1e9, 1e9, "factor of the update"),
    PF_CFG_INT(fourierft_cfg, random_loc_seed, 777, 0, 9007199254740992.0, "seed of the coefficients' places"),
    PF_DELTA_TARGET_ROWS(fourierft_cfg),
    PF_CFG_NUMMAP(fourierft_cfg, n_frequency_pattern, 1, 16777216, "other numbers of coefficients for some modules: {name or regular expression: n_frequency}", .flags = PF_CFG_WHOLE),
    PF_CFG_BOOL(fourierft_cfg, init_weights, false, "true: the update is zero at first; false: normal numbers"),
    PF_CFG_END};
/* clang-format on */

typedef struct fourierft_site {
    pf_delta_site s; /* spectrum (n) */
    int64_t n;
    pf_fft in, out;
    pf_fourier_args args;
} fourierft_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)mask_key;
    fourierft_site *l = self;
    pf_value *p, *delta;
    PF_TRY(pf_delta_values(b, &l->s, &p, err));
    PF_TRY(pf_rowmap_emit(b->graph, site->name, &pf_fourier, &l->args, x, &p, 1, &delta, err));
    return pf_add(b->graph, site->name, *y, delta, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

/* Places and tables of another layer of this shape, if there is one. */
static bool share(const pf_adapter *ad, fourierft_site *l) {
    for (int i = 0; i < l->s.site->index; i++) {
        const fourierft_site *o = pf_delta_at(ad, ad->model->sites[i]);
        if (o == NULL || o->n != l->n || o->in.n != l->s.site->in_dim ||
            o->out.n != l->s.site->out_dim)
            continue;
        l->in = o->in;
        l->out = o->out;
        l->args = o->args;
        l->args.in = &l->in;
        l->args.out = &l->out;
        return true;
    }
    return false;
}

static peft_status draw_places(pf_adapter *ad, fourierft_site *l, peft_error *err) {
    const fourierft_cfg *cfg = ad->cfg.method_cfg;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim, n = l->n;
    pf_torch_rng g;
    int32_t *u = PF_NEW_ARRAY(&ad->arena, int32_t, n), *v = PF_NEW_ARRAY(&ad->arena, int32_t, n);
    PF_CHECK_ALLOC(u, err);
    PF_CHECK_ALLOC(v, err);
    int64_t *places = pf_calloc((size_t)n, sizeof *places);
    PF_CHECK_ALLOC(places, err);
    pf_torch_rng_init(&g, (uint64_t)cfg->random_loc_seed);
    peft_status status = pf_torch_rng_permutation(&g, in * out, n, places, err);
    for (int64_t k = 0; status == PEFT_OK && k < n; k++) {
        u[k] = (int32_t)(places[k] / in);
        v[k] = (int32_t)(places[k] % in);
    }
    pf_free(places);
    PF_TRY(status);
    PF_TRY(pf_fft_init(&l->in, &ad->arena, in, err));
    PF_TRY(pf_fft_init(&l->out, &ad->arena, out, err));
    l->args = (pf_fourier_args){.in = &l->in,
                                .out = &l->out,
                                .u = u,
                                .v = v,
                                .alpha = cfg->scaling / ((double)in * (double)out)};
    return PEFT_OK;
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const fourierft_cfg *cfg = ad->cfg.method_cfg;
    fourierft_site *l = self;
    pf_param *p;
    (void)t;
    double n = (double)cfg->n_frequency;
    PF_TRY(pf_delta_pattern(ad, "peft.fourierft.n_frequency_pattern", &cfg->n_frequency_pattern,
                            l->s.site->name, &n, err));
    l->n = (int64_t)n;
    const int64_t room = l->s.site->in_dim * l->s.site->out_dim;
    if (l->n > room)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.fourierft.n_frequency is %lld, but the weight has %lld numbers",
                       l->s.site->name, (long long)l->n, (long long)room);
    if (!share(ad, l)) PF_TRY(draw_places(ad, l, err));
    PF_TRY(pf_delta_param(ad, &l->s, ".fourierft_spectrum", 1, l->n, &p, err));
    p->is_vector = true;
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const fourierft_cfg *cfg = ad->cfg.method_cfg;
    fourierft_site *l = self;
    if (!cfg->init_weights) pf_fill_normal(l->s.p[0], seed, 1);
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.fourierft",
                                   .what = "FourierFT",
                                   .rows = rows,
                                   .cfg_size = sizeof(fourierft_cfg),
                                   .site_size = sizeof(fourierft_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status fourierft_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const fourierft_site *l = pf_delta_at(ad, site);
    const pf_mat p = pf_delta_mat(l->s.p[0]);
    pf_real *room = pf_calloc((size_t)pf_fourier_room(&l->args), sizeof *room);
    PF_CHECK_ALLOC(room, err);
    pf_fourier_add(&l->args, &p, row0, n, out, room);
    pf_free(room);
    return PEFT_OK;
}

const pf_method pf_method_fourierft = {
    .name = "fourierft",
    .help = "few Fourier coefficients of the update (FourierFT, arXiv 2405.03003)",
    .paper = "Parameter-Efficient Fine-Tuning with Discrete Fourier Transform, Gao et al. 2024, "
             "arXiv 2405.03003",
    .cfg_rows = rows,
    .cfg_size = sizeof(fourierft_cfg),
    .peft_type = "FOURIERFT",
    .attach = fourierft_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
