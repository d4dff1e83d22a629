/* svd.c - see svd.h. A matrix is read in tiles of rows, once for each product with it. */
#include "base/svd.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { TILE = 32 };
static const double ENOUGH = 1e-8, NOTHING = 1e-12; /* by the largest singular value */

/* ---- vectors --------------------------------------------------------------------------------- */

static double dot(const double *a, const double *b, int64_t n) {
    double part[8] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++) part[k] += a[i + k] * b[i + k];
    }
    for (; i < n; i++) sum += a[i] * b[i];
    for (int k = 0; k < 8; k++) sum += part[k];
    return sum;
}

static void add_times(double *y, double c, const double *x, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++) y[i + k] += c * x[i + k];
    }
    for (; i < n; i++) y[i] += c * x[i];
}

static void scale(double *x, double c, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= c;
}

/* Takes what x has of the k rows of q out of it, twice, which is enough. */
static void take_out(const double *q, int64_t k, double *x, int64_t n) {
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < k; j++) add_times(x, -dot(q + j * n, x, n), q + j * n, n);
    }
}

static void fill_random(double *x, int64_t n, uint64_t seed, uint64_t salt) {
    const pf_rng_key key = pf_rng_make_key(seed, PF_RNG_INIT, salt);
    for (int64_t i = 0; i < n; i++) x[i] = pf_rng_normal_at(key, (uint64_t)i);
}

/* A unit vector that is orthogonal to the k rows of q (k < n). */
static void random_beside(const double *q, int64_t k, double *x, int64_t n, uint64_t seed) {
    for (uint64_t attempt = 0; attempt < 8; attempt++) {
        fill_random(x, n, seed, (uint64_t)k * 16 + attempt);
        scale(x, 1 / sqrt(dot(x, x, n)), n);
        take_out(q, k, x, n);
        const double left = sqrt(dot(x, x, n));
        if (left < 1e-6) continue;
        scale(x, 1 / left, n);
        return;
    }
}

void pf_orthonormalize(double *q, int64_t r, int64_t n, uint64_t seed) {
    for (int64_t i = 0; i < r; i++) {
        double *x = q + i * n;
        const double before = sqrt(dot(x, x, n));
        take_out(q, i, x, n);
        const double left = sqrt(dot(x, x, n));
        if (left > 1e-12 * before) {
            scale(x, 1 / left, n);
        } else if (i < n) {
            random_beside(q, i, x, n, seed);
        }
    }
}

/* ---- products with the matrix ---------------------------------------------------------------- */

typedef struct product {
    const pf_svd_matrix *a;
    double *tile; /* (TILE, n) */
} product;

/* Rows [i0, i0 + rows), in memory or in the tile. */
static const double *rows_at(const product *p, int64_t i0, int64_t rows) {
    if (p->a->rows != NULL) return p->a->rows + i0 * p->a->n;
    p->a->read(p->a->ctx, i0, rows, p->tile);
    return p->tile;
}

/* y (r,m) = x (r,n) Aᵀ */
static void times(const product *p, const double *x, int64_t r, double *y) {
    const int64_t m = p->a->m, n = p->a->n;
    for (int64_t i0 = 0; i0 < m; i0 += TILE) {
        const int64_t rows = m - i0 < TILE ? m - i0 : TILE;
        const double *tile = rows_at(p, i0, rows);
        for (int64_t k = 0; k < r; k++) {
            for (int64_t i = 0; i < rows; i++) y[k * m + i0 + i] = dot(tile + i * n, x + k * n, n);
        }
    }
}

/* x (r,n) = y (r,m) A */
static void times_turned(const product *p, const double *y, int64_t r, double *x) {
    const int64_t m = p->a->m, n = p->a->n;
    memset(x, 0, (size_t)(r * n) * sizeof *x);
    for (int64_t i0 = 0; i0 < m; i0 += TILE) {
        const int64_t rows = m - i0 < TILE ? m - i0 : TILE;
        const double *tile = rows_at(p, i0, rows);
        for (int64_t k = 0; k < r; k++) {
            for (int64_t i = 0; i < rows; i++)
                add_times(x + k * n, y[k * m + i0 + i], tile + i * n, n);
        }
    }
}

