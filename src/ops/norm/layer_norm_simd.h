/* layer_norm_simd.h - the row kernels of layer_norm_kernels.h in vectors (simd.h). A row is read
 * for its mean, its variance and its result, the later times from cache. Sums run in two
 * accumulators and end in a fixed tree: their order depends on the number of columns alone. */
#include "ops/norm/layer_norm_kernels.h"

#include "ops/simd.h"

#include <math.h>

/* Lanes beyond the row read as 0; so do those of what is subtracted from them. */
static inline pf_vf first_lanes(pf_vf a, int64_t n) {
    float lanes[PF_VN];
    if (n >= PF_VN) return a;
    pf_v_store(lanes, a);
    return pf_v_load_n(lanes, n);
}

static inline float mean_of(const float *x, int64_t C) {
    pf_vf s0 = pf_v_zero(), s1 = pf_v_zero();
    int64_t c = 0;
    for (; c + 2 * PF_VN <= C; c += 2 * PF_VN) {
        s0 = pf_v_add(s0, pf_v_load(x + c));
        s1 = pf_v_add(s1, pf_v_load(x + c + PF_VN));
    }
    for (; c < C; c += PF_VN) s0 = pf_v_add(s0, pf_v_load_n(x + c, C - c));
    return pf_v_sum(pf_v_add(s0, s1)) / (float)C;
}

static inline float inverse_std(const float *x, float mean, int64_t C, double eps) {
    const pf_vf m = pf_v_set(mean);
    pf_vf s0 = pf_v_zero(), s1 = pf_v_zero();
    int64_t c = 0;
    for (; c + 2 * PF_VN <= C; c += 2 * PF_VN) {
        pf_vf d0 = pf_v_sub(pf_v_load(x + c), m), d1 = pf_v_sub(pf_v_load(x + c + PF_VN), m);
        s0 = pf_v_fma(d0, d0, s0);
        s1 = pf_v_fma(d1, d1, s1);
    }
    for (; c < C; c += PF_VN) {
        pf_vf d0 = pf_v_sub(pf_v_load_n(x + c, C - c), first_lanes(m, C - c));
        s0 = pf_v_fma(d0, d0, s0);
    }
    return (float)(1 / sqrt((double)pf_v_sum(pf_v_add(s0, s1)) / (double)C + eps));
}

void PF_SIMD(pf_layer_norm_rows)(const pf_layer_norm_rows *k) {
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
        const float mean = mean_of(x, C);
        const pf_vf m = pf_v_set(mean), r = pf_v_set(inverse_std(x, mean, C, k->eps));
        for (int64_t c = 0; c < C; c += PF_VN) {
            pf_vf normed = pf_v_mul(pf_v_sub(pf_v_load_n(x + c, C - c), m), r);
            pf_v_store_n(
                y + c,
                pf_v_fma(normed, pf_v_load_n(k->w + c, C - c), pf_v_load_n(k->bias + c, C - c)),
                C - c);
        }
    }
}

/* dw += dy n, db += dy */
static inline void add_vectors(float *dw, float *db, const float *dy, const float *x, pf_vf m,
                               pf_vf r, int64_t C) {
    for (int64_t c = 0; dw != NULL && c < C; c += PF_VN) {
        pf_vf normed = pf_v_mul(pf_v_sub(pf_v_load_n(x + c, C - c), m), r);
        pf_v_store_n(dw + c,
                     pf_v_fma(pf_v_load_n(dy + c, C - c), normed, pf_v_load_n(dw + c, C - c)),
                     C - c);
    }
    for (int64_t c = 0; db != NULL && c < C; c += PF_VN) {
        pf_v_store_n(db + c, pf_v_add(pf_v_load_n(db + c, C - c), pf_v_load_n(dy + c, C - c)),
                     C - c);
    }
}

void PF_SIMD(pf_layer_norm_grad_rows)(const pf_layer_norm_grad_rows *k) {
    const int64_t C = k->C;
    for (int64_t i = 0; i < k->R; i++) {
        const float *x = k->x + i * C, *dy = k->dy + i * C;
        const float mean = mean_of(x, C);
        const pf_vf m = pf_v_set(mean), r = pf_v_set(inverse_std(x, mean, C, k->eps));
        add_vectors(k->dw, k->db, dy, x, m, r, C);
        if (k->dx == NULL) continue;
        pf_vf sum = pf_v_zero(), dot = pf_v_zero();
        for (int64_t c = 0; c < C; c += PF_VN) { /* g is 0 beyond the row */
            pf_vf g = pf_v_mul(pf_v_load_n(dy + c, C - c), pf_v_load_n(k->w + c, C - c));
            pf_vf normed = pf_v_mul(pf_v_sub(pf_v_load_n(x + c, C - c), m), r);
            sum = pf_v_add(sum, g);
            dot = pf_v_fma(g, normed, dot);
        }
        const pf_vf mean_g = pf_v_set(pf_v_sum(sum) / (float)C),
                    mean_gn = pf_v_set(pf_v_sum(dot) / (float)C);
        float *dx = k->dx + i * C;
        for (int64_t c = 0; c < C; c += PF_VN) {
            pf_vf g = pf_v_mul(pf_v_load_n(dy + c, C - c), pf_v_load_n(k->w + c, C - c));
            pf_vf normed = pf_v_mul(pf_v_sub(pf_v_load_n(x + c, C - c), m), r);
            pf_vf d = pf_v_mul(r, pf_v_fnma(normed, mean_gn, pf_v_sub(g, mean_g)));
            if (k->acc != NULL) d = pf_v_add(d, pf_v_load_n(k->acc + i * C + c, C - c));
            pf_v_store_n(dx + c, d, C - c);
        }
    }
}
