/* delta.c - attaching, first weights and merging for the methods of this folder; see delta.h. Files
 * are in delta_config.c. */
#include "peft/delta/delta.h"

#include "base/hash.h"
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "ops/activation/step_mask.h"
#include "peft/delta/delta_maps.h"
#include "peft/delta/delta_parts.h"
#include "peft/match.h"

#include <math.h>
#include <string.h>

/* ---- attaching ------------------------------------------------------------------------------- */

pf_target_rules pf_delta_rules(const pf_delta_kind *k, const void *cfg) {
    const pf_delta_cfg *d = cfg;
    pf_target_rules rules = {.key = k->key,
                             .what = k->what,
                             .kinds = k->kinds,
                             .acts_on = k->acts_on,
                             .target_modules = d->target_modules,
                             .exclude_modules = d->exclude_modules,
                             .layers_to_transform = d->layers_to_transform,
                             .layers_pattern = d->layers_pattern,
                             .modules_to_save = d->modules_to_save,
                             .rank_pattern = d->rank_pattern,
                             .alpha_pattern = d->alpha_pattern};
    if (k->rank != NULL) k->rank(cfg, &rules.r, &rules.alpha);
    return rules;
}

static peft_status attach_site(pf_adapter *ad, const pf_delta_kind *k, const pf_target *t,
                               pf_site *site, peft_error *err) {
    pf_delta_site *s = pf_arena_alloc(&ad->arena, k->site_size);
    PF_CHECK_ALLOC(s, err);
    memset(s, 0, k->site_size);
    s->ad = ad;
    s->site = site;
    PF_TRY(k->attach(ad, s, t, err));
    ((pf_delta_state *)ad->state)->at[site->index] = s;
    const bool other = site->kind == PF_SITE_EMBEDDING && k->embedding_hooks != NULL;
    return pf_adapter_hook(ad, site, other ? k->embedding_hooks : k->hooks, s, err);
}

peft_status pf_delta_attach(pf_adapter *ad, const pf_delta_kind *kind, peft_error *err) {
    const pf_target_rules rules = pf_delta_rules(kind, ad->cfg.method_cfg);
    const pf_model *m = ad->model;
    pf_target *targets;
    pf_delta_state *st = PF_NEW(&ad->arena, pf_delta_state);
    PF_CHECK_ALLOC(st, err);
    st->kind = kind;
    st->at = PF_NEW_ARRAY(&ad->arena, pf_delta_site *, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    ad->state = st;
    ad->rank = rules.r;
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    for (int i = 0; i < m->n_sites; i++) {
        if (targets[i].hit) PF_TRY(attach_site(ad, kind, &targets[i], m->sites[i], err));
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, m->sites[i], err));
    }
    return PEFT_OK;
}

void *pf_delta_at(const pf_adapter *ad, const pf_site *site) {
    return ((const pf_delta_state *)ad->state)->at[site->index];
}

bool pf_delta_touches(const pf_adapter *ad, const pf_site *site) {
    return pf_delta_at(ad, site) != NULL;
}

peft_status pf_delta_param(pf_adapter *ad, pf_delta_site *s, const char *suffix, int64_t rows,
                           int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s", s->site->name, suffix);
    PF_CHECK_ALLOC(name, err);
    PF_ASSERT(s->n_p < PF_DELTA_PARAMS);
    PF_TRY(pf_adapter_add_param(ad, name, rows, cols, out, err));
    s->p[s->n_p++] = *out;
    return PEFT_OK;
}

peft_status pf_delta_pattern(pf_adapter *ad, const char *key, const pf_cfg_map *map,
                             const char *module, double *value, peft_error *err) {
    (void)ad;
    for (int i = 0; i < map->n; i++) {
        pf_pattern *p;
        bool hit = false;
        PF_TRY(pf_pattern_new(&p, key, "(?:.*\\.)?(?:", map->items[i].key, ")$", false, err));
        const peft_status status = pf_pattern_match(p, module, &hit, NULL, err);
        pf_pattern_free(p);
        PF_TRY(status);
        if (!hit) continue;
        *value = map->items[i].number;
        return PEFT_OK;
    }
    return PEFT_OK;
}

peft_status pf_delta_values(pf_build *b, const pf_delta_site *s, pf_value **out, peft_error *err) {
    for (int i = 0; i < s->n_p; i++) {
        out[i] = pf_graph_param(b->graph, s->p[i]);
        PF_CHECK_ALLOC(out[i], err);
    }
    return PEFT_OK;
}

static uint64_t key_of(const pf_site *site) {
    return pf_hash64(site->name, strlen(site->name), 0);
}

void pf_delta_may_drop(const pf_delta_site *s, const pf_delta_drop *drop) {
    for (int i = 0; i < s->n_p && (drop->columns > 0 || drop->module > 0); i++)
        s->p[i]->may_idle = true;
}

