/* lora_eva.c - EVA, LoRA that begins with what its layers see (Paischer et al. 2024,
 * arXiv 2410.07170, algorithm 1; peft's init_lora_weights eva).
 *
 * X are the rows that come in at a layer on the training data, less their mean, X = U S Vᵀ: the
 * rows of A are the first columns of V, B is zero. X comes batch by batch and V is brought up to
 * date with each (base/pca.h). Each layer may have rho r columns; of all layers' candidates those
 * with the largest share of the variance s² / |X|² are taken, as many as the ranks sum up to, so
 * that rank goes where it explains most. A layer whose columns, as many as it would get, have
 * turned by no more than tau since the batch before rests, unless a later batch gives it more of
 * them; when all rest, that is it. A layer that gets none is left out. Where a layer's rank
 * changes, alpha does by the same factor (adjust_scaling_factors), and the file is plain LoRA with
 * a rank_pattern and an alpha_pattern.
 *
 * Sites of one input share its vectors, and of equal shares the first site's come first. peft's
 * decomposition of a batch is approximate (svd_lowrank), passes over batches with fewer rows than
 * candidates, and has no end where nothing settles. Who shows the rows: peft/first_look.h. */
#include "peft/lora/lora.h"

#include "base/mem.h"
#include "base/pca.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double NOTHING = 1e-6; /* by the largest singular value: what f32 leaves of a zero */

typedef struct spectrum { /* of one input */
    pf_pca pca;
    bool rests;
} spectrum;

struct pf_lora_eva {
    spectrum **at; /* by site->index; NULL where nothing was seen */
};

/* peft's rounding: halves to the even number. */
static int64_t most_of(const pf_lora_cfg *cfg, const pf_lora_site *l) {
    const int64_t most = (int64_t)rint((double)l->r * cfg->eva_config.rho);
    return most < l->site->in_dim ? most : l->site->in_dim;
}

/* ---- what is wanted -------------------------------------------------------------------------- */

static bool wants(const pf_adapter *ad, pf_look_wish *out) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    bool any = false;
    if (!ad->strict || cfg->eva != NULL ||
        pf_lora_init_of(cfg->init_lora_weights) != PF_LORA_INIT_EVA)
        return false;
    out->max_rows = cfg->eva_config.max_rows;
    out->by_label = cfg->eva_config.use_label_mask;
    out->without = cfg->eva_config.label_mask_value;
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (st->at[i] == NULL || st->at[i]->site->kind != PF_SITE_LINEAR) continue;
        const int64_t most = most_of(cfg, st->at[i]);
        if (most > out->least) out->least = most;
        if (out->sites != NULL) out->sites[i] = true;
        any = true;
    }
    return any;
}

static pf_look_bytes bytes(const pf_adapter *ad, const pf_site *site, int64_t rows) {
    const pf_lora *st = ad->state;
    const int64_t k = most_of(ad->cfg.method_cfg, st->at[site->index]);
    return (pf_look_bytes){.kept = pf_pca_room(k, site->in_dim),
                           .work = pf_pca_work(k, site->in_dim, rows)};
}

/* ---- all that are shown at once -------------------------------------------------------------- */

typedef struct shown {
    const pf_look_input *in;
    spectrum **of;
    peft_status *status;
    peft_error *err;
    uint64_t seed;
} shown;

static void add_task(void *ctx, int task, int worker) {
    (void)worker;
    const shown *s = ctx;
    const pf_look_input *in = &s->in[task];
    if (s->of[task]->rests) return;
    s->status[task] = pf_pca_add(&s->of[task]->pca, in->x, in->rows, s->seed, &s->err[task]);
}

/* The candidates of one input: as many as the site that may have most of those that share it. */
static peft_status room_for(pf_adapter *ad, pf_arena *a, const pf_look_input *in, spectrum **out,
                            peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    *out = st->eva->at[in->sites[0]->index];
    int64_t k = 1;
    for (int i = 0; i < in->n_sites; i++) {
        const int64_t most = most_of(cfg, st->at[in->sites[i]->index]);
        if (most > k) k = most;
    }
    if (in->rows < k) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.lora.init_lora_weights eva: the training data give %lld rows to look "
                       "at, and up to rank %lld at %s takes as many. Lower r or eva_config.rho, "
                       "or set eva_config.use_label_mask to false",
                       (long long)in->rows, (long long)k, in->sites[0]->name);
    }
    if (*out != NULL) return PEFT_OK;
    spectrum *sp = PF_NEW(a, spectrum);
    PF_CHECK_ALLOC(sp, err);
    PF_TRY(pf_pca_init(&sp->pca, a, k, in->cols, err));
    for (int i = 0; i < in->n_sites; i++) st->eva->at[in->sites[i]->index] = sp;
    *out = sp;
    return PEFT_OK;
}

