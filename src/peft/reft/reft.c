/* reft.c - representation fine-tuning: at the output of a block, rows at the first positions of a
 * text are edited in a subspace of rank r (Wu et al. 2024, arXiv 2404.03592, section 3)
 *
 *   LoReFT  y = x + (f(R x + b) - W x) W,  W with orthonormal rows
 *   NoReFT  the same, W any matrix
 *   DiReFT  y = x + f(R x + b) W
 *
 * and dropped, while training, with the edit in them. Names and first distributions are those of
 * AdapterHub. There the orthogonal W is torch's parametrization (ops/made: householder): B, a fixed
 * orthogonal matrix of hidden x hidden numbers which stands in the file, and reflections that are
 * trained; the diagonal of `original` holds signs and does not decay. A module has two units, for
 * the first and the last positions; the second is saved and never acts: the last positions of a
 * text that is being generated are not known, so suffix_positions is refused.
 *
 * In encoder-decoders blocks are counted over both stacks, and each stack's rows have their own
 * positions: of the source, and of the answer from the decoder's start.
 *
 * Positions are the text's own, in training and in generation with a cache. (AdapterHub counts from
 * the first row of a call, so with its cache every new token is at the first position.) */
#include "peft/reft/reft.h"

#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale.h"
#include "ops/made/made.h"
#include "ops/matmul/linear.h"
#include "peft/first_weights.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

typedef struct unit {
    pf_param *source, *bias;   // R (r,C), b (r)
    pf_param *projection;      // W (r,C); NULL:
    pf_param *original, *base; // (r,C), (C,C)
} unit;

typedef struct reft_site {
    const pf_adapter *ad;
    const pf_reft_cfg *cfg;
    unit units[2];
    int n_units;
    bool is_last; /* block of the model */
    struct reft_site *next;
} reft_site;

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status value_of(pf_build *b, pf_param *p, pf_value **v, peft_error *err) {
    *v = pf_graph_param(b->graph, p);
    PF_CHECK_ALLOC(*v, err);
    return PEFT_OK;
}

static peft_status build_w(pf_build *b, const unit *u, const char *name, pf_value **w,
                           peft_error *err) {
    pf_value *x, *base;
    if (u->projection != NULL) return value_of(b, u->projection, w, err);
    PF_TRY(value_of(b, u->original, &x, err));
    PF_TRY(value_of(b, u->base, &base, err));
    return pf_householder(b->graph, name, x, base, w, err);
}

/* (f(R x + b) - W x) W */
static peft_status build_edit(pf_build *b, const reft_site *s, const unit *u, const char *name,
                              pf_value *x, pf_value **edit, peft_error *err) {
    pf_graph *g = b->graph;
    pf_value *source, *bias, *w, *turned, *low, *seen;
    PF_TRY(value_of(b, u->source, &source, err));
    PF_TRY(value_of(b, u->bias, &bias, err));
    PF_TRY(build_w(b, u, name, &w, err));
    PF_TRY(pf_linear(g, name, x, source, NULL, &low, err));
    PF_TRY(pf_add_bias(g, name, low, bias, &low, err));
    if (!pf_streq(s->cfg->non_linearity, "none")) {
        const pf_op *f = pf_activation_find(s->cfg->non_linearity);
        PF_TRY(pf_activation(g, f, name, low, &low, err));
    }
    if (s->cfg->subtract_projection) {
        PF_TRY(pf_linear(g, name, x, w, NULL, &seen, err));
        PF_TRY(pf_scale(g, name, seen, -1, &seen, err));
        PF_TRY(pf_add(g, name, low, seen, &low, err));
    }
    PF_TRY(pf_turn(g, name, w, &turned, err));
    return pf_linear(g, name, low, turned, NULL, edit, err);
}

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)x;
    const reft_site *s = self;
    const char *name = pf_arena_printf(&b->graph->arena, "%s.reft", site->name);
    pf_value *h = *y, *edit, *minus;
    PF_CHECK_ALLOC(name, err);
    PF_TRY(build_edit(b, s, &s->units[0], name, h, &edit, err));
    if (s->cfg->dropout > 0 && b->mode == PF_BUILD_TRAIN) { /* drop(x + edit) - x */
        const pf_drop_args drop = {
            .p = s->cfg->dropout, .seed = s->ad->params.seed, .mask_key = mask_key};
        PF_TRY(pf_add(b->graph, name, h, edit, &edit, err));
        PF_TRY(pf_drop(b->graph, name, edit, &drop, &edit, err));
        PF_TRY(pf_scale(b->graph, name, h, -1, &minus, err));
        PF_TRY(pf_add(b->graph, name, edit, minus, &edit, err));
    }
    PF_TRY(pf_first_rows(b->graph, name, edit, s->cfg->prefix_positions, &edit, err));
    return pf_add(b->graph, name, h, edit, y, err);
}