/* ---- eigenvalues of a symmetric tridiagonal matrix ------------------------------------------- */

/* QL with implicit shifts (Bowdler, Martin, Reinsch & Wilkinson 1968): d (k) becomes the values,
 * e (k-1 used) is lost, and the columns of z (rows, k) are turned along. */
static void tridiagonal(int64_t k, double *d, double *e, double *z, int64_t rows) {
    e[k - 1] = 0;
    for (int64_t l = 0; l < k; l++) {
        for (int pass = 0; pass < 60; pass++) {
            int64_t m = l;
            for (; m < k - 1; m++) {
                const double size = fabs(d[m]) + fabs(d[m + 1]);
                if (fabs(e[m]) <= 2.3e-16 * size) break;
            }
            if (m == l) break;
            double g = (d[l + 1] - d[l]) / (2 * e[l]), r = hypot(g, 1), s = 1, c = 1, p = 0;
            g = d[m] - d[l] + e[l] / (g + copysign(r, g));
            int64_t i = m - 1;
            for (; i >= l; i--) {
                double f = s * e[i];
                const double b = c * e[i];
                r = hypot(f, g);
                e[i + 1] = r;
                if (r == 0) {
                    d[i + 1] -= p;
                    e[m] = 0;
                    break;
                }
                s = f / r;
                c = g / r;
                g = d[i + 1] - p;
                r = (d[i] - g) * s + 2 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                for (int64_t t = 0; t < rows; t++) {
                    double *row = z + t * k;
                    f = row[i + 1];
                    row[i + 1] = s * row[i] + c * f;
                    row[i] = c * row[i] - s * f;
                }
            }
            if (r == 0 && i >= l) continue;
            d[l] -= p;
            e[l] = g;
            e[m] = 0;
        }
    }
}

/* ---- Lanczos --------------------------------------------------------------------------------- */

typedef struct lanczos { /* A V = U B, with B's diagonal alpha and beta above it */
    product p;           /* of A or of Aᵀ: n is the shorter side */
    bool turned;
    int64_t m, n, k, cap;
    double *u, *v; /* (k,m), (k+1,n) */
    double *alpha, *beta;
    double largest; /* estimate of the norm of A */
    uint64_t seed;
} lanczos;

static void forward(const lanczos *s, const double *v, double *u) {
    if (s->turned) {
        times_turned(&s->p, v, 1, u);
    } else {
        times(&s->p, v, 1, u);
    }
}

static void backward(const lanczos *s, const double *u, double *v) {
    if (s->turned) {
        times(&s->p, u, 1, v);
    } else {
        times_turned(&s->p, u, 1, v);
    }
}

static bool grow_rows(double **rows, int64_t count, int64_t n) {
    size_t size;
    if (!pf_mul_size((size_t)count, (size_t)n * sizeof **rows, &size)) return false;
    double *more = pf_realloc(*rows, size);
    if (more == NULL) return false;
    *rows = more;
    return true;
}

static peft_status make_room(lanczos *s, peft_error *err) {
    if (s->k < s->cap) return PEFT_OK;
    const int64_t cap = s->cap + 64;
    if (!grow_rows(&s->u, cap, s->m) || !grow_rows(&s->v, cap + 1, s->n) ||
        !grow_rows(&s->alpha, cap, 1) || !grow_rows(&s->beta, cap, 1))
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the singular vectors of a matrix");
    s->cap = cap;
    return PEFT_OK;
}

/* x becomes a unit vector beside the k rows of q; its length before, or 0 where nothing is left. */
static double settle(const lanczos *s, const double *q, int64_t k, double *x, int64_t n) {
    take_out(q, k, x, n);
    const double length = sqrt(dot(x, x, n));
    if (length > NOTHING * s->largest && length > 0) {
        scale(x, 1 / length, n);
        return length;
    }
    if (k < n) random_beside(q, k, x, n, s->seed);
    return 0;
}

static void step(lanczos *s) {
    double *u = s->u + s->k * s->m, *v = s->v + s->k * s->n, *next = v + s->n;
    forward(s, v, u);
    const double size = sqrt(dot(u, u, s->m));
    if (size > s->largest) s->largest = size;
    s->alpha[s->k] = settle(s, s->u, s->k, u, s->m);
    backward(s, u, next);
    s->k++;
    s->beta[s->k - 1] = s->k < s->n ? settle(s, s->v, s->k, next, s->n) : 0;
}

