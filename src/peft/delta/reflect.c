/* reflect.c - Householder reflections as two thin matrices; see delta_maps.h.
 *
 * With v_i = u_i / |u_i| in the order in which they act (the last first), the product of I - 2 v vᵀ
 * is I - V T Vᵀ, T^-1 = I/2 + the part of Vᵀ V above its diagonal (UT transform, Joffrain et al.
 * 2006). So A = (V T)ᵀ, B = -V, and with dZ = dAᵀ
 *   dV = dZ Tᵀ - dB + V (dG + dGᵀ),   dG = above the diagonal of -Tᵀ (Vᵀ dZ) Tᵀ
 * Orthogonal: with W from Gram and Schmidt, as peft's loop does it, A = Wᵀ, B = -2 W.
 * n r^2 operations once per pass, all in double. */
#include "peft/delta/delta_maps.h"

#include <math.h>
#include <string.h>

static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0] = (pf_mat){.rows = in[0].cols, .cols = in[0].rows};
    out[1] = (pf_mat){.rows = in[0].rows, .cols = in[0].cols};
    return true;
}

typedef struct work {
    int64_t n, r;
    double *v, *dv, *part; /* (r, n): a vector is a row */
    double *t, *c, *d;     /* (r, r): T; what was projected away; scratch */
    double *norm;          /* (r) */
} work;

static int64_t scratch(const void *args, const pf_mat *in, int n_workers) {
    (void)args, (void)n_workers;
    const int64_t n = in[0].rows, r = in[0].cols;
    return 2 * (3 * n * r + 3 * r * r + r) + 2;
}

static work work_of(const pf_derive_run *run) {
    const int64_t n = run->in[0].rows, r = run->in[0].cols;
    double *p = (double *)(void *)run->scratch;
    work w = {.n = n, .r = r, .v = p, .dv = p + n * r, .part = p + 2 * n * r};
    w.t = p + 3 * n * r;
    w.c = w.t + r * r;
    w.d = w.c + r * r;
    w.norm = w.d + r * r;
    return w;
}

static double dot(int64_t n, const double *a, const double *b) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void add(int64_t n, double f, const double *x, double *y) {
    for (int64_t i = 0; i < n; i++) y[i] += f * x[i];
}

/* Column of U that stands in row i of V: the last one acts first. */
static int64_t column(const pf_reflect_args *a, const work *w, int64_t i) {
    return a->orthogonal ? i : w->r - 1 - i;
}

static double normalize(int64_t n, double *v) {
    const double norm = sqrt(dot(n, v, v));
    for (int64_t i = 0; norm > 0 && i < n; i++) v[i] /= norm;
    return norm;
}

/* V, and T or what Gram and Schmidt took away. */
static void make(const pf_derive_run *run, const work *w) {
    const pf_reflect_args *a = run->args;
    const int64_t n = w->n, r = w->r;
    for (int64_t i = 0; i < r; i++) {
        double *v = w->v + i * n;
        for (int64_t k = 0; k < n; k++) v[k] = (double)run->in[0].data[k * r + column(a, w, i)];
        for (int64_t j = 0; a->orthogonal && j < i; j++) {
            w->c[i * r + j] = dot(n, w->v + j * n, v);
            add(n, -w->c[i * r + j], w->v + j * n, v);
        }
        w->norm[i] = normalize(n, v);
    }
    if (a->orthogonal) return;
    /* T = (I/2 + U)^-1, upper triangular: column j of T from those before */
    memset(w->t, 0, (size_t)(r * r) * sizeof *w->t);
    for (int64_t j = 0; j < r; j++) {
        w->t[j * r + j] = 2;
        for (int64_t i = 0; i < j; i++) {
            double sum = 0;
            for (int64_t k = i; k < j; k++)
                sum += w->t[i * r + k] * dot(n, w->v + k * n, w->v + j * n);
            w->t[i * r + j] = -2 * sum;
        }
    }
}

