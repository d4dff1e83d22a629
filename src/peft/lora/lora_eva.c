/* lora_eva.c - EVA, LoRA that begins with what its layers see (Paischer et al. 2024,
 * arXiv 2410.07170, algorithm 1; peft's init_lora_weights eva).
 *
 * X are the rows that come in at a layer on some of the training data, less their mean, X = U S Vᵀ:
 * the rows of A are the first columns of V, B is zero. Each layer may have rho r of them; of all
 * layers' candidates those with the largest share of the variance s² / |X|² are taken, as many as
 * the ranks sum up to, so that rank goes where it explains most. A layer that gets none is left
 * out. Where a layer's rank changes, alpha does by the same factor (adjust_scaling_factors), and
 * the file is plain LoRA with a rank_pattern and an alpha_pattern.
 *
 * peft updates an approximate decomposition batch by batch until it settles (tau); here the rows
 * are kept and decomposed exactly, which is what that comes near to. Sites of one input share its
 * vectors. Who shows the rows: peft/first_look.h. */
#include "peft/lora/lora.h"

#include "base/mem.h"
#include "base/svd.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double NOTHING = 1e-6; /* by the largest singular value: what f32 leaves of a zero */

typedef struct spectrum { /* of one input */
    int64_t k, cols;      /* candidates */
    double *v, *s;        /* (k,cols), (k) */
    double all;           /* |X|² */
    double *share;        /* (k) of it, descending */
} spectrum;

struct pf_lora_eva {
    spectrum **at; /* by site->index; NULL where nothing was seen */
};

/* ---- what is wanted -------------------------------------------------------------------------- */

static bool wants(const pf_adapter *ad, pf_look_wish *out) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    bool any = false;
    if (!ad->strict || cfg->eva != NULL ||
        pf_lora_init_of(cfg->init_lora_weights) != PF_LORA_INIT_EVA)
        return false;
    out->rows = cfg->eva_rows;
    out->learned_only = cfg->eva_use_label_mask;
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (st->at[i] == NULL || st->at[i]->site->kind != PF_SITE_LINEAR) continue;
        if (out->sites != NULL) out->sites[i] = true;
        any = true;
    }
    return any;
}

/* ---- the decomposition of one input ---------------------------------------------------------- */

typedef struct centered {
    const pf_look_input *in;
    const double *mean;
} centered;

static void read_centered(const void *ctx, int64_t row0, int64_t count, double *out) {
    const centered *c = ctx;
    const int64_t cols = c->in->cols;
    for (int64_t i = 0; i < count; i++) {
        const float *x = c->in->x + (row0 + i) * cols;
        for (int64_t j = 0; j < cols; j++) out[i * cols + j] = (double)x[j] - c->mean[j];
    }
}

/* Sets the mean, and gives |X|² around it. */
static double center(const pf_look_input *in, double *mean) {
    double all = 0;
    for (int64_t i = 0; i < in->rows; i++) {
        for (int64_t j = 0; j < in->cols; j++) mean[j] += (double)in->x[i * in->cols + j];
    }
    for (int64_t j = 0; j < in->cols; j++) mean[j] /= (double)in->rows;
    for (int64_t i = 0; i < in->rows; i++) {
        double row = 0;
        for (int64_t j = 0; j < in->cols; j++) {
            const double d = (double)in->x[i * in->cols + j] - mean[j];
            row += d * d;
        }
        all += row;
    }
    return all;
}

static peft_status decompose(const pf_look_input *in, spectrum *sp, uint64_t seed,
                             peft_error *err) {
    double *mean = pf_calloc((size_t)in->cols, sizeof *mean);
    double *u = pf_calloc((size_t)in->rows, (size_t)sp->k * sizeof *u);
    peft_status status = PEFT_OK;
    if (mean == NULL || u == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for what %s sees", in->sites[0]->name);
    } else {
        sp->all = center(in, mean);
        const centered c = {in, mean};
        const pf_svd_matrix m = {.m = in->rows, .n = in->cols, .ctx = &c, .read = read_centered};
        if (sp->all > 0) status = pf_svd_leading(&m, sp->k, seed, u, sp->s, sp->v, err);
    }
    pf_free(mean);
    pf_free(u);
    if (status != PEFT_OK) return status;
    int64_t k = 0;
    for (; k < sp->k && sp->s[k] > NOTHING * sp->s[0]; k++)
        sp->share[k] = sp->s[k] * sp->s[k] / sp->all;
    sp->k = k;
    return PEFT_OK;
}

