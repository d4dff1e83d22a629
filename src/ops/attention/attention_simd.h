/* attention_simd.h - the inside of attention's tiles (attention_tiles.h) in vectors (simd.h).
 *
 * Every sum runs over its terms one by one with one fused multiply-add each, in the order of the
 * rows, whatever the shape of the register tile: that is what makes a row's bits independent of its
 * neighbours. */
#include "ops/attention/attention_tiles.h"

#include "ops/simd.h"

#include <math.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* --- product ---------------------------------------------------------------------------------- */

/* Rows and vectors of a register tile: 24 sums of 32 registers, or 12 of 16. */
enum { ROWS = PF_VN == 16 ? 8 : 4, VECS = 3 };

/* c (R, NV vectors), R and NV constants so that the sums stay in registers. */
ALWAYS_INLINE void tile(const int R, const int NV, int64_t k, const float *a, int64_t row,
                        int64_t step, const float *b, int64_t ldb, float *c, int64_t ld, bool add) {
    pf_vf sum[ROWS][VECS];
    for (int i = 0; i < R; i++) {
        for (int v = 0; v < NV; v++)
            sum[i][v] = add ? pf_v_load(c + i * ld + v * PF_VN) : pf_v_zero();
    }
    for (int64_t t = 0; t < k; t++) {
        pf_vf bv[VECS];
        for (int v = 0; v < NV; v++) bv[v] = pf_v_load(b + t * ldb + v * PF_VN);
        for (int i = 0; i < R; i++) {
            pf_vf ai = pf_v_set(a[i * row + t * step]);
            for (int v = 0; v < NV; v++) sum[i][v] = pf_v_fma(ai, bv[v], sum[i][v]);
        }
    }
    for (int i = 0; i < R; i++) {
        for (int v = 0; v < NV; v++) pf_v_store(c + i * ld + v * PF_VN, sum[i][v]);
    }
}

ALWAYS_INLINE void product_columns(const int NV, int64_t m, int64_t k, const float *a, int64_t row,
                                   int64_t step, const float *b, int64_t ldb, float *c, int64_t ld,
                                   bool add) {
    int64_t i = 0;
    for (; i + ROWS <= m; i += ROWS)
        tile(ROWS, NV, k, a + i * row, row, step, b, ldb, c + i * ld, ld, add);
    for (; i + ROWS / 2 <= m; i += ROWS / 2)
        tile(ROWS / 2, NV, k, a + i * row, row, step, b, ldb, c + i * ld, ld, add);
    for (; i < m; i++) tile(1, NV, k, a + i * row, row, step, b, ldb, c + i * ld, ld, add);
}

static void product(int64_t m, int64_t k, int64_t n, const float *a, int64_t row, int64_t step,
                    const float *b, int64_t ldb, float *c, int64_t ldc, bool add) {
    int64_t left = n / PF_VN;
    while (left > 0) { /* 4 = 2 + 2, as a tile of one vector wastes most */
        int nv = left == 4 ? 2 : left >= 3 ? 3 : (int)left;
        if (nv == 3)
            product_columns(3, m, k, a, row, step, b, ldb, c, ldc, add);
        else if (nv == 2)
            product_columns(2, m, k, a, row, step, b, ldb, c, ldc, add);
        else
            product_columns(1, m, k, a, row, step, b, ldb, c, ldc, add);
        b += nv * PF_VN;
        c += nv * PF_VN;
        left -= nv;
    }
}

/* --- transposes ------------------------------------------------------------------------------- */

static void pack(const float *const *rows, int L, int64_t D, float *dst) {
    for (int lane = 0; lane < L; lane += PF_VN) {
        for (int64_t d = 0; d < D; d += PF_VN) {
            pf_vf r[PF_VN];
            for (int i = 0; i < PF_VN; i++) r[i] = pf_v_load_n(rows[lane + i] + d, D - d);
            pf_v_transpose(r);
            for (int64_t i = 0; i < PF_VN && d + i < D; i++)
                pf_v_store(dst + (d + i) * L + lane, r[i]);
        }
    }
}