/* B Bᵀ into d and e. */
static void gram(const lanczos *s, double *d, double *e) {
    for (int64_t j = 0; j < s->k; j++) {
        const double b = j + 1 < s->k ? s->beta[j] : 0;
        d[j] = s->alpha[j] * s->alpha[j] + b * b;
        e[j] = j + 1 < s->k ? b * s->alpha[j + 1] : 0;
    }
}

/* Index of the largest number that is not taken. */
static int64_t largest_of(const double *d, int64_t k, const bool *taken) {
    int64_t best = -1;
    for (int64_t j = 0; j < k; j++) {
        if (!taken[j] && (best < 0 || d[j] > d[best])) best = j;
    }
    return best;
}

/* Are the r largest what they will be? work: 3 k numbers; taken: k, all false */
static bool is_settled(const lanczos *s, int64_t r, double *work, bool *taken) {
    double *d = work, *e = work + s->k, *last = work + 2 * s->k;
    const double beta = s->beta[s->k - 1];
    if (s->k == s->n) return true;
    /* a part on its own; all of it, if a random vector beside it leads nowhere */
    if (beta == 0) return s->alpha[s->k - 1] == 0;
    gram(s, d, e);
    memset(last, 0, (size_t)s->k * sizeof *last);
    last[s->k - 1] = 1;
    tridiagonal(s->k, d, e, last, 1);
    double top = 0;
    for (int64_t i = 0; i < r; i++) {
        const int64_t j = largest_of(d, s->k, taken);
        taken[j] = true;
        if (i == 0) top = sqrt(fmax(d[j], 0));
        if (beta * fabs(last[j]) > ENOUGH * top) return false;
    }
    return true;
}

/* u (r,m), v (r,n) in the lanczos' own sense of m and n */
static void collect(const lanczos *s, int64_t r, double *work, bool *taken, double *u, double *sv,
                    double *v) {
    const int64_t k = s->k;
    double *d = work, *e = work + k, *z = work + 2 * k;
    gram(s, d, e);
    memset(z, 0, (size_t)(k * k) * sizeof *z);
    for (int64_t j = 0; j < k; j++) z[j * k + j] = 1;
    tridiagonal(k, d, e, z, k);
    memset(u, 0, (size_t)(r * s->m) * sizeof *u);
    for (int64_t i = 0; i < r; i++) {
        const int64_t c = largest_of(d, k, taken);
        taken[c] = true;
        for (int64_t j = 0; j < k; j++)
            add_times(u + i * s->m, z[j * k + c], s->u + j * s->m, s->m);
        backward(s, u + i * s->m, v + i * s->n);
        sv[i] = sqrt(dot(v + i * s->n, v + i * s->n, s->n));
        if (sv[i] > 0) scale(v + i * s->n, 1 / sv[i], s->n);
    }
}