/* ---- all that are shown at once -------------------------------------------------------------- */

typedef struct shown {
    const pf_look_input *in;
    spectrum **of;
    peft_status *status;
    peft_error *err;
    uint64_t seed;
} shown;

static void decompose_task(void *ctx, int task, int worker) {
    (void)worker;
    const shown *s = ctx;
    s->status[task] = decompose(&s->in[task], s->of[task], s->seed, &s->err[task]);
}

/* peft's rounding: halves to the even number. */
static int64_t most_of(const pf_lora_cfg *cfg, const pf_lora_site *l) {
    return (int64_t)rint((double)l->r * cfg->eva_rho);
}

/* The candidates of one input: as many as the site that may have most of those that share it. */
static peft_status room_for(pf_adapter *ad, pf_arena *a, const pf_look_input *in, spectrum **out,
                            peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    int64_t k = 1;
    for (int i = 0; i < in->n_sites; i++) {
        const int64_t most = most_of(cfg, st->at[in->sites[i]->index]);
        if (most > k) k = most;
    }
    if (k > in->cols) k = in->cols;
    if (in->rows <= k) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.lora.init_lora_weights eva: the training data give %lld rows to look "
                       "at, and up to rank %lld at %s takes more than %lld. Lower r or eva_rho, "
                       "raise eva_rows, or set eva_use_label_mask to false",
                       (long long)in->rows, (long long)k, in->sites[0]->name, (long long)k);
    }
    spectrum *sp = PF_NEW(a, spectrum);
    PF_CHECK_ALLOC(sp, err);
    *sp = (spectrum){.k = k,
                     .cols = in->cols,
                     .v = PF_NEW_ARRAY(a, double, k * in->cols),
                     .s = PF_NEW_ARRAY(a, double, k),
                     .share = PF_NEW_ARRAY(a, double, k)};
    PF_CHECK_ALLOC(sp->v, err);
    PF_CHECK_ALLOC(sp->s, err);
    PF_CHECK_ALLOC(sp->share, err);
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
    if (status == PEFT_OK) pf_pool_run(pool, n, decompose_task, &s);
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
        most += st->eva->at[i]->k;
        *budget += st->at[i]->r;
    }
    candidate *all = pf_calloc((size_t)most + 1, sizeof *all);
    PF_CHECK_ALLOC(all, err);
    for (int i = 0; i < ad->model->n_sites; i++) {
        const spectrum *sp = st->eva->at[i];
        for (int64_t k = 0; sp != NULL && k < sp->k; k++)
            all[n++] = (candidate){sp->share[k], i, k};
    }
    qsort(all, (size_t)n, sizeof *all, by_share);
    for (int64_t i = 0; i < n && i < *budget; i++) ranks[all[i].site]++;
    pf_free(all);
    return PEFT_OK;
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
    int layers, left_out;
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
        if (seen) {
            o->left_out += r == 0;
            if (r == 0) continue;
            o->layers++;
            o->sum += r;
            if (r < o->lowest) o->lowest = r;
            if (r > o->highest) o->highest = r;
        }
        if (r != l->r && cfg->eva_adjust_scaling_factors) alpha *= (double)r / (double)l->r;
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
    char less[96] = "";
    if (o.sum < budget)
        snprintf(less, sizeof less, ", together %lld of %lld, which is all that varies",
                 (long long)o.sum, (long long)budget);
    *line = pf_arena_printf(a, "eva: %d layers begin with ranks from %lld to %lld%s, %d left out",
                            o.layers, (long long)o.lowest, (long long)o.highest, less, o.left_out);
    PF_CHECK_ALLOC(*line, err);
    *section = next;
    return PEFT_OK;
}

const pf_first_look pf_lora_first_look = {.wants = wants, .show = show, .settle = settle};

/* ---- first weights --------------------------------------------------------------------------- */

bool pf_lora_eva_init(const pf_lora_cfg *cfg, const pf_lora_site *l) {
    const spectrum *sp = cfg->eva != NULL ? cfg->eva->at[l->site->index] : NULL;
    if (sp == NULL) return false;
    PF_ASSERT(l->r <= sp->k && l->a->cols == sp->cols);
    for (int64_t k = 0; k < l->r; k++) {
        const double by = cfg->eva_whiten ? 1 / sqrt(sp->s[k]) : 1;
        for (int64_t j = 0; j < sp->cols; j++)
            l->a->data[k * sp->cols + j] = (pf_real)(float)(by * sp->v[k * sp->cols + j]);
    }
    return true;
}
