/* rms_norm_simd.h - the row kernels of rms_norm_kernels.h in vectors (simd.h). A row is read once
 * for its sums and once for the results, the second time from cache. Sums run in two accumulators
 * and end in a fixed tree: their order depends on the number of columns alone. */
#include "ops/norm/rms_norm_kernels.h"

#include "ops/simd.h"

#include <math.h>

static inline float inverse_rms(float squares, int64_t C, double eps) {
    return (float)(1 / sqrt((double)squares / (double)C + eps));
}

static inline float sum_squares(const float *x, int64_t C) {
    pf_vf s0 = pf_v_zero(), s1 = pf_v_zero();
    int64_t c = 0;
    for (; c + 2 * PF_VN <= C; c += 2 * PF_VN) {
        pf_vf x0 = pf_v_load(x + c), x1 = pf_v_load(x + c + PF_VN);
        s0 = pf_v_fma(x0, x0, s0);
        s1 = pf_v_fma(x1, x1, s1);
    }
    for (; c < C; c += PF_VN) {
        pf_vf x0 = pf_v_load_n(x + c, C - c);
        s0 = pf_v_fma(x0, x0, s0);
    }
    return pf_v_sum(pf_v_add(s0, s1));
}

/* sum of dy w x */
static inline float dot3(const float *dy, const float *w, const float *x, int64_t C) {
    pf_vf s0 = pf_v_zero(), s1 = pf_v_zero();
    int64_t c = 0;
    for (; c + 2 * PF_VN <= C; c += 2 * PF_VN) {
        pf_vf g0 = pf_v_mul(pf_v_load(dy + c), pf_v_load(w + c));
        pf_vf g1 = pf_v_mul(pf_v_load(dy + c + PF_VN), pf_v_load(w + c + PF_VN));
        s0 = pf_v_fma(g0, pf_v_load(x + c), s0);
        s1 = pf_v_fma(g1, pf_v_load(x + c + PF_VN), s1);
    }
    for (; c < C; c += PF_VN) {
        pf_vf g0 = pf_v_mul(pf_v_load_n(dy + c, C - c), pf_v_load_n(w + c, C - c));
        s0 = pf_v_fma(g0, pf_v_load_n(x + c, C - c), s0);
    }
    return pf_v_sum(pf_v_add(s0, s1));
}

void PF_SIMD(pf_rms_norm_rows)(const pf_rms_norm_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const float *x = k->x + i * C;
        float *y = k->y + i * C;
        if (k->b != NULL) {
            const float *b = k->b + i * C;
            float *sum = k->sum + i * C;
            for (int64_t c = 0; c < C; c += PF_VN) {
                pf_v_store_n(sum + c,
                             pf_v_add(pf_v_load_n(x + c, C - c), pf_v_load_n(b + c, C - c)), C - c);
            }
            x = sum;
        }
        pf_vf r = pf_v_set(inverse_rms(sum_squares(x, C), C, k->eps));
        for (int64_t c = 0; c < C; c += PF_VN) {
            pf_vf normed = pf_v_mul(pf_v_load_n(x + c, C - c), r);
            pf_v_store_n(y + c, pf_v_mul(normed, pf_v_load_n(k->w + c, C - c)), C - c);
        }
    }
}

/* dw += dy x r */
static inline void add_dw(float *dw, const float *dy, const float *x, pf_vf r, int64_t C) {
    for (int64_t c = 0; c < C; c += PF_VN) {
        pf_vf normed = pf_v_mul(pf_v_load_n(x + c, C - c), r);
        pf_v_store_n(dw + c,
                     pf_v_fma(pf_v_load_n(dy + c, C - c), normed, pf_v_load_n(dw + c, C - c)),
                     C - c);
    }
}

void PF_SIMD(pf_rms_norm_grad_rows)(const pf_rms_norm_grad_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const float *x = k->x + i * C, *dy = k->dy + i * C;
        float r1 = inverse_rms(sum_squares(x, C), C, k->eps);
        pf_vf r = pf_v_set(r1);
        if (k->dw != NULL) add_dw(k->dw, dy, x, r, C);
        if (k->dx == NULL) continue;
        pf_vf m = pf_v_set((float)(dot3(dy, k->w, x, C) / (double)C) * r1 * r1);
        float *dx = k->dx + i * C;
        for (int64_t c = 0; c < C; c += PF_VN) {
            pf_vf g = pf_v_mul(pf_v_load_n(dy + c, C - c), pf_v_load_n(k->w + c, C - c));
            pf_vf d = pf_v_mul(r, pf_v_fnma(pf_v_load_n(x + c, C - c), m, g));
            if (k->acc != NULL) d = pf_v_add(d, pf_v_load_n(k->acc + i * C + c, C - c));
            pf_v_store_n(dx + c, d, C - c);
        }
    }
}