static peft_status run_lanczos(lanczos *s, int64_t r, double *u, double *sv, double *v,
                               peft_error *err) {
    PF_TRY(make_room(s, err));
    random_beside(s->v, 0, s->v, s->n, s->seed);
    for (int64_t look = 2 * r + 16;;) {
        PF_TRY(make_room(s, err));
        step(s);
        if (s->k < look && s->k < s->n) continue;
        double *work = pf_calloc((size_t)(3 * s->k), sizeof *work);
        bool *taken = pf_calloc((size_t)s->k, sizeof *taken);
        const bool ok = work != NULL && taken != NULL;
        const bool done = ok && s->k >= r && is_settled(s, r, work, taken);
        pf_free(work);
        pf_free(taken);
        if (!ok) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (done || s->k == s->n) break;
        look = s->k + s->k / 4 + 8;
    }
    double *work = pf_calloc((size_t)(s->k + 2), (size_t)s->k * sizeof *work);
    bool *taken = pf_calloc((size_t)s->k, sizeof *taken);
    const bool ok = work != NULL && taken != NULL;
    if (ok) collect(s, r, work, taken, u, sv, v);
    pf_free(work);
    pf_free(taken);
    return ok ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status pf_svd_leading(const pf_svd_matrix *a, int64_t r, uint64_t seed, double *u, double *s,
                           double *v, peft_error *err) {
    lanczos l = {.p = {a, pf_calloc((size_t)a->n, TILE * sizeof(double))},
                 .turned = a->m < a->n,
                 .m = a->m < a->n ? a->n : a->m,
                 .n = a->m < a->n ? a->m : a->n,
                 .seed = seed};
    PF_ASSERT(r >= 1 && r <= l.n);
    peft_status status = l.p.tile == NULL ? PF_FAIL(err, PEFT_E_NOMEM, "out of memory") : PEFT_OK;
    if (status == PEFT_OK) status = run_lanczos(&l, r, l.turned ? v : u, s, l.turned ? u : v, err);
    pf_free(l.p.tile);
    pf_free(l.u);
    pf_free(l.v);
    pf_free(l.alpha);
    pf_free(l.beta);
    return status;
}

/* ---- a random range -------------------------------------------------------------------------- */

/* Singular triplets of b (r,n), r <= n, through a Lanczos of its own: it is small. */
typedef struct dense {
    const double *data;
    int64_t n;
} dense;

static void read_dense(const void *ctx, int64_t row0, int64_t count, double *out) {
    const dense *d = ctx;
    memcpy(out, d->data + row0 * d->n, (size_t)(count * d->n) * sizeof *out);
}

peft_status pf_svd_randomized(const pf_svd_matrix *a, int64_t r, int iterations, uint64_t seed,
                              double *u, double *s, double *v, peft_error *err) {
    const int64_t m = a->m, n = a->n;
    PF_ASSERT(r >= 1 && r <= m && r <= n);
    product p = {a, pf_calloc((size_t)n, TILE * sizeof(double))};
    double *q = pf_calloc((size_t)m, (size_t)r * sizeof *q);       /* (r,m) */
    double *b = pf_calloc((size_t)n, (size_t)r * sizeof *b);       /* (r,n) */
    double *left = pf_calloc((size_t)r, (size_t)r * sizeof *left); /* (r,r) */
    peft_status status = PEFT_OK;
    if (p.tile == NULL || q == NULL || b == NULL || left == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the singular vectors of a matrix");
    } else {
        fill_random(b, r * n, seed, 0);
        times(&p, b, r, q);
        pf_orthonormalize(q, r, m, seed);
        for (int i = 0; i < iterations; i++) {
            times_turned(&p, q, r, b);
            pf_orthonormalize(b, r, n, seed);
            times(&p, b, r, q);
            pf_orthonormalize(q, r, m, seed);
        }
        times_turned(&p, q, r, b);
        const dense d = {b, n};
        const pf_svd_matrix small = {.m = r, .n = n, .ctx = &d, .read = read_dense};
        status = pf_svd_leading(&small, r, seed, left, s, v, err);
    }
    if (status == PEFT_OK) {
        memset(u, 0, (size_t)(r * m) * sizeof *u);
        for (int64_t i = 0; i < r; i++) {
            for (int64_t k = 0; k < r; k++) add_times(u + i * m, left[i * r + k], q + k * m, m);
        }
    }
    pf_free(p.tile);
    pf_free(q);
    pf_free(b);
    pf_free(left);
    return status;
}

/* ---- QR -------------------------------------------------------------------------------------- */

peft_status pf_qr_leading(const pf_svd_matrix *a, int64_t r, double *q, double *rr,
                          peft_error *err) {
    const int64_t m = a->m, n = a->n;
    PF_ASSERT(r >= 1 && r <= m && r <= n);
    product p = {a, pf_calloc((size_t)n, TILE * sizeof(double))};
    if (p.tile == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t i0 = 0; i0 < m; i0 += TILE) { /* the first columns are the rows of q */
        const int64_t rows = m - i0 < TILE ? m - i0 : TILE;
        const double *tile = rows_at(&p, i0, rows);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t k = 0; k < r; k++) q[k * m + i0 + i] = tile[i * n + k];
        }
    }
    pf_orthonormalize(q, r, m, 1);
    times_turned(&p, q, r, rr);
    for (int64_t k = 0; k < r; k++) memset(rr + k * n, 0, (size_t)k * sizeof *rr);
    pf_free(p.tile);
    return PEFT_OK;
}
