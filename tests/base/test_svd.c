/* Leading singular vectors and QR factors of small matrices whose answer is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "base/svd.h"

#include <math.h>
#include <string.h>

enum { MOST = 96 };

typedef struct table {
    int64_t m, n;
    double at[MOST * MOST];
} table;

static void read_rows(const void *ctx, int64_t row0, int64_t count, double *out) {
    const table *t = ctx;
    memcpy(out, t->at + row0 * t->n, (size_t)(count * t->n) * sizeof *out);
}

static pf_svd_matrix matrix_of(const table *t) {
    return (pf_svd_matrix){.m = t->m, .n = t->n, .ctx = t, .read = read_rows};
}

static void random_rows(double *q, int64_t r, int64_t n, uint64_t salt) {
    const pf_rng_key key = pf_rng_make_key(7, PF_RNG_DATA, salt);
    for (int64_t i = 0; i < r * n; i++) q[i] = pf_rng_normal_at(key, (uint64_t)i);
    pf_orthonormalize(q, r, n, salt);
}

/* sum of s_i u_i v_iᵀ with orthonormal u and v */
static void make(table *t, int64_t m, int64_t n, const double *s, int64_t k) {
    static double u[MOST * MOST], v[MOST * MOST];
    random_rows(u, k, m, 1);
    random_rows(v, k, n, 2);
    *t = (table){.m = m, .n = n};
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            for (int64_t c = 0; c < k; c++) t->at[i * n + j] += s[c] * u[c * m + i] * v[c * n + j];
        }
    }
}

static double far_from_orthonormal(const double *q, int64_t r, int64_t n) {
    double worst = 0;
    for (int64_t a = 0; a < r; a++) {
        for (int64_t b = 0; b <= a; b++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++) sum += q[a * n + i] * q[b * n + i];
            worst = fmax(worst, fabs(sum - (a == b)));
        }
    }
    return worst;
}

/* |A vᵢ - sᵢ uᵢ| and |Aᵀ uᵢ - sᵢ vᵢ|, the largest */
static double residual(const table *t, int64_t r, const double *u, const double *s,
                       const double *v) {
    double worst = 0;
    for (int64_t k = 0; k < r; k++) {
        for (int64_t i = 0; i < t->m; i++) {
            double sum = -s[k] * u[k * t->m + i];
            for (int64_t j = 0; j < t->n; j++) sum += t->at[i * t->n + j] * v[k * t->n + j];
            worst = fmax(worst, fabs(sum));
        }
        for (int64_t j = 0; j < t->n; j++) {
            double sum = -s[k] * v[k * t->n + j];
            for (int64_t i = 0; i < t->m; i++) sum += t->at[i * t->n + j] * u[k * t->m + i];
            worst = fmax(worst, fabs(sum));
        }
    }
    return worst;
}

static void leading(void **state) {
    (void)state;
    static const struct {
        int64_t m, n, k, r;
        int shape; /* of the values: 0 falling, 1 nearly equal, 2 of low rank, 3 twins */
    } rows[] = {{40, 24, 24, 5, 0}, {24, 40, 24, 5, 0},  {96, 90, 90, 8, 1}, {90, 96, 90, 8, 1},
                {50, 30, 3, 3, 2},  {50, 30, 12, 12, 3}, {8, 8, 8, 8, 0},    {1, 9, 1, 1, 0}};
    static table t;
    static double u[MOST * MOST], v[MOST * MOST];
    double s[MOST], got[MOST];
    for (size_t c = 0; c < sizeof rows / sizeof *rows; c++) {
        for (int64_t k = 0; k < rows[c].k; k++) {
            s[k] = rows[c].shape == 1   ? 1 + 0.5 * (double)(rows[c].k - k) / (double)rows[c].k
                   : rows[c].shape == 3 ? 10 - (double)(k / 2)
                                        : 5 / (double)(k + 1);
        }
        make(&t, rows[c].m, rows[c].n, s, rows[c].k);
        const pf_svd_matrix a = matrix_of(&t);
        assert_int_equal(pf_svd_leading(&a, rows[c].r, 3, u, got, v, NULL), PEFT_OK);
        for (int64_t k = 0; k < rows[c].r; k++) assert_true(fabs(got[k] - s[k]) < 1e-9);
        assert_true(residual(&t, rows[c].r, u, got, v) < 1e-6);
        assert_true(far_from_orthonormal(u, rows[c].r, t.m) < 1e-8);
        assert_true(far_from_orthonormal(v, rows[c].r, t.n) < 1e-6);
        if (rows[c].shape != 0) continue;
        assert_int_equal(pf_svd_randomized(&a, rows[c].r, 12, 3, u, got, v, NULL), PEFT_OK);
        assert_true(fabs(got[0] - s[0]) < 1e-6);
        assert_true(residual(&t, 1, u, got, v) < 1e-4);
    }
}

static void zero_matrix(void **state) {
    (void)state;
    static table t;
    static double u[MOST * MOST], v[MOST * MOST];
    double s[4];
    t = (table){.m = 12, .n = 7};
    const pf_svd_matrix a = matrix_of(&t);
    assert_int_equal(pf_svd_leading(&a, 4, 3, u, s, v, NULL), PEFT_OK);
    for (int k = 0; k < 4; k++) assert_true(s[k] == 0 && isfinite(u[k]) && isfinite(v[k]));
}

static void qr(void **state) {
    (void)state;
    static table t;
    static double q[MOST * MOST], r[MOST * MOST];
    double s[20];
    for (int k = 0; k < 20; k++) s[k] = 1 + k;
    make(&t, 33, 20, s, 20);
    const pf_svd_matrix a = matrix_of(&t);
    assert_int_equal(pf_qr_leading(&a, 20, q, r, NULL), PEFT_OK);
    assert_true(far_from_orthonormal(q, 20, 33) < 1e-12);
    for (int64_t k = 0; k < 20; k++) assert_true(r[k * 20 + k] > 0 && (k == 0 || r[k * 20] == 0));
    double worst = 0;
    for (int64_t i = 0; i < 33; i++) {
        for (int64_t j = 0; j < 20; j++) {
            double sum = -t.at[i * 20 + j];
            for (int64_t k = 0; k < 20; k++) sum += q[k * 33 + i] * r[k * 20 + j];
            worst = fmax(worst, fabs(sum));
        }
    }
    assert_true(worst < 1e-11);
}

/* Memory that is missing is said, whatever allocation it is. */
static void out_of_memory(void **state) {
    (void)state;
    static table t;
    static double u[MOST * MOST], v[MOST * MOST];
    double s[20];
    for (int k = 0; k < 20; k++) s[k] = 1 + k;
    make(&t, 30, 20, s, 20);
    const pf_svd_matrix a = matrix_of(&t);
    peft_status status = PEFT_E_NOMEM;
    int n = 0;
    for (; status != PEFT_OK && n < 100; n++) {
        pf_alloc_fail_at(n + 1);
        status = pf_svd_leading(&a, 2, 3, u, s, v, NULL);
        assert_true(status == PEFT_OK || status == PEFT_E_NOMEM);
    }
    pf_alloc_fail_at(0);
    assert_true(n > 3 && n < 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(leading), cmocka_unit_test(zero_matrix),
                                       cmocka_unit_test(qr), cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