static const pf_site_hooks hooks = {.output = output};

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add(pf_adapter *ad, const char *prefix, const char *suffix, int64_t rows,
                       int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, "%s.%s", prefix, suffix);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_add_param(ad, name, rows, cols, out, err);
}

static peft_status add_unit(pf_adapter *ad, const pf_reft_cfg *cfg, const char *prefix, unit *u,
                            peft_error *err) {
    const int64_t C = ad->model->hidden, r = cfg->r;
    PF_TRY(add(ad, prefix, "learned_source.weight", r, C, &u->source, err));
    PF_TRY(add(ad, prefix, "learned_source.bias", 1, r, &u->bias, err));
    u->bias->is_vector = true;
    u->bias->decay = false;
    if (!cfg->orthogonality) return add(ad, prefix, "projection.weight", r, C, &u->projection, err);
    PF_TRY(add(ad, prefix, "projection.parametrizations.weight.original", r, C, &u->original, err));
    u->original->decay = false;
    PF_TRY(add(ad, prefix, "projection.parametrizations.weight.0.base", C, C, &u->base, err));
    pf_params_fix(&ad->params, u->base);
    ad->extra_params -= C * C; /* torch counts no buffers */
    return PEFT_OK;
}

static int count_blocks(const pf_model *m) {
    int n = 0;
    for (int i = 0; i < m->n_sites; i++) n += m->sites[i]->kind == PF_SITE_BLOCK_OUTPUT;
    return n;
}

static peft_status attach_site(pf_adapter *ad, pf_site *site, reft_site ***end, peft_error *err) {
    const pf_reft_cfg *cfg = ad->cfg.method_cfg;
    reft_site *s = PF_NEW(&ad->arena, reft_site);
    PF_CHECK_ALLOC(s, err);
    s->ad = ad;
    s->cfg = cfg;
    s->n_units = cfg->tied_weights ? 1 : 2;
    s->is_last = site->block == count_blocks(ad->model) - 1;
    for (int i = 0; i < s->n_units; i++) {
        const char *prefix = pf_arena_printf(&ad->arena, "%s.reft_layer.refts.%s.units.%d",
                                             site->name, cfg->adapter_name, i);
        PF_CHECK_ALLOC(prefix, err);
        PF_TRY(add_unit(ad, cfg, prefix, &s->units[i], err));
    }
    **end = s;
    *end = &s->next;
    return pf_adapter_hook(ad, site, &hooks, s, err);
}

static bool wants(const pf_reft_cfg *cfg, const pf_site *site) {
    bool named = cfg->layers.n == 0;
    for (int i = 0; i < cfg->layers.n; i++) named |= cfg->layers.items[i] == site->block;
    return named && site->kind == PF_SITE_BLOCK_OUTPUT;
}

static peft_status check_model(const pf_adapter *ad, peft_error *err) {
    const pf_reft_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    const int n_blocks = count_blocks(m);
    for (int i = 0; i < cfg->layers.n; i++) {
        if (cfg->layers.items[i] >= 0 && cfg->layers.items[i] < n_blocks) continue;
        if (!ad->strict) continue;
        return PF_FAIL(
            err, PEFT_E_CONFIG, "peft.%s.layers has layer %lld; the layers of '%s' are 0 to %d%s",
            ad->method->name, (long long)cfg->layers.items[i], m->name, n_blocks - 1,
            m->encoder_decoder ? ", those of the decoder after those of the encoder" : "");
    }
    if (cfg->r >= m->hidden) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "r is %lld, but rows have %lld numbers: an intervention has to be of lower "
                       "rank; 1 to 8 are usual",
                       (long long)cfg->r, (long long)m->hidden);
    }
    if (!pf_streq(cfg->non_linearity, "none") && pf_activation_find(cfg->non_linearity) == NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "non_linearity '%s' is not known",
                       cfg->non_linearity);
    }
    return PEFT_OK;
}

