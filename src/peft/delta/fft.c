/* fft.c - see fft.h. */
#include "peft/delta/fft.h"

#include <math.h>
#include <string.h>

enum { L = PF_FFT_LANES, W = 2 * PF_FFT_LANES };

peft_status pf_fft_init(pf_fft *f, pf_arena *a, int64_t n, peft_error *err) {
    const double step = 8 * atan(1.0) / (double)n;
    pf_real *root = PF_NEW_ARRAY(a, pf_real, 2 * n);
    PF_CHECK_ALLOC(root, err);
    *f = (pf_fft){.n = n, .root = root};
    for (int64_t k = 0; k < n; k++) {
        root[2 * k] = (pf_real)cos(step * (double)k);
        root[2 * k + 1] = (pf_real)sin(step * (double)k);
    }
    int64_t left = n;
    for (; left % 4 == 0; left /= 4) f->factor[f->n_factors++] = 4;
    for (int64_t p = 2; left > 1; p++) {
        if (p * p > left) p = left;
        for (; left % p == 0; left /= p) f->factor[f->n_factors++] = p;
    }
    for (int i = 0; i < f->n_factors; i++)
        f->largest = f->largest > f->factor[i] ? f->largest : f->factor[i];
    return PEFT_OK;
}

/* ---- joining parts ---------------------------------------------------------------------------
 * y holds p parts of m numbers; number k + u m of the result is the sum over q of
 * w^(stride q k) r^(q u) (number k of part q), w the root of n, r that of p: first the parts are
 * turned, then each k has a transform of length p. Pointers are restrict so that lanes become
 * vectors. */

/* y = x w */
static void turn(pf_real *restrict y, const pf_real *restrict x, const pf_real *restrict w) {
    const pf_real re = w[0], im = w[1];
    for (int l = 0; l < L; l++) {
        y[l] = x[l] * re - x[L + l] * im;
        y[L + l] = x[l] * im + x[L + l] * re;
    }
}

/* y += x w */
static void add_turned(pf_real *restrict y, const pf_real *restrict x, const pf_real *restrict w) {
    const pf_real re = w[0], im = w[1];
    for (int l = 0; l < L; l++) {
        y[l] += x[l] * re - x[L + l] * im;
        y[L + l] += x[l] * im + x[L + l] * re;
    }
}

static void join_two(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    pf_real t[W];
    for (int64_t k = 0; k < m; k++) {
        pf_real *restrict a = y + k * W, *restrict b = y + (k + m) * W;
        turn(t, b, f->root + 2 * stride * k);
        for (int l = 0; l < W; l++) {
            b[l] = a[l] - t[l];
            a[l] += t[l];
        }
    }
}

/* r is i */
static void join_four(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    pf_real tb[W], tc[W], td[W];
    for (int64_t k = 0; k < m; k++) {
        pf_real *restrict a = y + k * W, *restrict b = a + m * W, *restrict c = b + m * W,
                          *restrict d = c + m * W;
        turn(tb, b, f->root + 2 * stride * k);
        turn(tc, c, f->root + 4 * stride * k);
        turn(td, d, f->root + 6 * stride * k);
        for (int l = 0; l < L; l++) {
            const pf_real sr = a[l] + tc[l], si = a[L + l] + tc[L + l];
            const pf_real dr = a[l] - tc[l], di = a[L + l] - tc[L + l];
            const pf_real ur = tb[l] + td[l], ui = tb[L + l] + td[L + l];
            const pf_real vr = tb[l] - td[l], vi = tb[L + l] - td[L + l];
            a[l] = sr + ur;
            a[L + l] = si + ui;
            b[l] = dr - vi;
            b[L + l] = di + vr;
            c[l] = sr - ur;
            c[L + l] = si - ui;
            d[l] = dr + vi;
            d[L + l] = di - vr;
        }
    }
}

/* `part` has room for p numbers. */
static void join_many(const pf_fft *f, pf_real *y, int64_t p, int64_t m, int64_t stride,
                      pf_real *part) {
    const int64_t step = f->n / p; /* between powers of r among those of w */
    for (int64_t k = 0; k < m; k++) {
        for (int64_t q = 0; q < p; q++)
            turn(part + q * W, y + (k + q * m) * W, f->root + 2 * stride * q * k);
        for (int64_t u = 0; u < p; u++) {
            pf_real *to = y + (k + u * m) * W;
            memcpy(to, part, W * sizeof *to);
            for (int64_t q = 1, power = u; q < p; q++) {
                add_turned(to, part + q * W, f->root + 2 * step * power);
                power = power + u < p ? power + u : power + u - p;
            }
        }
    }
}

static void transform(const pf_fft *f, int depth, const pf_real *x, int64_t stride, pf_real *y,
                      pf_real *part) {
    const int64_t p = f->factor[depth];
    int64_t m = 1;
    for (int i = depth + 1; i < f->n_factors; i++) m *= f->factor[i];
    for (int64_t q = 0; q < p; q++) {
        if (m == 1) {
            memcpy(y + q * W, x + q * stride * W, W * sizeof *y);
        } else {
            transform(f, depth + 1, x + q * stride * W, stride * p, y + q * m * W, part);
        }
    }
    if (p == 4) {
        join_four(f, y, m, stride);
    } else if (p == 2) {
        join_two(f, y, m, stride);
    } else {
        join_many(f, y, p, m, stride, part);
    }
}

void pf_fft_run(const pf_fft *f, const pf_real *x, pf_real *y, pf_real *part) {
    if (f->n == 1) {
        memcpy(y, x, W * sizeof *y);
    } else {
        transform(f, 0, x, 1, y, part);
    }
}