static peft_status show(pf_adapter *ad, pf_arena *a, const pf_look_input *in, int n, pf_pool *pool,
                        peft_error *err) {
    pf_lora *st = ad->state;
    if (st->eva == NULL) {
        st->eva = PF_NEW(a, pf_lora_eva);
        PF_CHECK_ALLOC(st->eva, err);
        st->eva->at = PF_NEW_ARRAY(a, spectrum *, ad->model->n_sites);
        PF_CHECK_ALLOC(st->eva->at, err);
    }
    shown s = {.in = in,
               .of = pf_calloc((size_t)n, sizeof(spectrum *)),
               .status = pf_calloc((size_t)n, sizeof(peft_status)),
               .err = pf_calloc((size_t)n, sizeof(peft_error)),
               .seed = ad->params.seed};
    peft_status status = PEFT_OK;
    if (s.of == NULL || s.status == NULL || s.err == NULL)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int i = 0; i < n && status == PEFT_OK; i++)
        status = room_for(ad, a, &in[i], &s.of[i], err);
    if (status == PEFT_OK) pf_pool_run(pool, n, add_task, &s);
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        status = s.status[i];
        if (status != PEFT_OK && err != NULL) *err = s.err[i];
    }
    pf_free(s.of);
    pf_free(s.status);
    pf_free(s.err);
    return status;
}

/* ---- who gets which rank --------------------------------------------------------------------- */

typedef struct candidate {
    double share;
    int site;
    int64_t number; /* of its site */
} candidate;

static int by_share(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->share != y->share) return x->share > y->share ? -1 : 1;
    if (x->site != y->site) return x->site < y->site ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* Ranks by site->index, zeroed room; *budget is what they should sum up to. */
static peft_status share_out(const pf_adapter *ad, int64_t *ranks, int64_t *budget,
                             peft_error *err) {
    const pf_lora *st = ad->state;
    int64_t n = 0, most = 0;
    *budget = 0;
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (st->eva->at[i] == NULL) continue;
        most += st->eva->at[i]->pca.k;
        *budget += st->at[i]->r;
    }
    candidate *all = pf_calloc((size_t)most + 1, sizeof *all);
    PF_CHECK_ALLOC(all, err);
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (st->eva->at[i] == NULL) continue;
        const pf_pca *p = &st->eva->at[i]->pca;
        for (int64_t k = 0; k < p->k && p->s[k] > NOTHING * p->s[0]; k++)
            all[n++] = (candidate){p->s[k] * p->s[k] / p->spread, i, k};
    }
    qsort(all, (size_t)n, sizeof *all, by_share);
    for (int64_t i = 0; i < n && i < *budget; i++) ranks[all[i].site]++;
    pf_free(all);
    return PEFT_OK;
}

/* Have the first `rank` directions turned by no more than tau? */
static bool settled(const pf_pca *p, int64_t rank, double tau) {
    for (int64_t i = 0; i < rank; i++) {
        if (!(p->turned[i] >= tau)) return false;
    }
    return true;
}

static peft_status turn(pf_adapter *ad, bool *sites, bool *done, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    const int n = ad->model->n_sites;
    int64_t *ranks = pf_calloc((size_t)n, sizeof *ranks), budget;
    PF_CHECK_ALLOC(ranks, err);
    peft_status status = share_out(ad, ranks, &budget, err);
    *done = true;
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        if (st->eva->at[i] != NULL) st->eva->at[i]->rests = true;
    }
    for (int i = 0; i < n && status == PEFT_OK; i++) { /* one that shares it may want more of it */
        spectrum *sp = st->eva->at[i];
        if (sp != NULL && !settled(&sp->pca, ranks[i], cfg->eva_config.tau)) sp->rests = false;
    }
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        sites[i] = st->eva->at[i] != NULL && !st->eva->at[i]->rests;
        if (sites[i]) *done = false;
    }
    pf_free(ranks);
    return status;
}

static peft_status add_pair(pf_arena *a, pf_cfg_map *m, const char *name, double number,
                            peft_error *err) {
    const char *text = pf_arena_printf(a, "%.17g", number);
    PF_CHECK_ALLOC(text, err);
    m->items[m->n++] =
        (pf_cfg_pair){.key = name, .text = text, .number = number, .is_number = true};
    return PEFT_OK;
}

typedef struct outcome {
    int layers, left_out, unseen, unsettled; /* modules; unseen: begin as with true */
    int64_t lowest, highest, sum;
} outcome;

/* The section with these ranks: every module that has other numbers than the rest is named in full.
 */
