/* rotate_loops.h - products of small matrices, and of many rows with small blocks; included by the
 * files of delta_loops.h, each for its instruction set. Vectors are the compiler's: as wide as
 * written, cut to what there is. */
#ifndef PF_ROTATE_LOOPS_H
#define PF_ROTATE_LOOPS_H

#include "peft/delta/delta_loops.h"

#include <string.h>

/* ---- products in double ---------------------------------------------------------------------- */

typedef double eight __attribute__((vector_size(64), aligned(8), may_alias));

static inline void eight_columns(int64_t s, int n_rows, const double *x, const double *y,
                                 double *z) {
    eight sum[4] = {{0}};
    for (int64_t k = 0; k < s; k++) {
        const eight b = *(const eight *)(y + k * s);
        for (int i = 0; i < n_rows; i++) {
            const double f = x[i * s + k];
            sum[i] += (eight){f, f, f, f, f, f, f, f} * b;
        }
    }
    for (int i = 0; i < n_rows; i++) *(eight *)(z + i * s) = sum[i];
}

static void product(int64_t s, const double *x, const double *y, double *z) {
    const int64_t wide = s / 8 * 8;
    for (int64_t i = 0; i < s; i += 4) {
        const double *xi = x + i * s;
        for (int64_t j = 0; j < wide; j += 8) {
            if (i + 4 <= s) {
                eight_columns(s, 4, xi, y + j, z + i * s + j);
            } else {
                for (int64_t r = i; r < s; r++)
                    eight_columns(s, 1, x + r * s, y + j, z + r * s + j);
            }
        }
    }
    for (int64_t i = 0; i < s && wide < s; i++) {
        for (int64_t j = wide; j < s; j++) {
            double sum = 0;
            for (int64_t k = 0; k < s; k++) sum += x[i * s + k] * y[k * s + j];
            z[i * s + j] = sum;
        }
    }
}

/* ---- rows side by side ----------------------------------------------------------------------- */

typedef pf_real lanes __attribute__((vector_size(PF_ROTATE_LANES * sizeof(pf_real)),
                                     aligned(sizeof(pf_real)), may_alias));

static inline const lanes *lanes_at(const pf_real *x, const int32_t *from, int64_t j) {
    return (const lanes *)(x + (from == NULL ? j : from[j]) * PF_ROTATE_LANES);
}

static inline void rotate_block(int64_t s, const pf_real *x, const int32_t *from, const pf_real *m,
                                int64_t down, int64_t across, pf_real *z) {
    for (int64_t c = 0; c < s; c++) {
        lanes sum = {0};
        for (int64_t j = 0; j < s; j++) sum += *lanes_at(x, from, j) * m[j * down + c * across];
        *(lanes *)(z + c * PF_ROTATE_LANES) = sum;
    }
}

static void rotate(int64_t s, const pf_real *x, const int32_t *from, const pf_real *m, bool turned,
                   pf_real *z) {
    if (s == 4 && !turned) {
        rotate_block(4, x, from, m, 4, 1, z);
    } else if (s == 4) {
        rotate_block(4, x, from, m, 1, 4, z);
    } else {
        rotate_block(s, x, from, m, turned ? 1 : s, turned ? s : 1, z);
    }
}

static void outer(int64_t s, int64_t n, int64_t step, const pf_real *x, const pf_real *dy,
                  const int32_t *from, pf_real *d) {
    for (int64_t j = 0; j < s; j++) {
        for (int64_t c0 = 0; c0 < s; c0 += 4) {
            const int width = s - c0 < 4 ? (int)(s - c0) : 4;
            lanes sum[4] = {{0}};
            for (int64_t g = 0; g < n; g++) {
                const lanes xj = *lanes_at(x + g * step, from, j);
                for (int c = 0; c < width; c++)
                    sum[c] += xj * *lanes_at(dy + g * step, from, c0 + c);
            }
            for (int c = 0; c < width; c++) {
                pf_real all = 0;
                for (int l = 0; l < PF_ROTATE_LANES; l++) all += sum[c][l];
                d[j * s + c0 + c] += all;
            }
        }
    }
}

#endif
