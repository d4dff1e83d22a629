/* unmerge.c - the base's weight from the merged one.
 *
 * Folding an adapter in is, for most methods, an affine map of a weight's rows: W' = M(W) = A W + D
 * with A near the identity. Its inverse is found by W <- W + (W' - M(W)), which is exact in one
 * step where A = I (LoRA and whatever else adds an update that does not look at W) and converges
 * where an input is turned or scaled a little. Where the map is not affine (DoRA divides by a norm
 * of W), different bases give the same merged weight, and there is no way back. */
#include "base/mem.h"
#include "peft/method.h"

#include <math.h>
#include <string.h>

enum { MOST_STEPS = 200 };

typedef struct job {
    const pf_adapter *ad;
    const pf_site *site;
    bool bias;
    int64_t row0, n, len; /* numbers of n rows */
    float *moved;         /* M of something */
} job;

static peft_status apply(const job *j, const float *rows, peft_error *err) {
    memcpy(j->moved, rows, (size_t)j->len * sizeof *rows);
    return pf_adapter_fold(j->ad, j->site, j->bias, j->row0, j->n, j->moved, err);
}

static double largest(const float *x, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

/* M(2W) - M(W) = M(W) - M(0), as far as f32 says. */
static peft_status check_affine(const job *j, const float *merged, float *room, peft_error *err) {
    float *at_zero = room, *at_one = room + j->len, *at_two = room + 2 * j->len;
    memset(at_two, 0, (size_t)j->len * sizeof *at_two);
    PF_TRY(apply(j, at_two, err));
    memcpy(at_zero, j->moved, (size_t)j->len * sizeof *at_zero);
    PF_TRY(apply(j, merged, err));
    memcpy(at_one, j->moved, (size_t)j->len * sizeof *at_one);
    for (int64_t i = 0; i < j->len; i++) at_two[i] = 2 * merged[i];
    PF_TRY(apply(j, at_two, err));
    const double size = largest(j->moved, j->len) + largest(at_zero, j->len);
    for (int64_t i = 0; i < j->len; i++) {
        const double bent = fabs((double)j->moved[i] - 2 * (double)at_one[i] + (double)at_zero[i]);
        if (!(bent <= 1e-4 * size))
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: what the adapter does to this weight cannot be undone from the "
                           "merged weight alone (a DoRA forgets the norms that it replaces); keep "
                           "the base",
                           j->site->name);
    }
    return PEFT_OK;
}

static peft_status solve(const job *j, const float *merged, float *rows, peft_error *err) {
    const double enough = 1e-7 * (largest(merged, j->len) + 1e-30);
    double before = INFINITY;
    memcpy(rows, merged, (size_t)j->len * sizeof *rows);
    for (int k = 0; k < MOST_STEPS; k++) {
        PF_TRY(apply(j, rows, err));
        double most = 0;
        for (int64_t i = 0; i < j->len; i++) {
            const double d = (double)merged[i] - (double)j->moved[i];
            most = fmax(most, fabs(d));
            rows[i] = (float)((double)rows[i] + d);
        }
        if (most <= enough) return PEFT_OK;
        if (k > 8 && most >= before) { /* as close as f32 gets, or no convergence */
            if (most <= 100 * enough) return PEFT_OK;
            break;
        }
        before = most;
    }
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: the adapter moves this weight too far to find the way back; keep the base",
                   j->site->name);
}

static const char *no_unmerge(const pf_adapter *ad) {
    const char *why = ad->method->no_unmerge;
    for (int i = 0; i < ad->n_parts && why == NULL; i++) why = no_unmerge(ad->parts[i]);
    for (const pf_adapter *b = ad->below; b != NULL && why == NULL; b = b->next)
        why = no_unmerge(b);
    return why;
}

peft_status pf_adapter_unmerged_rows(const pf_adapter *ad, const pf_site *site, bool bias,
                                     int64_t row0, int64_t n, float *rows, peft_error *err) {
    const pf_weight *w = bias ? site->bias : site->weight;
    const pf_param *trained = bias ? site->trained_bias : site->trained_weight;
    if (trained != NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: the adapter holds a whole %s in place of the base's, whose numbers the "
                       "merged model does not have any more; keep the base",
                       site->name, bias ? "bias" : "weight");
    const char *why = no_unmerge(ad);
    if (why != NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: what the adapter does to this weight cannot be undone from the merged "
                       "weight alone: %s; keep the base",
                       site->name, why);
    const int64_t len = n * w->cols;
    float *room = pf_calloc((size_t)(5 * len), sizeof *room);
    PF_CHECK_ALLOC(room, err);
    job j = {.ad = ad, .site = site, .bias = bias, .row0 = row0, .n = n, .len = len};
    j.moved = room;
    float *merged = room + len;
    pf_real *real = pf_calloc((size_t)w->cols, sizeof *real);
    for (int64_t i = 0; i < n && real != NULL; i++) {
        pf_weight_read_tile(w, row0 + i, 1, 0, w->cols, real, w->cols);
        for (int64_t c = 0; c < w->cols; c++) merged[i * w->cols + c] = (float)real[c];
    }
    if (real == NULL) {
        pf_free(room);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_free(real);
    peft_status status = check_affine(&j, merged, room + 2 * len, err);
    if (status == PEFT_OK) status = solve(&j, merged, rows, err);
    pf_free(room);
    return status;
}
