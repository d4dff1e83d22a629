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

static void exp_scaled(float *z, int64_t n, float m, float c) {
    const pf_vf top = pf_v_set(m), factor = pf_v_set(c);
    for (int64_t i = 0; i < n; i += PF_VN) {
        const pf_vf p = pf_v_exp(pf_v_sub(pf_v_load_n(z + i, n - i), top));
        pf_v_store_n(z + i, pf_v_mul(factor, p), n - i);
    }
}

const pf_head_isa PF_SIMD(pf_head) = {
    .lowrank = &PF_SIMD(pf_lowrank), .max = max_of, .exp_sum = exp_sum, .exp_scaled = exp_scaled};