static peft_status write_section(const pf_adapter *ad, pf_arena *a, const int64_t *ranks,
                                 pf_lora_cfg *next, outcome *o, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    const int n = ad->model->n_sites;
    const char **names = PF_NEW_ARRAY(a, const char *, n);
    next->rank_pattern = (pf_cfg_map){.items = PF_NEW_ARRAY(a, pf_cfg_pair, n)};
    next->alpha_pattern = (pf_cfg_map){.items = PF_NEW_ARRAY(a, pf_cfg_pair, n)};
    PF_CHECK_ALLOC(names, err);
    PF_CHECK_ALLOC(next->rank_pattern.items, err);
    PF_CHECK_ALLOC(next->alpha_pattern.items, err);
    int n_names = 0;
    *o = (outcome){.lowest = INT64_MAX};
    for (int i = 0; i < n; i++) {
        const pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        const bool seen = st->eva->at[i] != NULL;
        const int64_t r = seen ? ranks[i] : l->r;
        double alpha = l->alpha;
        o->unseen += !seen;
        if (seen) {
            o->left_out += r == 0;
            if (r == 0) continue;
            o->layers++;
            o->unsettled += !st->eva->at[i]->rests;
            o->sum += r;
            if (r < o->lowest) o->lowest = r;
            if (r > o->highest) o->highest = r;
        }
        if (r != l->r && cfg->eva_config.adjust_scaling_factors) alpha *= (double)r / (double)l->r;
        names[n_names++] = l->site->name;
        if (r != cfg->r) PF_TRY(add_pair(a, &next->rank_pattern, l->site->name, (double)r, err));
        if (alpha != cfg->alpha)
            PF_TRY(add_pair(a, &next->alpha_pattern, l->site->name, alpha, err));
    }
    if (o->left_out == 0) return PEFT_OK;
    next->target_modules = (pf_cfg_strings){.list = {names, n_names}};
    next->exclude_modules = (pf_cfg_strings){0};
    next->layers_to_transform = (pf_cfg_ints){0};
    next->layers_pattern = (pf_cfg_strings){0};
    return PEFT_OK;
}

static peft_status settle(pf_adapter *ad, pf_arena *a, const void **section, const char **line,
                          peft_error *err) {
    const pf_lora *st = ad->state;
    pf_lora_cfg *next = PF_NEW(a, pf_lora_cfg);
    int64_t *ranks = PF_NEW_ARRAY(a, int64_t, ad->model->n_sites), budget;
    outcome o = {0};
    PF_CHECK_ALLOC(next, err);
    PF_CHECK_ALLOC(ranks, err);
    *next = *(const pf_lora_cfg *)ad->cfg.method_cfg;
    PF_TRY(share_out(ad, ranks, &budget, err));
    PF_TRY(write_section(ad, a, ranks, next, &o, err));
    if (o.layers == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.lora.init_lora_weights eva: what the layers of %s see does not vary "
                       "over the rows that were looked at; begin with true",
                       ad->model->name);
    }
    next->eva = st->eva;
    char less[96] = "", unseen[64] = "", unsettled[96] = "";
    if (o.sum < budget)
        snprintf(less, sizeof less, ", together %lld of %lld, which is all that varies",
                 (long long)o.sum, (long long)budget);
    if (o.unseen > 0) snprintf(unseen, sizeof unseen, ", %d begin as with true", o.unseen);
    if (o.unsettled > 0)
        snprintf(unsettled, sizeof unsettled,
                 "; %d had not settled (eva_config.tau %g, max_rows %lld)", o.unsettled,
                 next->eva_config.tau, (long long)next->eva_config.max_rows);
    *line = pf_arena_printf(
        a, "eva: %d layers begin with ranks from %lld to %lld%s, %d left out%s%s", o.layers,
        (long long)o.lowest, (long long)o.highest, less, o.left_out, unseen, unsettled);
    PF_CHECK_ALLOC(*line, err);
    *section = next;
    return PEFT_OK;
}

const pf_first_look pf_lora_first_look = {
    .wants = wants, .bytes = bytes, .show = show, .turn = turn, .settle = settle};

/* ---- first weights --------------------------------------------------------------------------- */

bool pf_lora_eva_init(const pf_lora_cfg *cfg, const pf_lora_site *l) {
    const spectrum *sp = cfg->eva != NULL ? cfg->eva->at[l->site->index] : NULL;
    if (sp == NULL) return false;
    const pf_pca *p = &sp->pca;
    PF_ASSERT(l->r <= p->k && l->a->cols == p->cols);
    for (int64_t k = 0; k < l->r; k++) {
        const double by = cfg->eva_config.whiten ? 1 / sqrt(p->s[k]) : 1;
        for (int64_t j = 0; j < p->cols; j++)
            l->a->data[k * p->cols + j] = (pf_real)(float)(by * p->v[k * p->cols + j]);
    }
    return true;
}
