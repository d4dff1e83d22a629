/* gemm_plain.c - the tile of gemm.h in plain C: the reference, and what runs where there is
 * neither AVX2 nor AVX-512. */
#include "ops/matmul/gemm.h"

enum { MR = 4, NR = 8 };

/* Four sums side by side: what compilers turn into one vector in a register. */
static inline void add4(pf_real *sum, pf_real a, const pf_real *b) {
    sum[0] += a * b[0];
    sum[1] += a * b[1];
    sum[2] += a * b[2];
    sum[3] += a * b[3];
}

/* Rows beyond t->m are read as the first one; nobody looks at their sums. */
static void add_terms(const pf_gemm_tile *t, pf_real acc[MR][NR]) {
    const int64_t row = t->a_by_k ? 1 : t->lda, step = t->a_by_k ? t->lda : 1;
    const pf_real *b = t->b, *a0 = t->a, *a1 = t->m > 1 ? a0 + row : a0;
    const pf_real *a2 = t->m > 2 ? a0 + 2 * row : a0, *a3 = t->m > 3 ? a0 + 3 * row : a0;
    pf_real c0[4] = {0}, c1[4] = {0}, c2[4] = {0}, c3[4] = {0}; /* columns 0 .. 3 */
    pf_real d0[4] = {0}, d1[4] = {0}, d2[4] = {0}, d3[4] = {0}; /* columns 4 .. 7 */
    for (int64_t k = 0; k < t->kc; k++, b += t->ldb) {
        add4(c0, a0[k * step], b);
        add4(d0, a0[k * step], b + 4);
        add4(c1, a1[k * step], b);
        add4(d1, a1[k * step], b + 4);
        add4(c2, a2[k * step], b);
        add4(d2, a2[k * step], b + 4);
        add4(c3, a3[k * step], b);
        add4(d3, a3[k * step], b + 4);
    }
    for (int j = 0; j < 4; j++) {
        acc[0][j] = c0[j], acc[0][j + 4] = d0[j];
        acc[1][j] = c1[j], acc[1][j + 4] = d1[j];
        acc[2][j] = c2[j], acc[2][j + 4] = d2[j];
        acc[3][j] = c3[j], acc[3][j + 4] = d3[j];
    }
}

static void add_terms_edge(const pf_gemm_tile *t, pf_real acc[MR][NR]) {
    const int64_t row = t->a_by_k ? 1 : t->lda, step = t->a_by_k ? t->lda : 1;
    for (int64_t k = 0; k < t->kc; k++) {
        for (int i = 0; i < t->m; i++) {
            const pf_real v = t->a[i * row + k * step];
            for (int j = 0; j < t->n; j++) acc[i][j] += v * t->b[k * t->ldb + j];
        }
    }
}

static void tile(const pf_gemm_tile *t) {
    pf_real acc[MR][NR] = {{0}};
    if (!t->b_padded && t->n < NR)
        add_terms_edge(t, acc);
    else
        add_terms(t, acc);
    for (int i = 0; i < t->m; i++) {
        pf_real *c = t->c + i * t->ldc;
        for (int j = 0; j < t->n; j++) {
            pf_real v = t->alpha * acc[i][j];
            if (!t->first) v = c[j] + v;
            c[j] = t->bias != NULL ? v + t->bias[j] : v;
        }
    }
}

/* In the double build B is always double here: read_tile has widened what is not. */
static pf_real number_at(pf_dtype t, const void *row, int64_t k) {
#ifdef PF_DOUBLE
    (void)t;
    return ((const pf_real *)row)[k];
#else
    if (t == PF_DTYPE_F32) return ((const float *)row)[k];
    const uint16_t h = ((const uint16_t *)row)[k];
    return t == PF_DTYPE_BF16 ? pf_bf16_to_f32(h) : pf_f16_to_f32(h);
#endif
}

static void pack_rows(pf_dtype t, const void *const *rows, int n, int64_t kc, pf_real *dst) {
    for (int j = 0; j < NR; j++) {
        for (int64_t k = 0; k < kc; k++) dst[k * NR + j] = j < n ? number_at(t, rows[j], k) : 0;
    }
}

static void spread_row(pf_dtype t, const void *src, int64_t n, pf_real *dst, int64_t stride) {
    for (int64_t p = 0; p < n; p += NR, dst += stride) {
        for (int64_t j = 0; j < NR; j++) dst[j] = p + j < n ? number_at(t, src, p + j) : 0;
    }
}

const pf_gemm_isa pf_gemm_plain = {.name = "plain",
                                   .level = PF_ISA_SCALAR,
                                   .mr = MR,
                                   .nr = NR,
                                   .tile = tile,
                                   .pack_rows = pack_rows,
                                   .spread_row = spread_row};
