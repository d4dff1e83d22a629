/* head_ce_simd.h - the passes over a tile of logits in the words of simd.h; compiled by
 * head_ce_avx2.c and head_ce_avx512.c. */
#include "ops/loss/head_ce_kernels.h"
#include "ops/simd.h"

static float max_of(const float *z, int64_t n) {
    float last = z[n - 1];
    pf_vf m = pf_v_set(last);
    int64_t i = 0;
    for (; i + PF_VN <= n; i += PF_VN) m = pf_v_max(m, pf_v_load(z + i));
    last = pf_v_hmax(m);
    for (; i < n; i++) last = z[i] > last ? z[i] : last;
    return last;
}

static void cap_logits(float *z, int64_t n, float cap) {
    const pf_vf by = pf_v_set(cap);
    for (int64_t i = 0; i < n; i += PF_VN) {
        const pf_vf t = pf_v_tanh(pf_v_div(pf_v_load_n(z + i, n - i), by));
        pf_v_store_n(z + i, pf_v_mul(by, t), n - i);
    }
}

static float exp_sum(float *z, int64_t n, float m) {
    const pf_vf top = pf_v_set(m);
    pf_vf sum = pf_v_zero();
    int64_t i = 0;
    for (; i + PF_VN <= n; i += PF_VN) {
        const pf_vf p = pf_v_exp(pf_v_sub(pf_v_load(z + i), top));
        pf_v_store(z + i, p);
        sum = pf_v_add(sum, p);
    }
    if (i < n) { /* lanes beyond the row must not count */
        const int left = (int)(n - i);
        pf_v_store_first(z + i, pf_v_exp(pf_v_sub(pf_v_load_first(z + i, left), top)), left);
        sum = pf_v_add(sum, pf_v_load_first(z + i, left));
    }
    return pf_v_sum(sum);
}

/* 1 - (z / cap)² */
static inline pf_vf slope_of(pf_vf z, pf_vf cap) {
    const pf_vf t = pf_v_div(z, cap);
    return pf_v_fnma(t, t, pf_v_set(1.0f));
}

static float exp_sum_capped(float *z, int64_t n, float m, float cap) {
    const pf_vf top = pf_v_set(m), by = pf_v_set(cap);
    pf_vf sum = pf_v_zero();
    for (int64_t i = 0; i < n; i += PF_VN) {
        float p[PF_VN];
        const pf_vf at = pf_v_load_n(z + i, n - i);
        pf_v_store(p, pf_v_exp(pf_v_sub(at, top)));
        const pf_vf counted = pf_v_load_n(p, n - i); /* lanes beyond the row must not count */
        sum = pf_v_add(sum, counted);
        pf_v_store_n(z + i, pf_v_mul(counted, slope_of(at, by)), n - i);
    }
    return pf_v_sum(sum);
}

static float exp_sum_any(float *z, int64_t n, float m, float cap) {
    return cap > 0 ? exp_sum_capped(z, n, m, cap) : exp_sum(z, n, m);
}

static void exp_scaled(float *z, int64_t n, float m, float c, float cap) {
    const pf_vf top = pf_v_set(m), factor = pf_v_set(c), by = pf_v_set(cap);
    for (int64_t i = 0; i < n; i += PF_VN) {
        const pf_vf at = pf_v_load_n(z + i, n - i);
        pf_vf p = pf_v_mul(factor, pf_v_exp(pf_v_sub(at, top)));
        if (cap > 0) p = pf_v_mul(p, slope_of(at, by));
        pf_v_store_n(z + i, p, n - i);
    }
}

const pf_head_isa PF_SIMD(pf_head) = {
    .lowrank = &PF_SIMD(pf_lowrank),
    .max = max_of,
    .cap = cap_logits,
    .exp_sum = exp_sum_any,
    .exp_scaled = exp_scaled,
};
