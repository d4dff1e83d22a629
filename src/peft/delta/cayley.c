/* cayley.c - orthogonal matrices from skew-symmetric ones, and their gradient; see delta_maps.h.
 *
 * Exact (Cayley 1846):  R = (I - Q) Y, Y = (I + Q)^-1;  dQ = -(I + Rᵀ) dR Yᵀ  (Y and I - Q commute)
 * Polynomial:  R = c_0 I + Q (c_1 I + Q (..)), H_k the brackets from within;
 *              dQ = sum over k of G_k H_{k+1}ᵀ,  G_0 = dR, G_{k+1} = Qᵀ G_k
 * I + Q with Q skew-symmetric has singular values of 1 and more: elimination with pivots is safe.
 * Blocks are small and independent, a task each; inside, everything is in double. */
#include "peft/delta/delta_maps.h"

#include "peft/delta/delta_loops.h"

#include <math.h>
#include <string.h>

/* Highest power, and the factor of power k. peft adds the last power once, others twice. */
static int64_t degree(int64_t terms) {
    return terms <= 1 ? 0 : terms == 2 ? 1 : terms < 5 ? 3 : terms - 1;
}

static double factor(int64_t terms, int64_t k) {
    return k == 0 || (terms > 2 && k == degree(terms)) ? 1 : 2;
}

static int64_t matrices(const pf_cayley_args *a) { /* of scratch a worker */
    return a->terms == 0 ? 6 : degree(a->terms) + 6;
}

static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    const pf_cayley_args *a = args;
    const int64_t s = a->size, half = s * (s - 1) / 2;
    const int64_t blocks = a->packed ? in[0].rows : in[0].rows / s;
    *out = (pf_mat){.rows = blocks * s, .cols = s};
    return a->packed ? in[0].cols == half : in[0].cols == s && in[0].rows % s == 0;
}

/* In reals; doubles are what is wanted, twice the room of floats. */
static int64_t scratch(const void *args, const pf_mat *in, int n_workers) {
    const pf_cayley_args *a = args;
    (void)in;
    return 2 * n_workers * (matrices(a) * a->size * a->size + a->size) + 2;
}

typedef struct job {
    const pf_derive_run *r;
    const pf_delta_loops *loops;
    double *room;
} job;

static double *room_of(const job *j, int worker) {
    const pf_cayley_args *a = j->r->args;
    return j->room + worker * (matrices(a) * a->size * a->size + a->size);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void read_skew(const pf_cayley_args *a, const pf_mat *p, int64_t block, double *q) {
    const int64_t s = a->size;
    const pf_real *v = p->data + block * (a->packed ? p->cols : s * s);
    for (int64_t i = 0; i < s; i++) {
        q[i * s + i] = 0;
        for (int64_t k = i + 1; k < s; k++) {
            const double x =
                a->packed ? (double)*v++ : 0.5 * ((double)v[i * s + k] - (double)v[k * s + i]);
            q[i * s + k] = x;
            q[k * s + i] = -x;
        }
    }
}

static void add_gradient(const pf_cayley_args *a, const pf_mat *d, int64_t block,
                         const double *dq) {
    const int64_t s = a->size;
    pf_real *v = d->data + block * (a->packed ? d->cols : s * s);
    for (int64_t i = 0; i < s; i++) {
        for (int64_t k = i + 1; k < s; k++) {
            const double x = dq[i * s + k] - dq[k * s + i];
            if (a->packed) {
                *v++ += (pf_real)x;
            } else {
                v[i * s + k] += (pf_real)(0.5 * x);
                v[k * s + i] -= (pf_real)(0.5 * x);
            }
        }
    }
}

static void limit_block(const pf_cayley_args *a, const pf_mat *p, int64_t block) {
    pf_real *v = p->data + block * p->cols;
    double sum = 0;
    for (int64_t i = 0; i < p->cols; i++) sum += 2 * (double)v[i] * (double)v[i];
    const double norm = sqrt(sum);
    if (norm <= a->limit * (1 + 1e-6)) return; /* what was scaled before stays */
    for (int64_t i = 0; i < p->cols; i++) v[i] = (pf_real)((double)v[i] * (a->limit / norm));
}

static void turn(int64_t s, const double *x, double *to) {
    for (int64_t i = 0; i < s; i++) {
        for (int64_t k = 0; k < s; k++) to[k * s + i] = x[i * s + k];
    }
}

/* y = (I + q)^-1; q is used up */
static void invert(int64_t s, double *q, double *y) {
    for (int64_t i = 0; i < s; i++) {
        q[i * s + i] += 1;
        for (int64_t k = 0; k < s; k++) y[i * s + k] = i == k;
    }
    for (int64_t c = 0; c < s; c++) {
        int64_t best = c;
        for (int64_t i = c + 1; i < s; i++) {
            if (fabs(q[i * s + c]) > fabs(q[best * s + c])) best = i;
        }
        for (int64_t k = 0; k < s && best != c; k++) {
            const double a = q[c * s + k], b = y[c * s + k];
            q[c * s + k] = q[best * s + k];
            y[c * s + k] = y[best * s + k];
            q[best * s + k] = a;
            y[best * s + k] = b;
        }
        const double pivot = 1 / q[c * s + c];
        for (int64_t k = 0; k < s; k++) {
            q[c * s + k] *= pivot;
            y[c * s + k] *= pivot;
        }
        for (int64_t i = 0; i < s; i++) {
            const double f = q[i * s + c];
            if (i == c || f == 0) continue;
            for (int64_t k = 0; k < s; k++) {
                q[i * s + k] -= f * q[c * s + k];
                y[i * s + k] -= f * y[c * s + k];
            }
        }
    }
}

/* r = (I - q) y, with y = (I + q)^-1; `work` is (s, s) */
static void exact(const job *j, int64_t s, const double *q, double *work, double *y, double *r) {
    memcpy(work, q, (size_t)(s * s) * sizeof *q);
    invert(s, work, y);
    j->loops->product(s, q, y, r);
    for (int64_t i = 0; i < s * s; i++) r[i] = y[i] - r[i];
}

/* h[degree] .. h[0] = r */
static void polynomial(const job *j, const double *q, double *h) {
    const pf_cayley_args *a = j->r->args;
    const int64_t s = a->size, n = degree(a->terms);
    for (int64_t k = n; k >= 0; k--) {
        double *to = h + k * s * s;
        if (k == n) {
            memset(to, 0, (size_t)(s * s) * sizeof *to);
        } else {
            j->loops->product(s, q, to + s * s, to);
        }
        for (int64_t i = 0; i < s; i++) to[i * s + i] += factor(a->terms, k);
    }
}

/* ---- forward --------------------------------------------------------------------------------- */

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_cayley_args *a = j->r->args;
    const int64_t s = a->size, n = s * s;
    double *q = room_of(j, worker), *h = q + n;
    if (a->limit > 0) limit_block(a, &j->r->in[0], task);
    read_skew(a, &j->r->in[0], task, q);
    const double *r = h;
    if (a->terms == 0) {
        exact(j, s, q, h + n, h + 2 * n, h);
    } else {
        polynomial(j, q, h);
    }
    for (int64_t i = 0; i < n; i++) j->r->out[0].data[task * n + i] = (pf_real)r[i];
}