static void unpack(const float *src, const float *lane_scale, int L, int64_t D, float *const *rows,
                   int n, bool add) {
    for (int lane = 0; lane < n; lane += PF_VN) {
        pf_vf scale = lane_scale != NULL ? pf_v_load(lane_scale + lane) : pf_v_set(1.0f);
        for (int64_t d = 0; d < D; d += PF_VN) {
            pf_vf r[PF_VN];
            for (int64_t i = 0; i < PF_VN; i++) {
                r[i] =
                    d + i < D ? pf_v_mul(pf_v_load(src + (d + i) * L + lane), scale) : pf_v_zero();
            }
            pf_v_transpose(r);
            for (int i = 0; i < PF_VN && lane + i < n; i++) {
                float *to = rows[lane + i] + d;
                if (add) r[i] = pf_v_add(r[i], pf_v_load_n(to, D - d));
                pf_v_store_n(to, r[i], D - d);
            }
        }
    }
}

/* --- softmax ---------------------------------------------------------------------------------- */

static void keep(float *s, int L, const int32_t *number, int32_t lo, int32_t hi) {
    const pf_vf none = pf_v_set(-INFINITY);
    for (int lane = 0; lane < L; lane += PF_VN) {
        pf_vf a = pf_v_load(s + lane);
        a = pf_v_pick_lt(number + lane, lo, none, a);
        pf_v_store(s + lane, pf_v_pick_lt(number + lane, hi, a, none));
    }
}

static void cap(float *s, int64_t n, float in, float out) {
    const pf_vf a = pf_v_set(in), b = pf_v_set(out);
    for (int64_t i = 0; i < n; i += PF_VN)
        pf_v_store_n(s + i, pf_v_mul(b, pf_v_tanh(pf_v_mul(a, pf_v_load_n(s + i, n - i)))), n - i);
}

/* of a capped score; hidden keys (-inf) get 0 */
ALWAYS_INLINE pf_vf slope_of(pf_vf s, pf_vf in) {
    const pf_vf t = pf_v_max(pf_v_set(-1.0f), pf_v_mul(s, in));
    return pf_v_fnma(t, t, pf_v_set(1.0f));
}

static void add(float *s, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i += PF_VN)
        pf_v_store_n(s + i, pf_v_add(pf_v_load_n(s + i, n - i), pf_v_load_n(b + i, n - i)), n - i);
}

static void drop_lanes(float *p, int L, const uint8_t *bits, int bit, float scale) {
    const pf_vf by = pf_v_set(scale);
    for (int lane = 0; lane < L; lane += PF_VN)
        pf_v_store(p + lane, pf_v_keep_bytes(bits + lane, bit, pf_v_mul(pf_v_load(p + lane), by)));
}

static void drop_bits(float *p, int64_t n, uint64_t keep, float scale) {
    const pf_vf by = pf_v_set(scale);
    for (int64_t i = 0; i < n; i += PF_VN, keep >>= PF_VN)
        pf_v_store_n(p + i, pf_v_keep_bits((uint32_t)keep, pf_v_mul(pf_v_load_n(p + i, n - i), by)),
                     n - i);
}

static void max_rows(const float *s, int64_t n, int L, float *most) {
    for (int lane = 0; lane < L; lane += PF_VN) {
        pf_vf m = pf_v_load(most + lane);
        for (int64_t i = 0; i < n; i++) m = pf_v_max(m, pf_v_load(s + i * L + lane));
        pf_v_store(most + lane, m);
    }
}

static void exp_sum(float *s, int64_t n, int L, float scale, const float *shift, float *sum) {
    const pf_vf by = pf_v_set(scale);
    for (int lane = 0; lane < L; lane += PF_VN) {
        pf_vf total = pf_v_load(sum + lane), minus = pf_v_sub(pf_v_zero(), pf_v_load(shift + lane));
        for (int64_t i = 0; i < n; i++) {
            pf_vf p = pf_v_exp(pf_v_fma(pf_v_load(s + i * L + lane), by, minus));
            pf_v_store(s + i * L + lane, p);
            total = pf_v_add(total, p);
        }
        pf_v_store(sum + lane, total);
    }
}

static void finish(const float *most, const float *sum, int L, float *inverse, float *lse) {
    for (int lane = 0; lane < L; lane += PF_VN) {
        const pf_vf s = pf_v_load(sum + lane);
        pf_v_store(inverse + lane, pf_v_div(pf_v_set(1.0f), s));
        pf_v_store(lse + lane, pf_v_add(pf_v_load(most + lane), pf_v_log(s)));
    }
}

