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

/* Φ(x) = (1 + erf(x / sqrt(2))) / 2. In the middle erf(t) = t p(t²) / q(t²), a rational function
 * that is within 1e-7; it has reached ±1 in floats at |t| = 4. */
static inline pf_vf normal_cdf(pf_vf x) {
    pf_vf t = pf_v_mul(x, pf_v_set(0.70710678f));
    t = pf_v_max(pf_v_set(-4.0f), pf_v_min(pf_v_set(4.0f), t));
    pf_vf u = pf_v_mul(t, t);
    pf_vf p = pf_v_set(-2.72614225801306e-10f);
    p = pf_v_fma(p, u, pf_v_set(2.77068142495902e-08f));
    p = pf_v_fma(p, u, pf_v_set(-2.10102402082508e-06f));
    p = pf_v_fma(p, u, pf_v_set(-5.69250639462346e-05f));
    p = pf_v_fma(p, u, pf_v_set(-7.34990630326855e-04f));
    p = pf_v_fma(p, u, pf_v_set(-2.95459980854025e-03f));
    p = pf_v_fma(p, u, pf_v_set(-1.60960333262415e-02f));
    pf_vf q = pf_v_set(-1.45660718464996e-05f);
    q = pf_v_fma(q, u, pf_v_set(-2.13374055278905e-04f));
    q = pf_v_fma(q, u, pf_v_set(-1.68282697438203e-03f));
    q = pf_v_fma(q, u, pf_v_set(-7.37332916720468e-03f));
    q = pf_v_fma(q, u, pf_v_set(-1.42647390514189e-02f));
    pf_vf half = pf_v_set(0.5f);
    return pf_v_fma(pf_v_div(pf_v_mul(t, p), q), half, half);
}

void PF_SIMD(pf_gelu_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf x = pf_v_load_n(in[0] + i, n - i);
        pf_v_store_n(out[0] + i, pf_v_mul(x, normal_cdf(x)), n - i);
    }
}

void PF_SIMD(pf_gelu_grad_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf dy = pf_v_load_n(in[0] + i, n - i), x = pf_v_load_n(in[1] + i, n - i);
        pf_vf phi =
            pf_v_mul(pf_v_set(0.3989422804f), pf_v_exp(pf_v_mul(pf_v_mul(x, x), pf_v_set(-0.5f))));
        pf_v_store_n(out[0] + i, pf_v_mul(dy, pf_v_fma(x, phi, normal_cdf(x))), n - i);
    }
}

/* s(2u), 2u = x (a + b x²) */
static inline pf_vf gelu_gate(pf_vf x, pf_vf x2) {
    pf_vf u = pf_v_fma(x2, pf_v_set(0.0713548163f), pf_v_set(1.5957691216f));
    return pf_v_sigmoid(pf_v_mul(x, u));
}

void PF_SIMD(pf_gelu_tanh_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf x = pf_v_load_n(in[0] + i, n - i);
        pf_v_store_n(out[0] + i, pf_v_mul(x, gelu_gate(x, pf_v_mul(x, x))), n - i);
    }
}

void PF_SIMD(pf_gelu_tanh_grad_elements)(const float *const *in, float *const *out, int64_t n) {
    const pf_vf one = pf_v_set(1.0f);
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf dy = pf_v_load_n(in[0] + i, n - i), x = pf_v_load_n(in[1] + i, n - i);
        pf_vf x2 = pf_v_mul(x, x), s = gelu_gate(x, x2);
        pf_vf du = pf_v_fma(x2, pf_v_set(0.2140644488f), pf_v_set(1.5957691216f));
        pf_vf slope = pf_v_fma(pf_v_mul(pf_v_mul(x, s), pf_v_sub(one, s)), du, s);
        pf_v_store_n(out[0] + i, pf_v_mul(dy, slope), n - i);
    }
}

void PF_SIMD(pf_relu_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf x = pf_v_load_n(in[0] + i, n - i);
        pf_v_store_n(out[0] + i, pf_v_max(x, pf_v_zero()), n - i);
    }
}

void PF_SIMD(pf_relu_grad_elements)(const float *const *in, float *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[1][i] > 0 ? in[0][i] : 0;
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
