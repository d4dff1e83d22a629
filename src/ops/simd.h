/* simd.h - one vector of floats, as wide as the file that includes this was compiled for.
 *
 * A fast kernel is written once in these words, in <op>_simd.h, and compiled twice: <op>_avx2.c (8
 * floats) and <op>_avx512.c (16) include it, and PF_SIMD(f) names the functions f_avx2 and
 * f_avx512. pf_v_load_n and pf_v_store_n touch at most the first n lanes (the others read as 0), so
 * that the tail of a row runs through the same instructions as its body and an element's bits do
 * not depend on where it stands.
 *
 * Float only: the double-precision build leaves these files out. */
#ifndef PF_OPS_SIMD_H
#define PF_OPS_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#if defined(__AVX512F__)

#define PF_SIMD(name) name##_avx512
enum { PF_VN = 16 }; /* lanes */
typedef __m512 pf_vf;

static inline pf_vf pf_v_zero(void) {
    return _mm512_setzero_ps();
}
static inline pf_vf pf_v_set(float a) {
    return _mm512_set1_ps(a);
}
static inline pf_vf pf_v_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void pf_v_store(float *p, pf_vf a) {
    _mm512_storeu_ps(p, a);
}
static inline __mmask16 pf_v_first(int n) {
    return (__mmask16)((1u << n) - 1u);
}
static inline pf_vf pf_v_load_first(const float *p, int n) {
    return _mm512_maskz_loadu_ps(pf_v_first(n), p);
}
static inline void pf_v_store_first(float *p, pf_vf a, int n) {
    _mm512_mask_storeu_ps(p, pf_v_first(n), a);
}
static inline pf_vf pf_v_add(pf_vf a, pf_vf b) {
    return _mm512_add_ps(a, b);
}
static inline pf_vf pf_v_sub(pf_vf a, pf_vf b) {
    return _mm512_sub_ps(a, b);
}
static inline pf_vf pf_v_mul(pf_vf a, pf_vf b) {
    return _mm512_mul_ps(a, b);
}
static inline pf_vf pf_v_div(pf_vf a, pf_vf b) {
    return _mm512_div_ps(a, b);
}
static inline pf_vf pf_v_sqrt(pf_vf a) {
    return _mm512_sqrt_ps(a);
}
static inline pf_vf pf_v_fma(pf_vf a, pf_vf b, pf_vf c) {
    return _mm512_fmadd_ps(a, b, c);
} /* a b + c */
static inline pf_vf pf_v_fnma(pf_vf a, pf_vf b, pf_vf c) {
    return _mm512_fnmadd_ps(a, b, c);
} /* c - a b */
/* Of two numbers, one of them NaN, these return b. */
static inline pf_vf pf_v_max(pf_vf a, pf_vf b) {
    return _mm512_max_ps(a, b);
}
static inline pf_vf pf_v_min(pf_vf a, pf_vf b) {
    return _mm512_min_ps(a, b);
}
static inline float pf_v_sum(pf_vf a) {
    return _mm512_reduce_add_ps(a);
}
static inline float pf_v_hmax(pf_vf a) {
    return _mm512_reduce_max_ps(a);
}
static inline pf_vf pf_v_round(pf_vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n for an n that holds whole numbers; subnormal results included */
static inline pf_vf pf_v_scale(pf_vf a, pf_vf n) {
    return _mm512_scalef_ps(a, n);
}
/* a where mask lane of i < k (32-bit integers), else b */
static inline pf_vf pf_v_pick_lt(const int32_t *i, int32_t k, pf_vf a, pf_vf b) {
    __mmask16 m = _mm512_cmplt_epi32_mask(_mm512_loadu_si512(i), _mm512_set1_epi32(k));
    return _mm512_mask_blend_ps(m, b, a);
}
/* a in the lanes whose bit is set - in `bits`, lane 0 the lowest, or bit `bit` of a byte per lane -
 * else 0 */
static inline pf_vf pf_v_keep_bits(uint32_t bits, pf_vf a) {
    return _mm512_maskz_mov_ps((__mmask16)bits, a);
}
static inline pf_vf pf_v_keep_bytes(const uint8_t *bytes, int bit, pf_vf a) {
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return _mm512_maskz_mov_ps(_mm_test_epi8_mask(b, _mm_set1_epi8((char)(1 << bit))), a);
}
/* x where |a| < limit, else y */
static inline pf_vf pf_v_pick_small(pf_vf a, float limit, pf_vf x, pf_vf y) {
    __mmask16 m = _mm512_cmp_ps_mask(_mm512_abs_ps(a), _mm512_set1_ps(limit), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(m, y, x);
}
/* a = m 2^e with m in [sqrt(1/2), sqrt(2)), for a positive normal a; returns m */
static inline pf_vf pf_v_split(pf_vf a, pf_vf *e) {
    const __m512i half = _mm512_set1_epi32(0x3f3504f3); /* sqrt(1/2) */
    const __m512i i = _mm512_sub_epi32(_mm512_castps_si512(a), half);
    *e = _mm512_cvtepi32_ps(_mm512_srai_epi32(i, 23));
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_and_si512(i, _mm512_set1_epi32(0x7fffff)), half));
}
/* A 16 x 16 matrix in registers: rows become columns. */
static inline void pf_v_transpose(pf_vf r[16]) {
    __m512 t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* u[i + c]: column c of each 128-bit lane, rows i .. i + 3 */
        u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) { /* then the lanes, as a 4 x 4 matrix */
        __m512 a = _mm512_shuffle_f32x4(u[c], u[c + 4], 0x88),
               b = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0x88);
        __m512 d = _mm512_shuffle_f32x4(u[c], u[c + 4], 0xdd),
               e = _mm512_shuffle_f32x4(u[c + 8], u[c + 12], 0xdd);
        r[c] = _mm512_shuffle_f32x4(a, b, 0x88);
        r[c + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        r[c + 4] = _mm512_shuffle_f32x4(d, e, 0x88);
        r[c + 12] = _mm512_shuffle_f32x4(d, e, 0xdd);
    }
}

