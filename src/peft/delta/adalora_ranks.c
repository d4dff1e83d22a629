/* adalora_ranks.c - AdaLoRA's budget (Zhang et al. 2023, arXiv 2303.10512, section 3.2, algorithm
 * 1) and its regularization (equation 4), step by step as peft's RankAllocator.
 *
 * After a step, the sensitivity |w dL/dw| of every number is smoothed (beta1), and so is how far it
 * is from its mean (beta2); their product, averaged over a rank's row of A and column of B and
 * added to that of its E, is the rank's score. The budget falls from all ranks to target_r a module
 * along a cubic, from step tinit to total_step - tfinal, looked at every deltaT steps: as many of
 * the lowest scores as are over it have their E set to zero. In the last tfinal steps who was zero
 * stays zero. State is in frozen parameters (adalora.h), so checkpoints have it. */
#include "peft/delta/adalora.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The set in whose blocks the site's parameters stand. */
static const pf_params *params_of(const pf_adapter *ad) {
    return ad->whole != NULL ? &ad->whole->params : &ad->params;
}

static pf_adalora_site *site_at(const pf_adapter *ad, int i) {
    return pf_delta_at(ad, ad->model->sites[i]);
}

/* NULL without training. */
static pf_real *kept_of(const pf_adapter *ad, const pf_adalora_site *l) {
    const pf_params *ps = params_of(ad);
    return ps->v == NULL || l->r == 0 ? NULL : ps->v + l->score[PF_ADALORA_E]->offset;
}

bool pf_adalora_has_ranks(const pf_adapter *ad) {
    const pf_adalora_cfg *cfg = ad->cfg.method_cfg;
    for (int i = 0; cfg->n_masks == 0 && i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = site_at(ad, i);
        const pf_real *kept = l == NULL ? NULL : kept_of(ad, l);
        if (kept != NULL && kept[0] != 0) return true;
    }
    return cfg->n_masks > 0;
}

bool pf_adalora_keeps(const pf_adapter *ad, const pf_adalora_site *l, int64_t rank) {
    const pf_real *kept = kept_of(ad, l);
    return kept == NULL || kept[rank] != 2;
}

int64_t pf_adalora_n_kept(const pf_adapter *ad, const pf_adalora_site *l) {
    int64_t n = 0;
    for (int64_t i = 0; i < l->r; i++) n += pf_adalora_keeps(ad, l, i);
    return n;
}

/* ---- regularization -------------------------------------------------------------------------- */

/* P with `r` vectors of `n` numbers, number k of vector i at [i * step + k * next]: adds the
 * gradient of f |P Pᵀ - I|. */
static void regularize(const pf_param *p, int64_t r, int64_t n, int64_t step, int64_t next,
                       double f, double *m) {
    double sum = 0;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < r; j++) {
            double dot = i == j ? -1 : 0;
            for (int64_t k = 0; k < n; k++)
                dot += (double)p->data[i * step + k * next] * (double)p->data[j * step + k * next];
            m[i * r + j] = dot;
            sum += dot * dot;
        }
    }
    if (sum == 0) return;
    f = 2 * f / sqrt(sum);
    for (int64_t i = 0; i < r; i++) {
        for (int64_t k = 0; k < n; k++) {
            double g = 0;
            for (int64_t j = 0; j < r; j++)
                g += m[i * r + j] * (double)p->data[j * step + k * next];
            p->grad[i * step + k * next] += (pf_real)(f * g);
        }
    }
}