peft_status pf_delta_add(pf_build *b, const pf_delta_site *s, const pf_delta_drop *drop,
                         pf_value *delta, pf_value **y, peft_error *err) {
    const pf_drop_columns_args args = {.p_column = drop->columns,
                                       .p_module = drop->module,
                                       .scaled = drop->scaled,
                                       .seed = s->ad->params.seed,
                                       .site = key_of(s->site)};
    if (b->mode == PF_BUILD_TRAIN)
        PF_TRY(pf_drop_columns(b->graph, s->site->name, delta, &args, &delta, err));
    return pf_add(b->graph, s->site->name, *y, delta, y, err);
}

peft_status pf_delta_drop_blocks(pf_build *b, const pf_delta_site *s, double p, int64_t sets,
                                 int64_t blocks, pf_value **z, peft_error *err) {
    const pf_drop_blocks_args args = {.p = p,
                                      .sets = sets,
                                      .blocks = blocks,
                                      .seed = s->ad->params.seed,
                                      .site = key_of(s->site)};
    if (b->mode != PF_BUILD_TRAIN) return PEFT_OK;
    return pf_drop_blocks(b->graph, s->site->name, *z, &args, z, err);
}

/* ---- first weights --------------------------------------------------------------------------- */

void pf_delta_fill_kaiming(pf_param *p, uint64_t seed) {
    pf_fill_uniform(p, seed, 1 / sqrt((double)p->cols));
}

peft_status pf_delta_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    const pf_delta_state *st = ad->state;
    (void)err;
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (st->at[i] != NULL) st->kind->init(ad, st->at[i], seed);
    }
    return PEFT_OK;
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        if (p->data[i] != 0) return false;
    }
    return true;
}

void pf_delta_ready(pf_adapter *ad) {
    const pf_delta_state *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_delta_site *s = st->at[i];
        for (int a = 0; s != NULL && a < s->n_p; a++) {
            for (int k = 0; k < s->n_p; k++) {
                if (k != a && all_zero(s->p[k])) s->p[a]->zero_grad_ok = true;
            }
        }
    }
}

/* ---- merging --------------------------------------------------------------------------------- */

pf_mat pf_delta_mat(const pf_param *p) {
    return (pf_mat){.data = p->data, .rows = p->rows, .cols = p->cols};
}

peft_status pf_delta_derive(const pf_derive *fn, const void *args, const pf_mat *in, int n_in,
                            pf_mat *out, peft_error *err) {
    pf_derive_run r = {.args = args, .isa = pf_gemm_best()};
    peft_status status = PEFT_OK;
    for (int i = 0; i < n_in; i++) r.in[i] = in[i];
    const bool fits = fn->shape(args, in, r.out);
    PF_ASSERT(fits);
    const int64_t scratch = fn->scratch == NULL ? 0 : fn->scratch(args, in, 1);
    r.gemm_room = pf_aligned_malloc((size_t)pf_gemm_workspace(1), 64);
    r.scratch = pf_calloc((size_t)scratch + 1, sizeof *r.scratch);
    bool room = r.gemm_room != NULL && r.scratch != NULL;
    for (int i = 0; i < fn->n_out; i++) {
        r.out[i].data = pf_calloc((size_t)(r.out[i].rows * r.out[i].cols), sizeof(pf_real));
        room = room && r.out[i].data != NULL;
    }
    if (room) {
        fn->forward(&r);
    } else {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory while merging (%s)", fn->name);
    }
    pf_free(r.gemm_room);
    pf_free(r.scratch);
    for (int i = 0; i < fn->n_out; i++) {
        if (status != PEFT_OK) pf_free(r.out[i].data);
        out[i] = status == PEFT_OK ? r.out[i] : (pf_mat){0};
    }
    return status;
}

void pf_delta_add_product(float *rows, int64_t n, int64_t cols, double scale, int64_t k,
                          const pf_real *left, int64_t left_step, const pf_real *right) {
    enum { CHUNK = 512 };
    double sum[CHUNK];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j0 = 0; j0 < cols; j0 += CHUNK) {
            const int64_t width = cols - j0 < CHUNK ? cols - j0 : CHUNK;
            float *row = rows + i * cols + j0;
            memset(sum, 0, sizeof sum);
            for (int64_t t = 0; t < k; t++) {
                const double a = (double)left[i * left_step + t];
                const pf_real *b = right + t * cols + j0;
                for (int64_t j = 0; j < width; j++) sum[j] += a * (double)b[j];
            }
            for (int64_t j = 0; j < width; j++) row[j] = (float)((double)row[j] + scale * sum[j]);
        }
    }
}

peft_status pf_delta_rotate_rows(const pf_rotate_args *a, const pf_mat *r, int n_maps, float *rows,
                                 int64_t n, int64_t cols, peft_error *err) {
    double *x = pf_calloc(2 * (size_t)cols, sizeof *x), *y = x + cols;
    PF_CHECK_ALLOC(x, err);
    for (int64_t i = 0; i < n; i++) {
        float *row = rows + i * cols;
        for (int64_t c = 0; c < cols; c++) x[c] = (double)row[c];
        for (int k = 0; k < n_maps; k++) {
            pf_rotate_back(&a[k], r, cols, x, y);
            memcpy(x, y, (size_t)cols * sizeof *x);
        }
        for (int64_t c = 0; c < cols; c++) row[c] = (float)x[c];
    }
    pf_free(x);
    return PEFT_OK;
}