peft_status pf_reft_attach(pf_adapter *ad, peft_error *err) {
    const pf_reft_cfg *cfg = ad->cfg.method_cfg;
    reft_site *first = NULL, **end = &first;
    ad->rank = cfg->r;
    ad->dropout = cfg->dropout;
    PF_TRY(check_model(ad, err));
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (wants(cfg, ad->model->sites[i]))
            PF_TRY(attach_site(ad, ad->model->sites[i], &end, err));
    }
    ad->state = first;
    if (first != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s has no blocks for interventions to act behind",
                   ad->model->architecture);
}

/* ---- first weights --------------------------------------------------------------------------- */

/* Reflections v_j (r, n) whose product has random orthonormal first columns: those of the QR
 * factors of a normal matrix. */
static void draw_reflections(double *v, int64_t r, int64_t n, pf_rng_key key) {
    for (int64_t i = 0; i < r * n; i++) v[i] = pf_rng_normal_at(key, (uint64_t)i);
    for (int64_t j = 0; j < r; j++) {
        double *x = v + j * n, size = 0;
        for (int64_t k = 0; k < j; k++) { /* the column as the reflections before left it */
            const double *u = v + k * n;
            double along = 0;
            for (int64_t i = k; i < n; i++) along += u[i] * x[i];
            for (int64_t i = k; i < n; i++) x[i] -= 2 * along * u[i];
        }
        for (int64_t i = 0; i < j; i++) x[i] = 0;
        for (int64_t i = j; i < n; i++) size += x[i] * x[i];
        x[j] += x[j] < 0 ? -sqrt(size) : sqrt(size);
        size = 0;
        for (int64_t i = j; i < n; i++) size += x[i] * x[i];
        for (int64_t i = j; i < n; i++) x[i] /= sqrt(size);
    }
}

/* B = H_1 ... H_r, (n, n): its first r columns are the random ones, the rest completes them. */
static peft_status fill_base(pf_param *base, int64_t r, uint64_t seed, peft_error *err) {
    const int64_t n = base->cols;
    const pf_rng_key key =
        pf_rng_make_key(seed, PF_RNG_INIT, pf_hash64(base->name, strlen(base->name), 0));
    double *v = pf_calloc((size_t)((r + 1) * n), sizeof *v), *along = v + r * n;
    PF_CHECK_ALLOC(v, err);
    draw_reflections(v, r, n, key);
    for (int64_t i = 0; i < n; i++) base->data[i * n + i] = 1;
    for (int64_t j = r - 1; j >= 0; j--) {
        const double *u = v + j * n;
        memset(along, 0, (size_t)n * sizeof *along);
        for (int64_t i = j; i < n; i++) {
            for (int64_t c = 0; c < n; c++) along[c] += u[i] * (double)base->data[i * n + c];
        }
        for (int64_t i = j; i < n; i++) {
            for (int64_t c = 0; c < n; c++)
                base->data[i * n + c] =
                    (pf_real)((double)base->data[i * n + c] - 2 * u[i] * along[c]);
        }
    }
    pf_free(v);
    return PEFT_OK;
}

static peft_status init_unit(const unit *u, uint64_t seed, peft_error *err) {
    const double bound = 1 / sqrt((double)u->source->cols);
    pf_fill_uniform(u->source, seed, bound);
    pf_fill_uniform(u->bias, seed, bound);
    if (u->projection != NULL) {
        pf_fill_uniform(u->projection, seed, bound);
        return PEFT_OK;
    }
    for (int64_t k = 0; k < u->original->rows; k++)
        u->original->data[k * u->original->cols + k] = -1;
    return fill_base(u->base, u->original->rows, seed, err);
}

peft_status pf_reft_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    for (const reft_site *s = ad->state; s != NULL; s = s->next) {
        for (int i = 0; i < s->n_units; i++) PF_TRY(init_unit(&s->units[i], seed, err));
    }
    return PEFT_OK;
}

/* The unit of the last positions never has a gradient; behind the last block the first positions
 * have one only where a label stands. */
void pf_reft_ready(pf_adapter *ad) {
    for (const reft_site *s = ad->state; s != NULL; s = s->next) {
        for (int i = 0; i < s->n_units; i++) {
            const unit *u = &s->units[i];
            pf_param *const all[] = {u->source, u->bias, u->projection, u->original};
            for (size_t k = 0; k < PF_COUNT(all); k++) {
                if (all[k] != NULL) all[k]->may_idle = i > 0 || s->is_last;
            }
        }
    }
}

bool pf_reft_has_dropout(const pf_adapter *ad) {
    return ((const pf_reft_cfg *)ad->cfg.method_cfg)->dropout > 0;
}
