/* value_metrics.c - see value_metrics.h. */
#include "train/value_metrics.h"

#include <math.h>
#include <stdlib.h>

peft_status pf_value_metrics_init(pf_value_metrics *m, pf_arena *a, pf_problem problem,
                                  double threshold, int64_t n, int64_t K, peft_error *err) {
    *m = (pf_value_metrics){.problem = problem, .threshold = threshold, .n = n, .K = K};
    m->z = PF_NEW_ARRAY(a, double, n *K);
    m->y = PF_NEW_ARRAY(a, float, n *K);
    m->sorted = PF_NEW_ARRAY(a, pf_ranked, n);
    m->a = PF_NEW_ARRAY(a, double, n);
    m->b = PF_NEW_ARRAY(a, double, n);
    if (m->z == NULL || m->y == NULL || m->sorted == NULL || m->a == NULL || m->b == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for %lld rows of %lld outputs",
                       (long long)n, (long long)K);
    return PEFT_OK;
}

double pf_sigmoid(double z) {
    const double e = exp(-fabs(z));
    return (z < 0 ? e : 1) / (1 + e);
}

static double share(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    const pf_ranked *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Ranks from 1, those of equal values their mean, in place. */
static void rank(const pf_value_metrics *m, double *v) {
    const int64_t n = m->n;
    for (int64_t i = 0; i < n; i++) m->sorted[i] = (pf_ranked){v[i], i};
    qsort(m->sorted, (size_t)n, sizeof *m->sorted, by_value);
    for (int64_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && m->sorted[to].value == m->sorted[from].value; to++) {
        }
        for (int64_t i = from; i < to; i++) v[m->sorted[i].at] = 0.5 * (double)(from + 1 + to);
    }
}

/* ---- numbers --------------------------------------------------------------------------------- */

static void take(const pf_value_metrics *m, int64_t k) {
    for (int64_t i = 0; i < m->n; i++) {
        m->a[i] = m->z[i * m->K + k];
        m->b[i] = (double)m->y[i * m->K + k];
    }
}

static double correlation(const double *a, const double *b, int64_t n) {
    double ma = 0, mb = 0, aa = 0, bb = 0, ab = 0;
    for (int64_t i = 0; i < n; i++) {
        ma += a[i] / (double)n;
        mb += b[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
        ab += (a[i] - ma) * (b[i] - mb);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa) / sqrt(bb) : 0;
}

static pf_value_scores regression(const pf_value_metrics *m) {
    pf_value_scores s = {0};
    const double n = (double)m->n, K = (double)m->K;
    for (int64_t k = 0; k < m->K; k++) {
        double squares = 0, sizes = 0;
        take(m, k);
        for (int64_t i = 0; i < m->n; i++) {
            const double d = m->a[i] - m->b[i];
            squares += d * d;
            sizes += fabs(d);
        }
        s.mse += squares / n / K;
        s.rmse += sqrt(squares / n) / K;
        s.mae += sizes / n / K;
        s.pearson += correlation(m->a, m->b, m->n) / K;
        rank(m, m->a);
        rank(m, m->b);
        s.spearmanr += correlation(m->a, m->b, m->n) / K;
    }
    s.combined_score = (s.pearson + s.spearmanr) / 2;
    return s;
}

/* ---- several classes ------------------------------------------------------------------------- */

/* How often a row with the class stands above one without: from the ranks of those with it (Mann &
 * Whitney). -1: all rows are of one kind. */
static double roc_auc(const pf_value_metrics *m, int64_t k) {
    double with = 0, ranks = 0;
    take(m, k);
    rank(m, m->a);
    for (int64_t i = 0; i < m->n; i++) {
        if (m->b[i] <= 0.5) continue;
        with++;
        ranks += m->a[i];
    }
    const double without = (double)m->n - with;
    return with > 0 && without > 0 ? (ranks - with * (with + 1) / 2) / (with * without) : -1;
}

static bool told(const pf_value_metrics *m, int64_t i) {
    return pf_sigmoid(m->z[i]) > m->threshold;
}

static pf_value_scores multi(const pf_value_metrics *m) {
    pf_value_scores s = {0};
    const double cells = (double)(m->n * m->K);
    double hits = 0, truths = 0, tolds = 0, areas = 0, wrong = 0;
    for (int64_t k = 0; k < m->K; k++) {
        double hit = 0, truth = 0, predicted = 0;
        for (int64_t i = k; i < m->n * m->K; i += m->K) {
            const bool is = (double)m->y[i] > 0.5, said = told(m, i);
            hit += is && said;
            truth += is;
            predicted += said;
            wrong += is != said;
        }
        const double f1 = share(2 * hit, truth + predicted), area = roc_auc(m, k);
        s.f1_macro += f1 / (double)m->K;
        s.f1_weighted += f1 * truth;
        hits += hit;
        truths += truth;
        tolds += predicted;
        s.roc_auc += area >= 0 ? area : 0;
        areas += area >= 0;
    }
    for (int64_t i = 0; i < m->n; i++) {
        bool same = true;
        for (int64_t c = i * m->K; c < (i + 1) * m->K; c++)
            same &= ((double)m->y[c] > 0.5) == told(m, c);
        s.accuracy += same;
    }
    s.accuracy = share(s.accuracy, (double)m->n);
    s.hamming_loss = share(wrong, cells);
    s.f1 = s.f1_micro = share(2 * hits, truths + tolds);
    s.f1_weighted = share(s.f1_weighted, truths);
    s.precision = share(hits, tolds);
    s.recall = share(hits, truths);
    s.roc_auc = share(s.roc_auc, areas);
    return s;
}

pf_value_scores pf_value_metrics_result(const pf_value_metrics *m) {
    return m->problem == PF_PROBLEM_MULTI ? multi(m) : regression(m);
}
