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
    for (int64_t p = 2; left > 1; p++) {
        if (p * p > left) p = left;
        for (; left % p == 0; left /= p) f->factor[f->n_factors++] = p; /* 2^32 has 32 */
    }
    return PEFT_OK;
}

/* y += x w */
static void add_product(pf_real *y, const pf_real *x, const pf_real *w) {
    const pf_real re = w[0], im = w[1];
    for (int l = 0; l < L; l++) {
        y[l] += x[l] * re - x[L + l] * im;
        y[L + l] += x[l] * im + x[L + l] * re;
    }
}

/* Two parts of m numbers each: y[k], y[k + m] = y[k] +- w^k y[k + m] */
static void join_two(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    for (int64_t k = 0; k < m; k++) {
        pf_real *a = y + k * W, *b = y + (k + m) * W;
        const pf_real re = f->root[2 * stride * k], im = f->root[2 * stride * k + 1];
        for (int l = 0; l < L; l++) {
            const pf_real br = b[l] * re - b[L + l] * im, bi = b[l] * im + b[L + l] * re;
            b[l] = a[l] - br;
            b[L + l] = a[L + l] - bi;
            a[l] += br;
            a[L + l] += bi;
        }
    }
}

/* p parts of m numbers each, by the definition; `part` has room for p numbers */
static void join_many(const pf_fft *f, pf_real *y, int64_t p, int64_t m, int64_t stride,
                      pf_real *part) {
    for (int64_t k = 0; k < m; k++) {
        for (int64_t q = 0; q < p; q++) memcpy(part + q * W, y + (k + q * m) * W, W * sizeof *part);
        for (int64_t u = 0; u < p; u++) {
            pf_real *to = y + (k + u * m) * W;
            memcpy(to, part, W * sizeof *to);
            for (int64_t q = 1; q < p; q++) {
                const int64_t at = stride * q % f->n * (k + u * m) % f->n;
                add_product(to, part + q * W, f->root + 2 * at);
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
    if (p == 2) {
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
