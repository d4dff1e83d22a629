/* to_factors.c - see to_factors.h. */
#include "factors/to_factors.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

typedef struct change {
    const pf_adapter *ad;
    const pf_site *site;
    float *with; /* a row with the adapter */
    peft_error *err;
    peft_status *status;
} change;

static void read_change(const void *ctx, int64_t row0, int64_t n, double *out) {
    const change *c = ctx;
    const pf_weight *w = c->site->weight;
    enum { CHUNK = 512 };
    pf_real base[CHUNK];
    for (int64_t i = 0; i < n; i++) {
        peft_status status =
            pf_adapter_merged_rows(c->ad, c->site, false, row0 + i, 1, c->with, c->err);
        if (status != PEFT_OK) {
            *c->status = status;
            memset(c->with, 0, (size_t)w->cols * sizeof *c->with);
        }
        for (int64_t j = 0; j < w->cols; j += CHUNK) {
            const int64_t some = w->cols - j < CHUNK ? w->cols - j : CHUNK;
            pf_weight_read_tile(w, row0 + i, 1, j, some, base, some);
            for (int64_t k = 0; k < some; k++)
                out[i * w->cols + j + k] = (double)c->with[j + k] - (double)base[k];
        }
    }
}

static double norm_of(const pf_factor *x) {
    double sum = 0; /* A has orthonormal rows */
    for (int64_t i = 0; i < x->out * x->r; i++) sum += (double)x->b[i] * (double)x->b[i];
    return sum;
}

/* An embedding's factors are those of the transpose: A takes what is B here, and B what is A. */
static peft_status turn(pf_factors *out, const pf_factor *x, const char *module, peft_error *err) {
    pf_factor *y;
    PF_TRY(pf_factors_add(out, module, true, x->r, x->out, x->in, 1, &y, err));
    for (int64_t k = 0; k < x->r; k++) {
        for (int64_t i = 0; i < x->out; i++) y->a[k * x->out + i] = x->b[i * x->r + k];
        for (int64_t j = 0; j < x->in; j++) y->b[j * x->r + k] = x->a[k * x->in + j];
    }
    return PEFT_OK;
}

/* The factors of what happens to a matrix (out, in), in a set of their own. */
static peft_status cut(pf_factors *set, const pf_adapter *ad, const pf_site *site, int64_t rank,
                       double *left, peft_error *err) {
    const int64_t rows = site->weight->rows, cols = site->weight->cols;
    const int64_t most = rows < cols ? rows : cols;
    pf_factor *x;
    PF_TRY(
        pf_factors_add(set, site->name, false, rank < most ? rank : most, cols, rows, 1, &x, err));
    peft_status read = PEFT_OK;
    change c = {.ad = ad, .site = site, .err = err, .status = &read};
    c.with = pf_calloc((size_t)cols, sizeof *c.with);
    PF_CHECK_ALLOC(c.with, err);
    peft_status status = pf_factor_cut(x, &c, read_change, left, err);
    pf_free(c.with);
    return read != PEFT_OK ? read : status;
}

static peft_status add_site(pf_factors *out, const pf_adapter *ad, const pf_site *site,
                            int64_t rank, pf_to_factors_report *report, double *kept, double *lost,
                            peft_error *err) {
    const bool embedding = site->kind == PF_SITE_EMBEDDING;
    double left = 0;
    pf_factors own;
    pf_factors_init(&own, site->name);
    peft_status status = cut(embedding ? &own : out, ad, site, rank, &left, err);
    if (status == PEFT_OK && embedding) status = turn(out, &own.items[0], site->name, err);
    const double norm =
        status == PEFT_OK ? norm_of(embedding ? &own.items[0] : &out->items[out->n - 1]) : 0;
    pf_factors_release(&own);
    PF_TRY(status);
    *kept += norm;
    if (left < 1) *lost += norm * left * left / (1 - left * left);
    if (left > report->worst || report->where == NULL) {
        report->worst = left;
        report->where = site->name;
    }
    return PEFT_OK;
}

peft_status pf_to_factors(pf_factors *out, const pf_adapter *ad, int64_t rank,
                          pf_to_factors_report *report, peft_error *err) {
    const char *method, *why = pf_adapter_no_merge(ad, &method);
    double kept = 0, lost = 0;
    *report = (pf_to_factors_report){0};
    if (why != NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "an adapter of method %s is no change of weights: "
                       "%s",
                       method, why);
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_site *site = ad->model->sites[i];
        const bool bias = pf_adapter_touches(ad, site, true);
        if (!bias && !pf_adapter_touches(ad, site, false)) continue;
        const bool matrix = site->kind == PF_SITE_LINEAR || site->kind == PF_SITE_EMBEDDING ||
                            site->kind == PF_SITE_HEAD;
        if (bias || !matrix)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: its %s changes, and a LoRA changes matrices alone; merge the "
                           "adapter instead",
                           site->name, bias ? "bias" : "weight");
        PF_TRY(add_site(out, ad, site, rank, report, &kept, &lost, err));
    }
    if (out->n == 0)
        return PF_FAIL(err, PEFT_E_FAILED, "%s: the adapter changes no weight",
                       ad->path != NULL ? ad->path : ad->model->name);
    report->all = kept + lost > 0 ? sqrt(lost / (kept + lost)) : 0;
    out->base_name = ad->base_name;
    pf_factors_sort(out);
    return PEFT_OK;
}
