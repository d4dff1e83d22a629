/* combine.c - see combine.h. */
#include "factors/combine.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char pf_combine_kinds[] = "linear, svd, cat, ties, ties_svd, dare_linear, dare_ties, "
                                "dare_linear_svd, dare_ties_svd, magnitude_prune, "
                                "magnitude_prune_svd";

enum { MOST = 32 };

typedef enum prune { PRUNE_NONE, PRUNE_MAGNITUDE, PRUNE_RANDOM } prune;

typedef struct job {
    const pf_combine_options *opt;
    prune prune;
    bool ties, svd, cat;
    const pf_factor *at[MOST]; /* those sets that have the module */
    double weight[MOST];
    int n;
    const char *module;
} job;

static bool read_kind(job *j, const char *kind) {
    static const struct {
        const char *name;
        prune prune;
        bool ties, svd, cat;
    } kinds[] = {
        {"linear", PRUNE_NONE, false, false, false},
        {"svd", PRUNE_NONE, false, true, false},
        {"cat", PRUNE_NONE, false, false, true},
        {"ties", PRUNE_MAGNITUDE, true, false, false},
        {"ties_svd", PRUNE_MAGNITUDE, true, true, false},
        {"dare_linear", PRUNE_RANDOM, false, false, false},
        {"dare_ties", PRUNE_RANDOM, true, false, false},
        {"dare_linear_svd", PRUNE_RANDOM, false, true, false},
        {"dare_ties_svd", PRUNE_RANDOM, true, true, false},
        {"magnitude_prune", PRUNE_MAGNITUDE, false, false, false},
        {"magnitude_prune_svd", PRUNE_MAGNITUDE, false, true, false},
    };
    for (size_t i = 0; i < PF_COUNT(kinds); i++) {
        if (!pf_streq(kinds[i].name, kind)) continue;
        j->prune = kinds[i].prune;
        j->ties = kinds[i].ties;
        j->svd = kinds[i].svd;
        j->cat = kinds[i].cat;
        return true;
    }
    return false;
}

/* ---- on arrays of equal length ----------------------------------------------------------------
 */

static int by_size(const void *a, const void *b) { /* falling */
    const double x = *(const double *)a, y = *(const double *)b;
    return x > y ? -1 : x < y;
}

/* Keeps the int(density n) numbers of the largest magnitude, the earlier ones among equals. */
static peft_status keep_largest(double *x, int64_t n, double density, peft_error *err) {
    const int64_t k = (int64_t)(density * (double)n);
    double *sorted = pf_calloc((size_t)n, sizeof *sorted);
    PF_CHECK_ALLOC(sorted, err);
    for (int64_t i = 0; i < n; i++) sorted[i] = fabs(x[i]);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    const double least = k > 0 ? sorted[k - 1] : INFINITY;
    int64_t equal = k; /* how many of the least ones fit */
    for (int64_t i = 0; i < k; i++) equal -= sorted[i] > least;
    for (int64_t i = 0; i < n; i++) {
        const double m = fabs(x[i]);
        if (m > least || (m == least && equal-- > 0)) continue;
        x[i] = 0;
    }
    pf_free(sorted);
    return PEFT_OK;
}

static void keep_random(double *x, int64_t n, double density, pf_rng_key key) {
    for (int64_t i = 0; i < n; i++)
        x[i] = pf_rng_uniform_at(key, (uint64_t)i) < density ? x[i] / density : 0;
}

static double sign_of(double x) {
    return x > 0 ? 1 : x < 0 ? -1 : 0;
}

