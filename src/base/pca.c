/* pca.c - see pca.h. */
#include "base/pca.h"

#include "base/mem.h"
#include "base/svd.h"

#include <math.h>
#include <string.h>

peft_status pf_pca_init(pf_pca *p, pf_arena *a, int64_t k, int64_t cols, peft_error *err) {
    PF_ASSERT(k >= 1 && k <= cols);
    *p = (pf_pca){.k = k,
                  .cols = cols,
                  .v = PF_NEW_ARRAY(a, double, k *cols),
                  .s = PF_NEW_ARRAY(a, double, k),
                  .mean = PF_NEW_ARRAY(a, double, cols),
                  .turned = PF_NEW_ARRAY(a, double, k)};
    PF_CHECK_ALLOC(p->v, err);
    PF_CHECK_ALLOC(p->s, err);
    PF_CHECK_ALLOC(p->mean, err);
    PF_CHECK_ALLOC(p->turned, err);
    return PEFT_OK;
}

int64_t pf_pca_room(int64_t k, int64_t cols) {
    return (k * cols + 2 * k + cols) * (int64_t)sizeof(double);
}

int64_t pf_pca_work(int64_t k, int64_t cols, int64_t rows) {
    enum { TILE = 32 }; /* of svd.c */
    const int64_t m = rows + k + 1, least = m < cols ? m : cols;
    int64_t steps = 4 * k + 64; /* as many Lanczos vectors as spectra of layers take */
    if (steps > least + 64) steps = least + 64;
    return (m * cols + k * (m + cols) + 2 * cols + steps * (m + cols) + TILE * cols) *
           (int64_t)sizeof(double);
}

/* ---- what is decomposed: k rows of what was, the batch, one row of the mean -------------------
 */

typedef struct stacked {
    const pf_pca *p;
    const float *x;
    int64_t rows, before; /* of the batch; of what was: k, or 0 */
    const double *mean;   /* of the batch */
    double moved;         /* what the difference of the means is multiplied with */
} stacked;

static void read_row(const stacked *c, int64_t i, double *out) {
    const int64_t n = c->p->cols;
    if (i < c->before) {
        for (int64_t j = 0; j < n; j++) out[j] = c->p->s[i] * c->p->v[i * n + j];
    } else if (i < c->before + c->rows) {
        const float *x = c->x + (i - c->before) * n;
        for (int64_t j = 0; j < n; j++) out[j] = (double)x[j] - c->mean[j];
    } else {
        for (int64_t j = 0; j < n; j++) out[j] = c->moved * (c->p->mean[j] - c->mean[j]);
    }
}

/* ---- one batch ------------------------------------------------------------------------------- */

static void mean_of(const float *x, int64_t rows, int64_t cols, double *mean) {
    memset(mean, 0, (size_t)cols * sizeof *mean);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) mean[j] += (double)x[i * cols + j];
    }
    for (int64_t j = 0; j < cols; j++) mean[j] /= (double)rows;
}

/* Of the batch around its mean, and what the distance of the two means adds. */
static double spread_of(const stacked *c, int64_t seen) {
    const int64_t cols = c->p->cols;
    double all = 0, apart = 0;
    for (int64_t i = 0; i < c->rows; i++) {
        double row = 0;
        for (int64_t j = 0; j < cols; j++) {
            const double d = (double)c->x[i * cols + j] - c->mean[j];
            row += d * d;
        }
        all += row;
    }
    for (int64_t j = 0; j < cols && seen > 0; j++) {
        const double d = c->p->mean[j] - c->mean[j];
        apart += d * d;
    }
    const double a = (double)seen, b = (double)c->rows;
    return all + a * b / (a + b) * apart;
}

static void turn_positive(double *v, int64_t n) {
    int64_t at = 0;
    for (int64_t j = 1; j < n; j++) {
        if (fabs(v[j]) > fabs(v[at])) at = j;
    }
    if (v[at] >= 0) return;
    for (int64_t j = 0; j < n; j++) v[j] = -v[j];
}

/* The new directions take the place of the old ones. */
static void take(pf_pca *p, const double *s, double *v) {
    for (int64_t i = 0; i < p->k; i++) {
        double *now = v + i * p->cols, cosine = 0;
        turn_positive(now, p->cols);
        for (int64_t j = 0; j < p->cols; j++) cosine += now[j] * p->v[i * p->cols + j];
        p->turned[i] = p->batches > 0 ? cosine : 0;
    }
    memcpy(p->v, v, (size_t)(p->k * p->cols) * sizeof *v);
    memcpy(p->s, s, (size_t)p->k * sizeof *s);
}

static peft_status decompose(pf_pca *p, const stacked *c, uint64_t seed, peft_error *err) {
    const int64_t m = c->before + c->rows + (c->before > 0);
    double *rows = pf_calloc((size_t)m, (size_t)p->cols * sizeof *rows);
    const pf_svd_matrix a = {.m = m, .n = p->cols, .rows = rows};
    double *u = pf_calloc((size_t)m, (size_t)p->k * sizeof *u);
    double *v = pf_calloc((size_t)p->cols, (size_t)p->k * sizeof *v);
    double *s = pf_calloc((size_t)p->k, sizeof *s);
    peft_status status = PEFT_OK;
    if (rows == NULL || u == NULL || v == NULL || s == NULL)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the directions of %lld rows",
                         (long long)m);
    for (int64_t i = 0; i < m && status == PEFT_OK; i++) read_row(c, i, rows + i * p->cols);
    if (status == PEFT_OK) status = pf_svd_leading(&a, p->k, seed, u, s, v, err);
    if (status == PEFT_OK) take(p, s, v);
    pf_free(rows);
    pf_free(u);
    pf_free(v);
    pf_free(s);
    return status;
}

peft_status pf_pca_add(pf_pca *p, const float *x, int64_t rows, uint64_t seed, peft_error *err) {
    PF_ASSERT(rows >= p->k);
    double *mean = pf_calloc((size_t)p->cols, sizeof *mean);
    PF_CHECK_ALLOC(mean, err);
    const double seen = (double)p->rows, now = (double)rows;
    mean_of(x, rows, p->cols, mean);
    const stacked c = {.p = p,
                       .x = x,
                       .rows = rows,
                       .before = p->rows > 0 ? p->k : 0,
                       .mean = mean,
                       .moved = sqrt(seen / (seen + now) * now)};
    p->spread += spread_of(&c, p->rows);
    peft_status status = PEFT_OK;
    if (p->spread > 0) status = decompose(p, &c, seed, err);
    for (int64_t j = 0; j < p->cols; j++)
        p->mean[j] = (seen * p->mean[j] + now * mean[j]) / (seen + now);
    p->rows += rows;
    p->batches++;
    pf_free(mean);
    return status;
}