ALWAYS_INLINE void grad_lanes_of(const bool capped, const float *s, float *dp, int64_t n, int L,
                                 float scale, float in, const float *lse, const float *delta) {
    const pf_vf by = pf_v_set(scale), cap_in = pf_v_set(in);
    for (int lane = 0; lane < L; lane += PF_VN) {
        pf_vf minus = pf_v_sub(pf_v_zero(), pf_v_load(lse + lane)), del = pf_v_load(delta + lane);
        for (int64_t i = 0; i < n; i++) {
            const pf_vf score = pf_v_load(s + i * L + lane);
            pf_vf p = pf_v_exp(pf_v_fma(score, by, minus));
            pf_vf d = pf_v_sub(pf_v_load(dp + i * L + lane), del);
            if (capped) d = pf_v_mul(d, slope_of(score, cap_in));
            pf_v_store(dp + i * L + lane, pf_v_mul(pf_v_mul(p, by), d));
        }
    }
}

static void grad_lanes(const float *s, float *dp, int64_t n, int L, float scale, float in,
                       const float *lse, const float *delta) {
    if (in > 0)
        grad_lanes_of(true, s, dp, n, L, scale, in, lse, delta);
    else
        grad_lanes_of(false, s, dp, n, L, scale, in, lse, delta);
}

ALWAYS_INLINE void grad_rows_of(const bool capped, float *s, float *dp, int64_t n, int lanes, int L,
                                float scale, float in, const float *lse, const float *delta,
                                int64_t step) {
    const pf_vf by = pf_v_set(scale), cap_in = pf_v_set(in);
    for (int64_t i = 0; i < n; i++) {
        pf_vf minus = pf_v_set(-lse[i * step]), del = pf_v_set(delta[i * step]);
        for (int lane = 0; lane < lanes; lane += PF_VN) {
            float *si = s + i * L + lane, *di = dp + i * L + lane;
            const pf_vf score = pf_v_load(si);
            pf_vf p = pf_v_exp(pf_v_fma(score, by, minus));
            pf_vf d = pf_v_sub(pf_v_load(di), del);
            if (capped) d = pf_v_mul(d, slope_of(score, cap_in));
            pf_v_store(si, p);
            pf_v_store(di, pf_v_mul(pf_v_mul(p, by), d));
        }
    }
}

static void grad_rows(float *s, float *dp, int64_t n, int lanes, int L, float scale, float in,
                      const float *lse, const float *delta, int64_t step) {
    if (in > 0)
        grad_rows_of(true, s, dp, n, lanes, L, scale, in, lse, delta, step);
    else
        grad_rows_of(false, s, dp, n, lanes, L, scale, in, lse, delta, step);
}

static float dot(const float *a, const float *b, int64_t n) {
    pf_vf sum = pf_v_zero();
    for (int64_t i = 0; i < n; i += PF_VN)
        sum = pf_v_fma(pf_v_load_n(a + i, n - i), pf_v_load_n(b + i, n - i), sum);
    return pf_v_sum(sum);
}

/* --- few queries ------------------------------------------------------------------------------ */

/* PF_VN keys at a time are turned so that a key is a lane; each query then adds over d as `product`
 * does. */
ALWAYS_INLINE void few_scores_of(const int n_q, const float *q, int64_t D, const float *k,
                                 int64_t k_step, int64_t n, float *s, int64_t ld) {
    for (int64_t j = 0; j < n; j += PF_VN) {
        pf_vf sum[PF_ATT_FEW];
        for (int i = 0; i < n_q; i++) sum[i] = pf_v_zero();
        for (int64_t d = 0; d < D; d += PF_VN) {
            pf_vf r[PF_VN];
            for (int64_t i = 0; i < PF_VN; i++) {
                int64_t row = j + i < n ? j + i : n - 1;
                r[i] = pf_v_load_n(k + row * k_step + d, D - d);
            }
            pf_v_transpose(r);
            int64_t m = D - d < PF_VN ? D - d : PF_VN;
            for (int64_t t = 0; t < m; t++) {
                for (int i = 0; i < n_q; i++)
                    sum[i] = pf_v_fma(pf_v_set(q[i * D + d + t]), r[t], sum[i]);
            }
        }
        for (int i = 0; i < n_q; i++) pf_v_store_n(s + i * ld + j, sum[i], n - j);
    }
}