/* Numbers [i] of all sets into one, weights applied. `x` is (n sets, len). */
static double mix(const job *j, const double *x, int64_t len, int64_t i, const double *weight) {
    double total = 0, sum = 0, agree = 0;
    if (!j->ties) {
        for (int k = 0; k < j->n; k++) sum += weight[k] * x[k * len + i];
        return sum;
    }
    for (int k = 0; k < j->n; k++)
        total += j->opt->frequency ? sign_of(x[k * len + i]) : x[k * len + i];
    const double majority = total >= 0 ? 1 : -1;
    for (int k = 0; k < j->n; k++) {
        if (sign_of(x[k * len + i]) != majority) continue;
        sum += weight[k] * x[k * len + i];
        agree++;
    }
    return sum / (agree > 1 ? agree : 1);
}

/* Prunes each of the sets' arrays, then mixes them into the first. `what` tells A from B and from
 * the whole update. */
static peft_status prune_and_mix(const job *j, double *x, int64_t len, const double *weight,
                                 uint64_t what, peft_error *err) {
    for (int k = 0; k < j->n && j->opt->density < 1; k++) {
        if (j->prune == PRUNE_MAGNITUDE)
            PF_TRY(keep_largest(x + k * len, len, j->opt->density, err));
        if (j->prune == PRUNE_RANDOM) {
            const uint64_t name = pf_hash64(j->module, strlen(j->module), what);
            keep_random(x + k * len, len, j->opt->density,
                        pf_rng_make_key(j->opt->seed + (uint64_t)k, PF_RNG_INIT, name));
        }
    }
    for (int64_t i = 0; i < len; i++) x[i] = mix(j, x, len, i, weight);
    return PEFT_OK;
}

/* ---- a module -------------------------------------------------------------------------------- */

static peft_status concatenate(const job *j, pf_factors *out, peft_error *err) {
    int64_t r = 0, at = 0;
    for (int k = 0; k < j->n; k++) r += j->at[k]->r;
    pf_factor *y;
    const pf_factor *first = j->at[0];
    PF_TRY(pf_factors_add(out, j->module, first->embedding, r, first->in, first->out, 1, &y, err));
    for (int k = 0; k < j->n; at += j->at[k++]->r) {
        const pf_factor *x = j->at[k];
        const float w = (float)(j->weight[k] * x->scale);
        for (int64_t i = 0; i < x->r * x->in; i++) y->a[at * x->in + i] = x->a[i] * w;
        for (int64_t o = 0; o < x->out; o++)
            memcpy(y->b + o * r + at, x->b + o * x->r, (size_t)x->r * sizeof *x->b);
    }
    return PEFT_OK;
}

static peft_status by_factor(const job *j, pf_factors *out, peft_error *err) {
    const pf_factor *first = j->at[0];
    for (int k = 1; k < j->n; k++) {
        if (j->at[k]->r != first->r)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "%s has rank %lld in one adapter and %lld in another; %s needs equal "
                           "ranks. cat and svd do not",
                           j->module, (long long)first->r, (long long)j->at[k]->r, j->opt->kind);
    }
    pf_factor *y;
    PF_TRY(pf_factors_add(out, j->module, first->embedding, first->r, first->in, first->out, 1, &y,
                          err));
    for (int second = 0; second < 2; second++) {
        const int64_t len = second ? first->out * first->r : first->r * first->in;
        double *x = pf_calloc((size_t)(len * j->n), sizeof *x), weight[MOST];
        PF_CHECK_ALLOC(x, err);
        for (int k = 0; k < j->n; k++) {
            const double w = j->weight[k] * j->at[k]->scale;
            /* the sign goes to one side only */
            weight[k] = sqrt(fabs(w)) * (second == 0 && w < 0 ? -1 : 1);
            const float *from = second ? j->at[k]->b : j->at[k]->a;
            for (int64_t i = 0; i < len; i++) x[k * len + i] = (double)from[i];
        }
        peft_status status = prune_and_mix(j, x, len, weight, (uint64_t)second, err);
        float *to = second ? y->b : y->a;
        for (int64_t i = 0; i < len; i++) to[i] = (float)x[i];
        pf_free(x);
        PF_TRY(status);
    }
    return PEFT_OK;
}

typedef struct dense {
    const double *x;
    int64_t cols;
} dense;