static double *align(pf_real *p) {
    return (double *)(void *)p; /* the workspace is aligned to 64 bytes */
}

static void forward(const pf_derive_run *r) {
    const pf_cayley_args *a = r->args;
    job j = {r, pf_delta_loops_of(r->isa), align(r->scratch)};
    pf_pool_run(r->pool, (int)(r->out[0].rows / a->size), forward_task, &j);
}

/* ---- backward -------------------------------------------------------------------------------- */

static void exact_gradient(const job *j, int64_t s, const double *q, const double *dr, double *m) {
    const int64_t n = s * s;
    double *y = m, *r = m + n, *work = m + 2 * n;
    exact(j, s, q, work, y, r);
    turn(s, y, m + 3 * n);
    j->loops->product(s, dr, m + 3 * n, work); /* dR Yᵀ */
    turn(s, r, m + 3 * n);
    j->loops->product(s, m + 3 * n, work, y);
    for (int64_t i = 0; i < n; i++) m[i] = -(work[i] + y[i]);
}

/* Qᵀ is -Q: the sign of G changes from power to power. */
static void polynomial_gradient(const job *j, const double *q, double *g, double *m) {
    const pf_cayley_args *a = j->r->args;
    const int64_t s = a->size, n = s * s, top = degree(a->terms);
    double *part = m + n, *turned = m + 2 * n, *h = m + 3 * n;
    polynomial(j, q, h);
    memset(m, 0, (size_t)n * sizeof *m);
    for (int64_t k = 0; k < top; k++) {
        turn(s, h + (k + 1) * n, turned);
        j->loops->product(s, g, turned, part);
        for (int64_t i = 0; i < n; i++) m[i] += part[i];
        j->loops->product(s, q, g, part);
        for (int64_t i = 0; i < n; i++) g[i] = -part[i];
    }
}

static void backward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_cayley_args *a = j->r->args;
    const int64_t n = a->size * a->size;
    double *q = room_of(j, worker), *dr = q + n, *m = q + 2 * n;
    read_skew(a, &j->r->in[0], task, q);
    for (int64_t i = 0; i < n; i++) dr[i] = (double)j->r->d_out[0].data[task * n + i];
    if (a->terms == 0) {
        exact_gradient(j, a->size, q, dr, m);
    } else {
        polynomial_gradient(j, q, dr, m);
    }
    add_gradient(a, &j->r->d_in[0], task, m);
}

static void backward(const pf_derive_run *r) {
    const pf_cayley_args *a = r->args;
    job j = {r, pf_delta_loops_of(r->isa), align(r->scratch)};
    if (r->d_in[0].data == NULL || r->d_out[0].data == NULL) return;
    pf_pool_run(r->pool, (int)(r->d_out[0].rows / a->size), backward_task, &j);
}

const pf_derive pf_cayley = {.name = "Cayley transform of blocks",
                             .n_out = 1,
                             .shape = shape,
                             .scratch = scratch,
                             .forward = forward,
                             .backward = backward};
