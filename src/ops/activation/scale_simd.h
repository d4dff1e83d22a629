/* scale_simd.h - scale_kernels.h's kernels, one vector at a time. */
#include "ops/activation/scale_kernels.h"

#include "ops/simd.h"

void PF_SIMD(pf_scale_numbers)(const float *const *in, float *out, int64_t n, float by) {
    const pf_vf a = pf_v_set(by);
    for (int64_t i = 0; i < n; i += PF_VN)
        pf_v_store_n(out + i, pf_v_mul(a, pf_v_load_n(in[0] + i, n - i)), n - i);
}

void PF_SIMD(pf_softcap_numbers)(const float *const *in, float *out, int64_t n, float by) {
    const pf_vf c = pf_v_set(by);
    for (int64_t i = 0; i < n; i += PF_VN) {
        const pf_vf t = pf_v_tanh(pf_v_div(pf_v_load_n(in[0] + i, n - i), c));
        pf_v_store_n(out + i, pf_v_mul(c, t), n - i);
    }
}

void PF_SIMD(pf_softcap_grad_numbers)(const float *const *in, float *out, int64_t n, float by) {
    const pf_vf c = pf_v_set(by), one = pf_v_set(1.0f);
    for (int64_t i = 0; i < n; i += PF_VN) {
        const pf_vf t = pf_v_div(pf_v_load_n(in[1] + i, n - i), c);
        const pf_vf slope = pf_v_fnma(t, t, one);
        pf_v_store_n(out + i, pf_v_mul(pf_v_load_n(in[0] + i, n - i), slope), n - i);
    }
}