static void read_dense(const void *ctx, int64_t row0, int64_t n, double *out) {
    const dense *d = ctx;
    memcpy(out, d->x + row0 * d->cols, (size_t)(n * d->cols) * sizeof *out);
}

static peft_status by_update(const job *j, pf_factors *out, int64_t rank, double *left,
                             peft_error *err) {
    const pf_factor *first = j->at[0];
    const int64_t len = first->out * first->in;
    const int64_t most = first->out < first->in ? first->out : first->in;
    double *x = pf_calloc((size_t)(len * j->n), sizeof *x), missed = 0;
    PF_CHECK_ALLOC(x, err);
    for (int k = 0; k < j->n; k++) pf_factor_rows(j->at[k], 0, first->out, x + k * len);
    pf_factor *y;
    peft_status status = prune_and_mix(j, x, len, j->weight, 2, err);
    if (status == PEFT_OK)
        status = pf_factors_add(out, j->module, first->embedding, rank < most ? rank : most,
                                first->in, first->out, 1, &y, err);
    const dense d = {x, first->in};
    if (status == PEFT_OK) status = pf_factor_cut(y, &d, read_dense, &missed, err);
    if (missed > *left) *left = missed;
    pf_free(x);
    return status;
}

/* ---- all ------------------------------------------------------------------------------------- */

static peft_status gather(job *j, pf_factors *const *sets, const double *weights, int n,
                          const char *module, peft_error *err) {
    j->n = 0;
    j->module = module;
    for (int k = 0; k < n; k++) {
        const pf_factor *x = pf_factors_find(sets[k], module);
        if (x == NULL) continue;
        const pf_factor *first = j->n > 0 ? j->at[0] : x;
        if (x->in != first->in || x->out != first->out || x->embedding != first->embedding)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "%s is %lld x %lld in %s and %lld x %lld in %s: adapters of different "
                           "models cannot be combined",
                           module, (long long)x->out, (long long)x->in, sets[k]->path,
                           (long long)first->out, (long long)first->in, sets[0]->path);
        j->at[j->n] = x;
        j->weight[j->n++] = weights[k];
    }
    return PEFT_OK;
}

static peft_status add_module(job *j, pf_factors *out, int64_t rank, double *left,
                              peft_error *err) {
    if (j->cat) return concatenate(j, out, err);
    return j->svd ? by_update(j, out, rank, left, err) : by_factor(j, out, err);
}

peft_status pf_factors_combine(pf_factors *out, pf_factors *const *sets, const double *weights,
                               int n, const pf_combine_options *opt, double *left,
                               peft_error *err) {
    job j = {.opt = opt};
    *left = 0;
    if (n < 1 || n > MOST)
        return PF_FAIL(err, PEFT_E_USAGE, "combine: 1 to %d adapters, not %d", MOST, n);
    if (!read_kind(&j, opt->kind))
        return PF_FAIL(err, PEFT_E_USAGE, "combine: '%s' is no way to combine; there are %s",
                       opt->kind, pf_combine_kinds);
    if (!(opt->density > 0 && opt->density <= 1))
        return PF_FAIL(err, PEFT_E_USAGE,
                       "combine: the density is %g; it should be above 0 and at "
                       "most 1",
                       opt->density);
    int64_t rank = opt->svd_rank;
    for (int k = 0; k < n && opt->svd_rank == 0; k++) {
        for (int i = 0; i < sets[k]->n; i++)
            rank = sets[k]->items[i].r > rank ? sets[k]->items[i].r : rank;
    }
    for (int k = 0; k < n; k++) {
        for (int i = 0; i < sets[k]->n; i++) {
            const char *module = sets[k]->items[i].module;
            if (pf_factors_find(out, module) != NULL) continue;
            PF_TRY(gather(&j, sets, weights, n, module, err));
            PF_TRY(add_module(&j, out, rank, left, err));
        }
    }
    pf_factors_sort(out);
    return PEFT_OK;
}