static void few_scores(const float *q, int n_q, int64_t D, const float *k, int64_t k_step,
                       int64_t n, float *s, int64_t ld) {
    for (; n_q >= 4; n_q -= 4, q += 4 * D, s += 4 * ld) few_scores_of(4, q, D, k, k_step, n, s, ld);
    if (n_q == 3)
        few_scores_of(3, q, D, k, k_step, n, s, ld);
    else if (n_q == 2)
        few_scores_of(2, q, D, k, k_step, n, s, ld);
    else if (n_q == 1)
        few_scores_of(1, q, D, k, k_step, n, s, ld);
}

static float few_exp(float *s, int64_t n, float scale, float *sum) {
    pf_vf most = pf_v_set(-INFINITY);
    int64_t j = 0;
    for (; j + PF_VN <= n; j += PF_VN) most = pf_v_max(most, pf_v_load(s + j));
    float m = pf_v_hmax(most);
    for (; j < n; j++) m = s[j] > m ? s[j] : m;
    m *= scale;
    const pf_vf by = pf_v_set(scale), minus = pf_v_set(-m);
    for (j = 0; j < n; j += PF_VN) {
        pf_v_store_n(s + j, pf_v_exp(pf_v_fma(pf_v_load_n(s + j, n - j), by, minus)), n - j);
    }
    float total = 0;
    for (j = 0; j < n; j++) total += s[j];
    *sum = total;
    return m;
}

ALWAYS_INLINE void few_values_of(const int n_q, const float *p, int64_t ld, const float *v,
                                 int64_t v_step, int64_t n, int64_t D, float *o) {
    enum { NV = PF_VN == 16 ? 4 : 2 };
    for (int64_t d = 0; d < D; d += NV * PF_VN) {
        pf_vf sum[PF_ATT_FEW][NV];
        for (int i = 0; i < n_q; i++) {
            for (int t = 0; t < NV; t++) {
                int64_t left = D - d - t * PF_VN;
                sum[i][t] = left > 0 ? pf_v_load_n(o + i * D + d + t * PF_VN, left) : pf_v_zero();
            }
        }
        for (int64_t j = 0; j < n; j++) {
            for (int t = 0; t < NV; t++) {
                int64_t left = D - d - t * PF_VN;
                if (left <= 0) break;
                pf_vf vj = pf_v_load_n(v + j * v_step + d + t * PF_VN, left);
                for (int i = 0; i < n_q; i++)
                    sum[i][t] = pf_v_fma(pf_v_set(p[i * ld + j]), vj, sum[i][t]);
            }
        }
        for (int i = 0; i < n_q; i++) {
            for (int t = 0; t < NV; t++) {
                int64_t left = D - d - t * PF_VN;
                if (left > 0) pf_v_store_n(o + i * D + d + t * PF_VN, sum[i][t], left);
            }
        }
    }
}

static void few_values(const float *p, int64_t ld, int n_q, const float *v, int64_t v_step,
                       int64_t n, int64_t D, float *o) {
    for (; n_q >= 3; n_q -= 3, p += 3 * ld, o += 3 * D) few_values_of(3, p, ld, v, v_step, n, D, o);
    if (n_q == 2)
        few_values_of(2, p, ld, v, v_step, n, D, o);
    else if (n_q == 1)
        few_values_of(1, p, ld, v, v_step, n, D, o);
}

const pf_attention_isa PF_SIMD(pf_attention_isa) = {
    .product = product,
    .pack = pack,
    .unpack = unpack,
    .keep = keep,
    .cap = cap,
    .add = add,
    .mask = PF_SIMD(pf_dropout_lanes),
    .drop_lanes = drop_lanes,
    .drop_bits = drop_bits,
    .max_rows = max_rows,
    .exp_sum = exp_sum,
    .finish = finish,
    .grad_lanes = grad_lanes,
    .grad_rows = grad_rows,
    .dot = dot,
    .few_scores = few_scores,
    .few_exp = few_exp,
    .few_values = few_values,
};
