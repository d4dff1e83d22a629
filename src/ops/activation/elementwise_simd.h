/* elementwise_simd.h - elementwise.h's kernels, one vector at a time. */
#include "ops/activation/elementwise.h"

#include "ops/simd.h"

/* s(x) (1 + x (1 - s(x))), and s itself */
static inline pf_vf silu_slope(pf_vf x, pf_vf *s) {
    pf_vf one = pf_v_set(1.0f);
    *s = pf_v_sigmoid(x);
    return pf_v_mul(*s, pf_v_fma(x, pf_v_sub(one, *s), one));
}

void PF_SIMD(pf_add_elements)(const float *const *in, float *const *out, int64_t n) {
    int64_t i = 0;
    for (; i + PF_VN <= n; i += PF_VN) {
        pf_v_store(out[0] + i, pf_v_add(pf_v_load(in[0] + i), pf_v_load(in[1] + i)));
    }
    for (; i < n; i++) out[0][i] = in[0][i] + in[1][i];
}

void PF_SIMD(pf_mul_elements)(const float *const *in, float *const *out, int64_t n) {
    int64_t i = 0;
    for (; i + PF_VN <= n; i += PF_VN) {
        pf_v_store(out[0] + i, pf_v_mul(pf_v_load(in[0] + i), pf_v_load(in[1] + i)));
    }
    for (; i < n; i++) out[0][i] = in[0][i] * in[1][i];
}

void PF_SIMD(pf_silu_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        int64_t m = n - i;
        pf_vf x = pf_v_load_n(in[0] + i, m);
        pf_v_store_n(out[0] + i, pf_v_mul(x, pf_v_sigmoid(x)), m);
    }
}

void PF_SIMD(pf_silu_grad_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        int64_t m = n - i;
        pf_vf s, slope = silu_slope(pf_v_load_n(in[1] + i, m), &s);
        pf_v_store_n(out[0] + i, pf_v_mul(pf_v_load_n(in[0] + i, m), slope), m);
    }
}

void PF_SIMD(pf_swiglu_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        int64_t m = n - i;
        pf_vf gate = pf_v_load_n(in[0] + i, m), up = pf_v_load_n(in[1] + i, m);
        pf_v_store_n(out[0] + i, pf_v_mul(pf_v_mul(gate, pf_v_sigmoid(gate)), up), m);
    }
}

void PF_SIMD(pf_swiglu_grad_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        int64_t m = n - i;
        pf_vf dy = pf_v_load_n(in[0] + i, m), gate = pf_v_load_n(in[1] + i, m),
              up = pf_v_load_n(in[2] + i, m);
        pf_vf s, slope = silu_slope(gate, &s);
        pf_v_store_n(out[0] + i, pf_v_mul(pf_v_mul(dy, up), slope), m);
        pf_v_store_n(out[1] + i, pf_v_mul(dy, pf_v_mul(gate, s)), m);
    }
}