static void forward(const pf_derive_run *run) {
    const pf_reflect_args *a = run->args;
    const work w = work_of(run);
    const int64_t n = w.n, r = w.r;
    make(run, &w);
    for (int64_t j = 0; j < r; j++) { /* row j of A: sum over i of T[i, j] v_i */
        double *row = w.part + j * n;
        memset(row, 0, (size_t)n * sizeof *row);
        for (int64_t i = 0; i <= j && !a->orthogonal; i++) add(n, w.t[i * r + j], w.v + i * n, row);
        if (a->orthogonal) add(n, 1, w.v + j * n, row);
        for (int64_t k = 0; k < n; k++) {
            run->out[0].data[j * n + k] = (pf_real)row[k];
            run->out[1].data[k * r + j] = (pf_real)((a->orthogonal ? -2 : -1) * w.v[j * n + k]);
        }
    }
}

/* dV of A = (V T)ᵀ; dZ stands in w->part, a row each */
static void through_t(const work *w) {
    const int64_t n = w->n, r = w->r;
    for (int64_t i = 0; i < r; i++) { /* dV_i += sum over j of T[i, j] dZ_j; d = Vᵀ dZ */
        for (int64_t j = i; j < r; j++) add(n, w->t[i * r + j], w->part + j * n, w->dv + i * n);
        for (int64_t j = 0; j < r; j++) w->d[i * r + j] = dot(n, w->v + i * n, w->part + j * n);
    }
    for (int64_t i = 0; i < r; i++) { /* c = d Tᵀ */
        for (int64_t j = 0; j < r; j++) {
            double sum = 0;
            for (int64_t k = j; k < r; k++) sum += w->d[i * r + k] * w->t[j * r + k];
            w->c[i * r + j] = sum;
        }
    }
    for (int64_t i = 0; i < r; i++) { /* dG[i, j] = -(Tᵀ c)[i, j], j > i */
        for (int64_t j = i + 1; j < r; j++) {
            double g = 0;
            for (int64_t k = 0; k <= i; k++) g -= w->t[k * r + i] * w->c[k * r + j];
            add(n, g, w->v + j * n, w->dv + i * n);
            add(n, g, w->v + i * n, w->dv + j * n);
        }
    }
}

/* g: gradient of v / |v| -> of v */
static void through_norm(int64_t n, const double *v, double norm, double *g) {
    const double along = dot(n, v, g);
    for (int64_t i = 0; i < n; i++) g[i] = norm > 0 ? (g[i] - along * v[i]) / norm : 0;
}

/* Gram and Schmidt backwards; what was taken away is put back step by step. */
static void through_projections(const work *w) {
    const int64_t n = w->n, r = w->r;
    double *v = w->part;
    for (int64_t i = r - 1; i >= 0; i--) {
        double *g = w->dv + i * n;
        through_norm(n, w->v + i * n, w->norm[i], g);
        for (int64_t k = 0; k < n; k++) v[k] = w->norm[i] * w->v[i * n + k];
        for (int64_t j = i - 1; j >= 0; j--) {
            const double c = w->c[i * r + j], *wj = w->v + j * n;
            add(n, c, wj, v);
            const double dc = -dot(n, g, wj);
            add(n, -c, g, w->dv + j * n);
            add(n, dc, v, w->dv + j * n);
            add(n, dc, wj, g);
        }
    }
}

static void backward(const pf_derive_run *run) {
    const pf_reflect_args *a = run->args;
    const work w = work_of(run);
    const int64_t n = w.n, r = w.r;
    const pf_real *da = run->d_out[0].data, *db = run->d_out[1].data;
    if (run->d_in[0].data == NULL) return;
    make(run, &w);
    for (int64_t i = 0; i < r; i++) {
        for (int64_t k = 0; k < n; k++) {
            w.part[i * n + k] = da == NULL ? 0 : (double)da[i * n + k];
            w.dv[i * n + k] = db == NULL ? 0 : -(double)db[k * r + i];
            if (a->orthogonal) w.dv[i * n + k] = 2 * w.dv[i * n + k] + w.part[i * n + k];
        }
    }
    if (a->orthogonal) {
        through_projections(&w);
    } else {
        through_t(&w);
        for (int64_t i = 0; i < r; i++) through_norm(n, w.v + i * n, w.norm[i], w.dv + i * n);
    }
    for (int64_t i = 0; i < r; i++) {
        for (int64_t k = 0; k < n; k++)
            run->d_in[0].data[k * r + column(a, &w, i)] += (pf_real)w.dv[i * n + k];
    }
}

const pf_derive pf_reflect = {.name = "reflections",
                              .n_out = 2,
                              .shape = shape,
                              .scratch = scratch,
                              .forward = forward,
                              .backward = backward};