peft_status pf_adalora_after_backward(pf_adapter *ad, peft_error *err) {
    const pf_adalora_cfg *cfg = ad->cfg.method_cfg;
    int n = 0;
    for (int i = 0; i < ad->model->n_sites; i++) n += site_at(ad, i) != NULL;
    double *m = pf_calloc((size_t)(cfg->init_r * cfg->init_r), sizeof *m);
    PF_CHECK_ALLOC(m, err);
    const double f = cfg->orth_reg_weight / (2.0 * n);
    for (int i = 0; i < ad->model->n_sites && f > 0; i++) {
        const pf_adalora_site *l = site_at(ad, i);
        if (l == NULL || l->r == 0) continue;
        const pf_param *a = l->s.p[PF_ADALORA_A], *b = l->s.p[PF_ADALORA_B];
        regularize(a, l->r, a->cols, a->cols, 1, f, m);
        regularize(b, l->r, b->rows, 1, l->r, f, m);
    }
    pf_free(m);
    return PEFT_OK;
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void update_scores(const pf_adapter *ad, const pf_adalora_site *l, double clip) {
    const pf_adalora_cfg *cfg = ad->cfg.method_cfg;
    const float b1 = (float)cfg->beta1, c1 = (float)(1 - cfg->beta1), b2 = (float)cfg->beta2,
                c2 = (float)(1 - cfg->beta2);
    for (int k = 0; k < 3; k++) {
        const pf_param *p = l->s.p[k];
        pf_real *mean = l->score[k]->data, *unc = params_of(ad)->m + l->score[k]->offset;
        for (int64_t i = 0; i < p->rows * p->cols; i++) {
            const float now = fabsf((float)p->data[i] * ((float)p->grad[i] * (float)clip));
            mean[i] = b1 * (float)mean[i] + c1 * now;
            unc[i] = b2 * (float)unc[i] + c2 * fabsf(now - (float)mean[i]);
        }
    }
}

/* Of rank i. */
static double score(const pf_adapter *ad, const pf_adalora_site *l, int64_t rank) {
    double part[3] = {0};
    const int64_t in = l->s.p[PF_ADALORA_A]->cols, out = l->s.p[PF_ADALORA_B]->rows;
    const int64_t n[3] = {in, out, 1}, first[3] = {rank * in, rank, rank}, step[3] = {1, l->r, 1};
    for (int k = 0; k < 3; k++) {
        const pf_real *mean = l->score[k]->data, *unc = params_of(ad)->m + l->score[k]->offset;
        for (int64_t i = 0; i < n[k]; i++) {
            const int64_t at = first[k] + i * step[k];
            part[k] += (double)mean[at] * (double)unc[at];
        }
        part[k] /= (double)n[k];
    }
    return part[PF_ADALORA_E] + part[PF_ADALORA_A] + part[PF_ADALORA_B];
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ---- the budget ------------------------------------------------------------------------------ */

/* Ranks with the lowest scores lose their E, so that `budget` of `all` stay. */
static peft_status share_out(pf_adapter *ad, int64_t all, int64_t budget, peft_error *err) {
    if (budget >= all) return PEFT_OK;
    double *scores = pf_calloc((size_t)all, sizeof *scores), threshold;
    PF_CHECK_ALLOC(scores, err);
    int64_t n = 0;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = site_at(ad, i);
        for (int64_t k = 0; l != NULL && k < l->r; k++) scores[n++] = score(ad, l, k);
    }
    qsort(scores, (size_t)n, sizeof *scores, ascending);
    threshold = scores[all - budget - 1];
    pf_free(scores);
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_adalora_site *l = site_at(ad, i);
        for (int64_t k = 0; l != NULL && k < l->r; k++) {
            const bool lost = score(ad, l, k) <= threshold;
            kept_of(ad, l)[k] = lost ? 2 : 1;
            if (lost) l->s.p[PF_ADALORA_E]->data[k] = 0;
        }
    }
    return PEFT_OK;
}

static void forget_scores(pf_adapter *ad, const pf_adalora_site *l) {
    for (int k = 0; k < 3; k++) {
        const size_t bytes = (size_t)(l->s.p[k]->rows * l->s.p[k]->cols) * sizeof(pf_real);
        memset(l->score[k]->data, 0, bytes);
        memset(params_of(ad)->m + l->score[k]->offset, 0, bytes);
    }
}

static peft_status total_of(pf_adapter *ad, const pf_step_done *done, int64_t *total,
                            peft_error *err) {
    const pf_adalora_cfg *cfg = ad->cfg.method_cfg;
    *total = cfg->total_step > 0 ? cfg->total_step : done->total_steps;
    if (cfg->tinit < *total - cfg->tfinal) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "peft.adalora: tinit %lld and tfinal %lld leave none of %lld steps to share out "
                   "the budget; make them smaller",
                   (long long)cfg->tinit, (long long)cfg->tfinal, (long long)*total);
}

peft_status pf_adalora_after_step(pf_adapter *ad, const pf_step_done *done, peft_error *err) {
    const pf_adalora_cfg *cfg = ad->cfg.method_cfg;
    int64_t total, all = 0, target = 0;
    PF_TRY(total_of(ad, done, &total, err));
    const int64_t last = total - cfg->tfinal, step = done->step;
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_adalora_site *l = site_at(ad, i);
        if (l == NULL) continue;
        l->total = total;
        target += cfg->target_r;
        all += l->r;
        if (l->r == 0) continue;
        if (step < last) update_scores(ad, l, done->clip);
        for (int64_t k = 0; step > last && k < l->r; k++) {
            if (!pf_adalora_keeps(ad, l, k)) l->s.p[PF_ADALORA_E]->data[k] = 0;
        }
    }
    if (step > last || step <= cfg->tinit || (step < last && step % cfg->deltaT != 0))
        return PEFT_OK;
    const double left = 1 - (double)(step - cfg->tinit) / (double)(last - cfg->tinit);
    const int64_t budget =
        (int64_t)((double)(all - target) * (left * left * left) + (double)target);
    PF_TRY(share_out(ad, all, budget, err));
    for (int i = 0; step == last && i < ad->model->n_sites; i++) {
        if (site_at(ad, i) != NULL && site_at(ad, i)->r > 0) forget_scores(ad, site_at(ad, i));
    }
    return PEFT_OK;
}
