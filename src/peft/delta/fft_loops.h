/* fft_loops.h - how a transform runs (fft.h); included by the files of delta_loops.h, each for its
 * instruction set. */
#ifndef PF_FFT_LOOPS_H
#define PF_FFT_LOOPS_H

#include "peft/delta/fft.h"

#include <string.h>

enum { L = PF_FFT_LANES, W = 2 * PF_FFT_LANES };

/* One number of all lanes. */
typedef pf_real side_by_side __attribute__((vector_size(PF_FFT_LANES * sizeof(pf_real)),
                                            aligned(sizeof(pf_real)), may_alias));
typedef struct number {
    side_by_side re, im;
} number;

/* ---- joining parts ---------------------------------------------------------------------------
 * y holds p parts of m numbers; number k + u m of the result is the sum over q of
 * w^(stride q k) r^(q u) (number k of part q), w the root of n, r that of p: first the parts are
 * turned, then each k has a transform of length p. */

_Static_assert(PF_FFT_LANES == 8, "load_rows names them");

#define GET(x) ((number){*(const side_by_side *)(x), *(const side_by_side *)((x) + L)})
#define PUT(y, a)                                                                                  \
    do {                                                                                           \
        *(side_by_side *)(y) = (a).re;                                                             \
        *(side_by_side *)((y) + L) = (a).im;                                                       \
    } while (0)
/* x w */
#define TURN(x, w) ((number){(x).re * (w)[0] - (x).im * (w)[1], (x).re * (w)[1] + (x).im * (w)[0]})
#define ADD(a, b)  ((number){(a).re + (b).re, (a).im + (b).im})
#define SUB(a, b)  ((number){(a).re - (b).re, (a).im - (b).im})

static void join_two(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    for (int64_t k = 0; k < m; k++) {
        pf_real *at = y + k * W, *bt = at + m * W;
        const pf_real *w = f->root + 2 * stride * k;
        const number a = GET(at), b = GET(bt), t = TURN(b, w);
        PUT(at, ADD(a, t));
        PUT(bt, SUB(a, t));
    }
}

/* r is i */
static void join_four(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    for (int64_t k = 0; k < m; k++) {
        pf_real *at = y + k * W, *bt = at + m * W, *ct = bt + m * W, *dt = ct + m * W;
        const pf_real *w = f->root + 2 * stride * k, *w2 = f->root + 4 * stride * k,
                      *w3 = f->root + 6 * stride * k;
        const number a = GET(at), xb = GET(bt), xc = GET(ct), xd = GET(dt);
        const number b = TURN(xb, w), c = TURN(xc, w2), d = TURN(xd, w3);
        const number s = ADD(a, c), t = SUB(a, c), u = ADD(b, d), v = SUB(b, d);
        const number turned = {-v.im, v.re};
        PUT(at, ADD(s, u));
        PUT(bt, ADD(t, turned));
        PUT(ct, SUB(s, u));
        PUT(dt, SUB(t, turned));
    }
}

/* r = -1/2 + i sqrt(3)/2 */
static void join_three(const pf_fft *f, pf_real *y, int64_t m, int64_t stride) {
    const pf_real half = (pf_real)0.5, root = (pf_real)0.86602540378443864676;
    for (int64_t k = 0; k < m; k++) {
        pf_real *at = y + k * W, *bt = at + m * W, *ct = bt + m * W;
        const pf_real *w = f->root + 2 * stride * k, *w2 = f->root + 4 * stride * k;
        const number a = GET(at), xb = GET(bt), xc = GET(ct);
        const number b = TURN(xb, w), c = TURN(xc, w2);
        const number s = ADD(b, c), d = SUB(b, c);
        const number middle = {a.re - half * s.re, a.im - half * s.im};
        const number turned = {-(root * d.im), root * d.re};
        PUT(at, ADD(a, s));
        PUT(bt, ADD(middle, turned));
        PUT(ct, SUB(middle, turned));
    }
}

/* `part` has room for p numbers. */
static void join_many(const pf_fft *f, pf_real *y, int64_t p, int64_t m, int64_t stride,
                      pf_real *part) {
    const int64_t step = f->n / p; /* between powers of r among those of w */
    for (int64_t k = 0; k < m; k++) {
        for (int64_t q = 0; q < p; q++) {
            const pf_real *w = f->root + 2 * stride * q * k;
            const number x = GET(y + (k + q * m) * W);
            PUT(part + q * W, TURN(x, w));
        }
        for (int64_t u = 0; u < p; u++) {
            number sum = GET(part);
            for (int64_t q = 1, power = u; q < p; q++) {
                const pf_real *r = f->root + 2 * step * power;
                const number x = GET(part + q * W), t = TURN(x, r);
                sum = ADD(sum, t);
                power = power + u < p ? power + u : power + u - p;
            }
            PUT(y + (k + u * m) * W, sum);
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
    } else if (p == 3) {
        join_three(f, y, m, stride);
    } else if (p == 2) {
        join_two(f, y, m, stride);
    } else {
        join_many(f, y, p, m, stride, part);
    }
}

static void run_fft(const pf_fft *f, const pf_real *x, pf_real *y, pf_real *part) {
    if (f->n == 1) {
        memcpy(y, x, W * sizeof *y);
    } else {
        transform(f, 0, x, 1, y, part);
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void load_rows(const pf_real *x, int64_t n_rows, int64_t cols, pf_real *to) {
    const side_by_side zero = {0};
    const pf_real *row[L];
    for (int64_t l = 0; l < L; l++) row[l] = x + (l < n_rows ? l : 0) * cols;
    for (int64_t c = 0; c < cols; c++) {
        const number a = {{row[0][c], row[1][c], row[2][c], row[3][c], row[4][c], row[5][c],
                           row[6][c], row[7][c]},
                          zero};
        PUT(to + c * W, a);
    }
    for (int64_t c = 0; c < cols && n_rows < L; c++) {
        for (int64_t l = n_rows; l < L; l++) to[c * W + l] = 0;
    }
}

static void scatter(const pf_real *p, int64_t n, const pf_real *from, const int32_t *of,
                    pf_real *to, const int32_t *at) {
    for (int64_t k = 0; k < n; k++) {
        pf_real *t = to + (int64_t)at[k] * W;
        const number f = GET(from + (int64_t)of[k] * W), before = GET(t);
        const number scaled = {f.re * p[k], f.im * p[k]};
        PUT(t, ADD(before, scaled));
    }
}

static void match(int64_t n, const pf_real *x, const int32_t *v, const pf_real *g, const int32_t *u,
                  pf_real *sums) {
    for (int64_t k = 0; k < n; k++) {
        const number a = GET(x + (int64_t)v[k] * W), b = GET(g + (int64_t)u[k] * W);
        const side_by_side both = a.re * b.re - a.im * b.im;
        pf_real sum = 0;
        for (int l = 0; l < L; l++) sum += both[l];
        sums[k] = sum;
    }
}

#undef GET
#undef PUT
#undef TURN
#undef ADD
#undef SUB

#endif
