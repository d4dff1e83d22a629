/* shira.c - SHiRA: y = W x + S x, S with r (in + out) trained numbers at places that were drawn
 * once: as many as LoRA of rank r has, and of high rank (Bhardwaj et al. 2024, arXiv 2406.13175).
 *
 * Files have the numbers (shira_weight) and their places (shira_indices (2, n): rows, columns, in
 * the order of rows), which are a frozen parameter here; whatever a file says counts. New places
 * are torch's randperm of random_seed, so those of peft (sparse.c multiplies). */
#include "base/mem.h"
#include "base/torch_rng.h"
#include "ops/activation/activation.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <stdlib.h>

typedef struct shira_cfg {
    pf_delta_cfg d;
    int64_t r, random_seed;
    const char *mask_type;
    bool init_weights;
} shira_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(shira_cfg, r, 32, 1, 65536, "as many numbers are trained as LoRA of this rank has: r (inputs + outputs)"),
    PF_CFG_ENUM(shira_cfg, mask_type, "random", "random", "how their places are drawn"),
    PF_CFG_INT(shira_cfg, random_seed, 0, 0, 9007199254740992.0, "seed of the places"),
    PF_DELTA_NAME_ROWS(shira_cfg),
    PF_CFG_BOOL(shira_cfg, init_weights, true, "the update is zero at first; false: normal numbers, for tests"),
    PF_CFG_END};
/* clang-format on */

typedef struct shira_site {
    pf_delta_site s;  /* (n) */
    pf_param *places; /* (2, n), frozen */
    int64_t *start;   /* (out + 1), of the places, once they are there */
    int32_t *column;  /* (n) */
    pf_sparse_args args;
} shira_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)mask_key;
    shira_site *l = self;
    pf_value *p, *delta;
    PF_TRY(pf_delta_values(b, &l->s, &p, err));
    PF_TRY(pf_rowmap_emit(b->graph, site->name, &pf_sparse, &l->args, x, &p, 1, &delta, err));
    return pf_add(b->graph, site->name, *y, delta, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const shira_cfg *cfg = ad->cfg.method_cfg;
    shira_site *l = self;
    const pf_site *site = l->s.site;
    const int64_t in = site->in_dim, out = site->out_dim, n = cfg->r * (in + out);
    pf_param *p;
    (void)t;
    if (n > in * out)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.shira.r is %lld, which makes %lld numbers; the weight has %lld",
                       site->name, (long long)cfg->r, (long long)n, (long long)(in * out));
    PF_TRY(pf_delta_param(ad, &l->s, ".shira_weight", 1, n, &p, err));
    p->is_vector = true;
    const char *name =
        pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.shira_indices", site->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_params_add(&ad->params, name, 2, n, &l->places, err)); /* no parameter of peft's */
    pf_params_freeze(&ad->params, l->places);
    l->args = (pf_sparse_args){.in = in, .out = out, .n = n};
    if (ad->model->shapes_only) return PEFT_OK;
    l->args.start = l->start = PF_NEW_ARRAY(&ad->arena, int64_t, out + 1);
    l->args.column = l->column = PF_NEW_ARRAY(&ad->arena, int32_t, n);
    PF_CHECK_ALLOC(l->start, err);
    PF_CHECK_ALLOC(l->column, err);
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    if (!((const shira_cfg *)ad->cfg.method_cfg)->init_weights)
        pf_fill_normal(((shira_site *)self)->s.p[0], seed, 1);
}

static void rank(const void *cfg, int64_t *r, double *alpha) {
    *r = ((const shira_cfg *)cfg)->r;
    *alpha = 0;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.shira",
                                   .what = "SHiRA",
                                   .rows = rows,
                                   .cfg_size = sizeof(shira_cfg),
                                   .site_size = sizeof(shira_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .rank = rank,
                                   .attach = attach_site,
                                   .init = init_site};

static peft_status shira_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

/* ---- places ---------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static peft_status draw_places(const pf_adapter *ad, shira_site *l, peft_error *err) {
    const int64_t in = l->args.in, n = l->args.n;
    pf_torch_rng g;
    int64_t *places = pf_calloc((size_t)n, sizeof *places);
    PF_CHECK_ALLOC(places, err);
    pf_torch_rng_init(&g, (uint64_t)((const shira_cfg *)ad->cfg.method_cfg)->random_seed);
    const peft_status status = pf_torch_rng_permutation(&g, in * l->args.out, n, places, err);
    if (status == PEFT_OK) qsort(places, (size_t)n, sizeof *places, ascending);
    for (int64_t k = 0; status == PEFT_OK && k < n; k++) {
        l->places->data[k] = (pf_real)(places[k] / in);
        l->places->data[n + k] = (pf_real)(places[k] % in);
    }
    pf_free(places);
    return status;
}

static peft_status shira_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        shira_site *l = pf_delta_at(ad, ad->model->sites[i]);
        if (l != NULL) PF_TRY(draw_places(ad, l, err));
    }
    return pf_delta_init(ad, seed, err);
}

/* Nobody vouches for a file's places. */
static peft_status check_loaded(const pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        const shira_site *l = pf_delta_at(ad, ad->model->sites[i]);
        double before = 0;
        for (int64_t k = 0; l != NULL && k < l->args.n; k++) {
            const double row = (double)l->places->data[k],
                         column = (double)l->places->data[l->args.n + k];
            const bool fits = row >= before && row < (double)l->args.out && column >= 0 &&
                              column < (double)l->args.in && row == (double)(int64_t)row &&
                              column == (double)(int64_t)column;
            if (!fits)
                return PF_FAIL(err, PEFT_E_FORMAT,
                               "%s: number %lld has the place (%g, %g); places should be in the "
                               "order of the %lld rows, below %lld columns",
                               l->places->name, (long long)k, row, column, (long long)l->args.out,
                               (long long)l->args.in);
            before = row;
        }
    }
    return PEFT_OK;
}

static void shira_ready(pf_adapter *ad) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        shira_site *l = pf_delta_at(ad, ad->model->sites[i]);
        int64_t k = 0;
        for (int64_t o = 0; l != NULL && o <= l->args.out; o++) {
            l->start[o] = k;
            for (; k < l->args.n && (int64_t)l->places->data[k] == o; k++)
                l->column[k] = (int32_t)l->places->data[l->args.n + k];
        }
    }
}

/* ---- merging --------------------------------------------------------------------------------- */

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const shira_site *l = pf_delta_at(ad, site);
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        float *row = out + i * site->in_dim;
        for (int64_t k = l->start[row0 + i]; k < l->start[row0 + i + 1]; k++)
            row[l->column[k]] = (float)((double)row[l->column[k]] + (double)l->s.p[0]->data[k]);
    }
    return PEFT_OK;
}

const pf_method pf_method_shira = {
    .name = "shira",
    .help = "few numbers of the weight, at places drawn once (SHiRA, arXiv 2406.13175)",
    .paper = "Sparse High Rank Adapters, Bhardwaj et al. 2024, arXiv 2406.13175",
    .cfg_rows = rows,
    .cfg_size = sizeof(shira_cfg),
    .peft_type = "SHIRA",
    .attach = shira_attach,
    .init = shira_init,
    .check_loaded = check_loaded,
    .ready = shira_ready,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};