#elif defined(__AVX2__)

#define PF_SIMD(name) name##_avx2
enum { PF_VN = 8 };
typedef __m256 pf_vf;

static inline pf_vf pf_v_zero(void) {
    return _mm256_setzero_ps();
}
static inline pf_vf pf_v_set(float a) {
    return _mm256_set1_ps(a);
}
static inline pf_vf pf_v_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void pf_v_store(float *p, pf_vf a) {
    _mm256_storeu_ps(p, a);
}
static inline __m256i pf_v_first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline pf_vf pf_v_load_first(const float *p, int n) {
    return _mm256_maskload_ps(p, pf_v_first(n));
}
static inline void pf_v_store_first(float *p, pf_vf a, int n) {
    _mm256_maskstore_ps(p, pf_v_first(n), a);
}
static inline pf_vf pf_v_add(pf_vf a, pf_vf b) {
    return _mm256_add_ps(a, b);
}
static inline pf_vf pf_v_sub(pf_vf a, pf_vf b) {
    return _mm256_sub_ps(a, b);
}
static inline pf_vf pf_v_mul(pf_vf a, pf_vf b) {
    return _mm256_mul_ps(a, b);
}
static inline pf_vf pf_v_div(pf_vf a, pf_vf b) {
    return _mm256_div_ps(a, b);
}
static inline pf_vf pf_v_sqrt(pf_vf a) {
    return _mm256_sqrt_ps(a);
}
static inline pf_vf pf_v_fma(pf_vf a, pf_vf b, pf_vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline pf_vf pf_v_fnma(pf_vf a, pf_vf b, pf_vf c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline pf_vf pf_v_max(pf_vf a, pf_vf b) {
    return _mm256_max_ps(a, b);
}
static inline pf_vf pf_v_min(pf_vf a, pf_vf b) {
    return _mm256_min_ps(a, b);
}
static inline float pf_v_sum(pf_vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float pf_v_hmax(pf_vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline pf_vf pf_v_round(pf_vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* In two steps, as 2^n itself may be out of range: exact unless the result is subnormal. */
static inline pf_vf pf_v_scale(pf_vf a, pf_vf n) {
    __m256i k = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(k, 1),
            bias = _mm256_set1_epi32(127);
    __m256i lo = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i hi = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(lo)), _mm256_castsi256_ps(hi));
}
static inline pf_vf pf_v_pick_lt(const int32_t *i, int32_t k, pf_vf a, pf_vf b) {
    __m256i m = _mm256_cmpgt_epi32(_mm256_set1_epi32(k),
                                   _mm256_loadu_si256((const __m256i *)(const void *)i));
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m));
}
static inline pf_vf pf_v_keep_if(__m256i flags, __m256i bit, pf_vf a) {
    const __m256i keep = _mm256_cmpeq_epi32(_mm256_and_si256(flags, bit), bit);
    return _mm256_and_ps(_mm256_castsi256_ps(keep), a);
}
static inline pf_vf pf_v_keep_bits(uint32_t bits, pf_vf a) {
    return pf_v_keep_if(_mm256_set1_epi32((int)bits),
                        _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), a);
}
static inline pf_vf pf_v_keep_bytes(const uint8_t *bytes, int bit, pf_vf a) {
    const __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)bytes);
    return pf_v_keep_if(_mm256_cvtepu8_epi32(b), _mm256_set1_epi32(1 << bit), a);
}
static inline pf_vf pf_v_pick_small(pf_vf a, float limit, pf_vf x, pf_vf y) {
    __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(size, _mm256_set1_ps(limit), _CMP_LT_OQ));
}
static inline pf_vf pf_v_split(pf_vf a, pf_vf *e) {
    const __m256i half = _mm256_set1_epi32(0x3f3504f3);
    const __m256i i = _mm256_sub_epi32(_mm256_castps_si256(a), half);
    *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(i, 23));
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_and_si256(i, _mm256_set1_epi32(0x7fffff)), half));
}
/* An 8 x 8 matrix in registers: rows become columns. */
static inline void pf_v_transpose(pf_vf r[8]) {
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int c = 0; c < 4; c++) {
        r[c] = _mm256_permute2f128_ps(u[c], u[c + 4], 0x20);
        r[c + 4] = _mm256_permute2f128_ps(u[c], u[c + 4], 0x31);
    }
}

