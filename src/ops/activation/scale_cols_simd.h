/* scale_cols_simd.h - scale_cols.h's kernels, one vector at a time. */
#include "ops/activation/scale_cols.h"

#include "ops/simd.h"

void PF_SIMD(pf_scale_cols)(const pf_scale_cols_call *c) {
    for (int64_t i = 0; i < c->rows; i++) {
        const float *x = c->x + i * c->stride;
        float *y = c->y + i * c->stride;
        int64_t k = 0;
        for (; k + PF_VN <= c->n; k += PF_VN) {
            pf_v_store(y + k, pf_v_mul(pf_v_load(x + k), pf_v_load(c->v + k)));
        }
        for (; k < c->n; k++) y[k] = x[k] * c->v[k];
    }
}

enum { VECTORS = PF_SCALE_STRIP / PF_VN };

/* A strip of full width: its sums stay in registers. */
static void full_strip(const pf_scale_cols_call *c) {
    pf_vf sum[VECTORS], v[VECTORS];
    for (int k = 0; k < VECTORS; k++) sum[k] = pf_v_zero(), v[k] = pf_v_load(c->v + k * PF_VN);
    for (int64_t i = 0; i < c->rows; i++) {
        for (int k = 0; k < VECTORS; k++) {
            const int64_t at = i * c->stride + k * PF_VN;
            const pf_vf dy = pf_v_load(c->x + at);
            if (c->from != NULL) sum[k] = pf_v_fma(dy, pf_v_load(c->from + at), sum[k]);
            if (c->y != NULL) pf_v_store(c->y + at, pf_v_mul(dy, v[k]));
        }
    }
    for (int k = 0; c->from != NULL && k < VECTORS; k++) {
        pf_v_store(c->dv + k * PF_VN, pf_v_add(pf_v_load(c->dv + k * PF_VN), sum[k]));
    }
}

void PF_SIMD(pf_scale_cols_grad)(const pf_scale_cols_call *c) {
    if (c->n == PF_SCALE_STRIP) {
        full_strip(c);
        return;
    }
    for (int64_t k = 0; k < c->n; k += PF_VN) {
        const int64_t m = c->n - k;
        const pf_vf v = pf_v_load_n(c->v + k, m);
        pf_vf sum = pf_v_zero();
        for (int64_t i = 0; i < c->rows; i++) {
            const int64_t at = i * c->stride + k;
            const pf_vf dy = pf_v_load_n(c->x + at, m);
            if (c->from != NULL) sum = pf_v_fma(dy, pf_v_load_n(c->from + at, m), sum);
            if (c->y != NULL) pf_v_store_n(c->y + at, pf_v_mul(dy, v), m);
        }
        if (c->from != NULL) pf_v_store_n(c->dv + k, pf_v_add(pf_v_load_n(c->dv + k, m), sum), m);
    }
}