#else
#error                                                                                             \
    "simd.h is for files named _avx2.c and _avx512.c, which the build compiles for those instruction sets"
#endif

/* Lanes 0..n-1; the rest reads as 0. Masked stores are slow on some processors, so the body of a
 * row avoids them. */
static inline pf_vf pf_v_load_n(const float *p, int64_t n) {
    return n >= PF_VN ? pf_v_load(p) : pf_v_load_first(p, (int)n);
}
static inline void pf_v_store_n(float *p, pf_vf a, int64_t n) {
    if (n >= PF_VN)
        pf_v_store(p, a);
    else
        pf_v_store_first(p, a, (int)n);
}

/* e^a within 2 ulp: a = n ln 2 + r, |r| <= ln 2 / 2, then Cephes' polynomial for e^r (Moshier,
 * expf). -inf gives 0, overflow inf; NaN stays NaN. */
static inline pf_vf pf_v_exp(pf_vf a) {
    a = pf_v_max(pf_v_set(-104.0f), a); /* e^-104 rounds to 0 */
    a = pf_v_min(pf_v_set(89.0f), a);   /* e^89 to infinity */
    pf_vf n = pf_v_round(pf_v_mul(a, pf_v_set(1.44269504088896341f)));
    pf_vf r = pf_v_fnma(n, pf_v_set(0.693359375f), a);
    r = pf_v_fnma(n, pf_v_set(-2.12194440e-4f), r);
    pf_vf p = pf_v_set(1.9875691500e-4f);
    p = pf_v_fma(p, r, pf_v_set(1.3981999507e-3f));
    p = pf_v_fma(p, r, pf_v_set(8.3334519073e-3f));
    p = pf_v_fma(p, r, pf_v_set(4.1665795894e-2f));
    p = pf_v_fma(p, r, pf_v_set(1.6666665459e-1f));
    p = pf_v_fma(p, r, pf_v_set(5.0000001201e-1f));
    p = pf_v_add(pf_v_fma(p, pf_v_mul(r, r), r), pf_v_set(1.0f));
    return pf_v_scale(p, n);
}

/* ln a within 2 ulp for a positive normal a: a = m 2^e, then Cephes' polynomial (Moshier, logf). */
static inline pf_vf pf_v_log(pf_vf a) {
    pf_vf e, f = pf_v_sub(pf_v_split(a, &e), pf_v_set(1.0f)), f2 = pf_v_mul(f, f);
    pf_vf p = pf_v_set(7.0376836292e-2f);
    p = pf_v_fma(p, f, pf_v_set(-1.1514610310e-1f));
    p = pf_v_fma(p, f, pf_v_set(1.1676998740e-1f));
    p = pf_v_fma(p, f, pf_v_set(-1.2420140846e-1f));
    p = pf_v_fma(p, f, pf_v_set(1.4249322787e-1f));
    p = pf_v_fma(p, f, pf_v_set(-1.6668057665e-1f));
    p = pf_v_fma(p, f, pf_v_set(2.0000714765e-1f));
    p = pf_v_fma(p, f, pf_v_set(-2.4999993993e-1f));
    p = pf_v_fma(p, f, pf_v_set(3.3333331174e-1f));
    p = pf_v_mul(pf_v_mul(p, f), f2);
    p = pf_v_fma(e, pf_v_set(-2.12194440e-4f), p);
    p = pf_v_fnma(f2, pf_v_set(0.5f), p);
    return pf_v_fma(e, pf_v_set(0.693359375f), pf_v_add(f, p));
}

/* tanh a within 3 ulp: Cephes' polynomial (Moshier, tanhf) near 0, 1 - 2 / (e^2a + 1) elsewhere */
static inline pf_vf pf_v_tanh(pf_vf a) {
    const pf_vf one = pf_v_set(1.0f), two = pf_v_set(2.0f), z = pf_v_mul(a, a);
    pf_vf p = pf_v_set(-5.70498872745e-3f);
    p = pf_v_fma(p, z, pf_v_set(2.06390887954e-2f));
    p = pf_v_fma(p, z, pf_v_set(-5.37397155531e-2f));
    p = pf_v_fma(p, z, pf_v_set(1.33314422036e-1f));
    p = pf_v_fma(p, z, pf_v_set(-3.33332819422e-1f));
    p = pf_v_fma(pf_v_mul(p, z), a, a);
    const pf_vf far = pf_v_sub(one, pf_v_div(two, pf_v_add(pf_v_exp(pf_v_mul(two, a)), one)));
    return pf_v_pick_small(a, 0.625f, p, far);
}

/* 1 / (1 + e^-a) */
static inline pf_vf pf_v_sigmoid(pf_vf a) {
    pf_vf one = pf_v_set(1.0f);
    return pf_v_div(one, pf_v_add(one, pf_v_exp(pf_v_sub(pf_v_zero(), a))));
}

#endif
