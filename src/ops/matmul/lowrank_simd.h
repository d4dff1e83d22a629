/* lowrank_simd.h - the kernels of lowrank_kernels.h in the words of simd.h; compiled by
 * lowrank_avx2.c and lowrank_avx512.c. Tiles keep all sums in registers: ROWS x VECS in thin and
 * expand, ROWS x RANKS chains along the columns in dots, RANKS x VECS in outer. */
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"
#include "ops/simd.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__)
enum {
    THIN_ROWS = 8, /* with 3 vectors; 12 with 2 or 1 */
    THIN_MORE = 12,
    DOT_ROWS = 3,
    DOT_RANKS = 8,
    EXPAND_ROWS = 8,
    EXPAND_VECS = 3,
    OUTER_RANKS = 8,
    OUTER_VECS = 3
};

/* Lanes whose bit is set; bits begins at a whole vector. */
INLINE pf_vf keep(pf_vf v, const uint8_t *bits) {
    __mmask16 m;
    __builtin_memcpy(&m, bits, sizeof m);
    return _mm512_maskz_mov_ps(m, v);
}
#else
enum {
    THIN_ROWS = 4,
    THIN_MORE = 6,
    DOT_ROWS = 3,
    DOT_RANKS = 4,
    EXPAND_ROWS = 6,
    EXPAND_VECS = 2,
    OUTER_RANKS = 4,
    OUTER_VECS = 3
};

INLINE pf_vf keep(pf_vf v, const uint8_t *bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i m = _mm256_and_si256(_mm256_set1_epi32(*bits), lane);
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(m, lane)));
}
#endif

/* Asks for a line ahead of its use; the address need not be ours. */
INLINE void ask(const float *p) {
    __builtin_prefetch(p, 0, 2);
}

/* Several vectors side by side are always whole; a single one may be the end of a row. */
INLINE pf_vf load(const int vecs, const float *p, int64_t n) {
    return vecs > 1 ? pf_v_load(p) : pf_v_load_n(p, n);
}

/* --- thin -------------------------------------------------------------------------------- */

/* Terms [c0, c1); the first ones set s, the others add. */
INLINE void thin_tile(const int rows, const int vecs, const pf_skinny *k, int64_t i0, int64_t j0,
                      int64_t c0, int64_t c1) {
    pf_vf sum[THIN_MORE][3];
    const float *x = k->x + i0 * k->ldx, *p = k->a + c0 * k->lda + j0;
    /* rows i = 3q + m at at[q] + m * ldx: few pointers and one index fit the address modes */
    const float *at[THIN_MORE / 3 + 1];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) sum[i][v] = pf_v_zero();
        if (i % 3 == 0) at[i / 3] = x + i * k->ldx + c0;
    }
    for (int64_t c = c0; c < c1; c++, p += k->lda) {
        if (c % PF_VN == 0) { /* the next rows come from afar, and no stream is long */
            UNROLL
            for (int i = 0; i < rows; i++) ask(x + (rows + i) * k->ldx + c);
        }
        pf_vf w[3];
        UNROLL
        for (int v = 0; v < vecs; v++) w[v] = pf_v_load(p + v * PF_VN);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const pf_vf xi = pf_v_set(at[i / 3][i % 3 * k->ldx]);
            UNROLL
            for (int v = 0; v < vecs; v++) sum[i][v] = pf_v_fma(xi, w[v], sum[i][v]);
        }
        UNROLL
        for (int q = 0; 3 * q < rows; q++) {
            at[q]++;
            __asm__("" : "+r"(at[q])); /* keep them, rather than one pointer per row */
        }
    }
    const pf_vf scale = pf_v_set(k->scale);
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) {
            float *s = k->s + (i0 + i) * k->lds + j0 + v * PF_VN;
            pf_v_store(s, c0 == 0 ? pf_v_mul(scale, sum[i][v])
                                  : pf_v_fma(scale, sum[i][v], pf_v_load(s)));
        }
    }
}

INLINE void thin_vecs(const int rows, const pf_skinny *k, int64_t i, int64_t c0, int64_t c1) {
    int64_t j = 0;
    for (; rows <= THIN_ROWS && j + 3 * PF_VN <= k->R; j += 3 * PF_VN)
        thin_tile(rows, 3, k, i, j, c0, c1);
    for (; j + 2 * PF_VN <= k->R; j += 2 * PF_VN) thin_tile(rows, 2, k, i, j, c0, c1);
    if (j < k->R) thin_tile(rows, 1, k, i, j, c0, c1);
}

static void thin(const pf_skinny *k) {
    const bool more = k->R / PF_VN == 1 || k->R / PF_VN % 3 != 0; /* tiles of 1 or 2 vectors */
    for (int64_t c0 = 0; c0 < k->C; c0 += PF_LOWRANK_PANEL) {
        const int64_t c1 = pf_min_i64(k->C, c0 + PF_LOWRANK_PANEL);
        int64_t i = 0;
        for (; more && i + THIN_MORE <= k->M; i += THIN_MORE) thin_vecs(THIN_MORE, k, i, c0, c1);
        for (; i + THIN_ROWS <= k->M; i += THIN_ROWS) thin_vecs(THIN_ROWS, k, i, c0, c1);
        for (; i + 2 <= k->M; i += 2) thin_vecs(2, k, i, c0, c1);
        if (i < k->M) thin_vecs(1, k, i, c0, c1);
    }
}

static void drop(const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i++) {
        const float *x = k->x + i * k->ldx;
        float *y = k->y + i * k->ldy;
        for (int64_t c = 0; c < k->C; c += PF_VN) {
            ask(x + k->M * k->ldx + c); /* the rows of the next call */
            const pf_vf v = keep(pf_v_load_n(x + c, k->C - c), k->mask + i * k->ldmask + c / 8);
            pf_v_store_n(y + c, v, k->C - c);
        }
    }
}

static void turn(const pf_skinny *k) {
    for (int64_t j = 0; j < k->R; j += PF_VN) {
        for (int64_t c = 0; c < k->C; c += PF_VN) {
            pf_vf r[PF_VN];
            for (int i = 0; i < PF_VN; i++)
                r[i] =
                    j + i < k->R ? pf_v_load_n(k->a + (j + i) * k->lda + c, k->C - c) : pf_v_zero();
            pf_v_transpose(r);
            for (int64_t i = 0; i < PF_VN && c + i < k->C; i++)
                pf_v_store_n(k->y + (c + i) * k->ldy + j, r[i], k->R - j);
        }
    }
}

/* --- dots ---------------------------------------------------------------------------------- */

/* Rows and ranks beyond what there is are read as the first one and dropped. */
INLINE void dots_tile(const int rows, const int ranks, const bool masked, const pf_skinny *k,
                      int64_t i0, int64_t j0) {
    const float *x[DOT_ROWS], *a[DOT_RANKS];
    const uint8_t *mask[DOT_ROWS];
    pf_vf sum[DOT_ROWS][DOT_RANKS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        const int64_t row = i0 + i < k->M ? i0 + i : i0;
        x[i] = k->x + row * k->ldx;
        mask[i] = masked ? k->mask + row * k->ldmask : NULL;
    }
    UNROLL
    for (int j = 0; j < ranks; j++) a[j] = k->a + (j0 + j < k->R ? j0 + j : j0) * k->lda;
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < ranks; j++) sum[i][j] = pf_v_zero();
    }
    int64_t c = 0;
    for (; c + PF_VN <= k->C; c += PF_VN) {
        pf_vf v[DOT_ROWS];
        UNROLL
        for (int i = 0; i < rows; i++) {
            v[i] = pf_v_load(x[i] + c);
            if (masked) v[i] = keep(v[i], mask[i] + c / 8);
        }
        UNROLL
        for (int j = 0; j < ranks; j++) {
            const pf_vf w = pf_v_load(a[j] + c);
            UNROLL
            for (int i = 0; i < rows; i++) sum[i][j] = pf_v_fma(v[i], w, sum[i][j]);
        }
    }
    if (c < k->C) {
        const int left = (int)(k->C - c);
        UNROLL
        for (int i = 0; i < rows; i++) {
            pf_vf v = pf_v_load_first(x[i] + c, left);
            if (masked) v = keep(v, mask[i] + c / 8);
            UNROLL
            for (int j = 0; j < ranks; j++)
                sum[i][j] = pf_v_fma(v, pf_v_load_first(a[j] + c, left), sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < ranks; j++) {
            const float d = k->scale * pf_v_sum(sum[i][j]);
            if (i0 + i < k->M && j0 + j < k->R) k->s[(i0 + i) * k->lds + j0 + j] = d;
        }
    }
}

INLINE void dots_masked(const bool masked, const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i += DOT_ROWS) {
        const bool one = k->M - i == 1;
        for (int64_t j = 0; j < k->R;) {
            const bool wide = k->R - j > DOT_RANKS / 2;
            if (wide && one)
                dots_tile(1, DOT_RANKS, masked, k, i, j);
            else if (wide)
                dots_tile(DOT_ROWS, DOT_RANKS, masked, k, i, j);
            else if (one)
                dots_tile(1, DOT_RANKS / 2, masked, k, i, j);
            else
                dots_tile(DOT_ROWS, DOT_RANKS / 2, masked, k, i, j);
            j += wide ? DOT_RANKS : DOT_RANKS / 2;
        }
    }
}

static void dots(const pf_skinny *k) {
    if (k->mask != NULL)
        dots_masked(true, k);
    else
        dots_masked(false, k);
}

/* --- expand -------------------------------------------------------------------------------- */

INLINE void expand_tile(const int rows, const int vecs, const bool masked, const pf_skinny *k,
                        int64_t i0, int64_t c0) {
    pf_vf sum[EXPAND_ROWS][EXPAND_VECS];
    const float *s[EXPAND_ROWS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        s[i] = k->s + (i0 + i) * k->lds;
        UNROLL
        for (int v = 0; v < vecs; v++) {
            sum[i][v] = pf_v_zero();
            ask(k->y + (i0 + rows + i) * k->ldy + c0 + v * PF_VN);
        }
    }
    for (int64_t j = 0; j < k->R; j++) {
        const float *row = (k->a_rows != NULL ? k->a_rows[j] : k->a + j * k->lda) + c0;
        pf_vf a[EXPAND_VECS];
        UNROLL
        for (int v = 0; v < vecs; v++) a[v] = load(vecs, row + v * PF_VN, k->C - c0);
        UNROLL
        for (int i = 0; i < rows; i++) {
            const pf_vf w = pf_v_set(s[i][j]);
            UNROLL
            for (int v = 0; v < vecs; v++) sum[i][v] = pf_v_fma(w, a[v], sum[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vecs; v++) {
            const int64_t c = c0 + v * PF_VN;
            float *y = k->y + (i0 + i) * k->ldy + c;
            pf_vf d = sum[i][v];
            if (masked) d = keep(d, k->mask + (i0 + i) * k->ldmask + c / 8);
            if (k->accumulate) d = pf_v_add(load(vecs, y, k->C - c), d);
            pf_v_store_n(y, d, k->C - c);
        }
    }
}

/* Some rows at a time, from left to right: few streams of y, which mostly comes from afar, and A
 * from the second cache. */
INLINE void expand_rows(const int rows, const bool masked, const pf_skinny *k, int64_t i) {
    int64_t c = 0;
    for (; c + EXPAND_VECS * PF_VN <= k->C; c += EXPAND_VECS * PF_VN)
        expand_tile(rows, EXPAND_VECS, masked, k, i, c);
    for (; c < k->C; c += PF_VN) expand_tile(rows, 1, masked, k, i, c);
}

INLINE void expand_masked(const bool masked, const pf_skinny *k) {
    int64_t i = 0;
    for (; i + EXPAND_ROWS <= k->M; i += EXPAND_ROWS) expand_rows(EXPAND_ROWS, masked, k, i);
    for (; i < k->M; i++) expand_rows(1, masked, k, i);
}

static void expand(const pf_skinny *k) {
    if (k->mask != NULL)
        expand_masked(true, k);
    else
        expand_masked(false, k);
}

/* --- outer --------------------------------------------------------------------------------- */

INLINE void outer_tile(const int ranks, const int vecs, const bool masked, const pf_skinny *k,
                       int64_t i0, int64_t i1, int64_t j0, int64_t c0) {
    pf_vf sum[OUTER_RANKS][OUTER_VECS];
    UNROLL
    for (int j = 0; j < ranks; j++) {
        UNROLL
        for (int v = 0; v < vecs; v++) sum[j][v] = pf_v_zero();
    }
    for (int64_t i = i0; i < i1; i++) {
        const float *s = k->s + i * k->lds + j0;
        if (j0 == 0) {
            UNROLL
            for (int v = 0; v < vecs; v++) ask(k->x + (i + 32) * k->ldx + c0 + v * PF_VN);
        }
        pf_vf x[OUTER_VECS];
        UNROLL
        for (int v = 0; v < vecs; v++) {
            const int64_t c = c0 + v * PF_VN;
            x[v] = load(vecs, k->x + i * k->ldx + c, k->C - c);
            if (masked) x[v] = keep(x[v], k->mask + i * k->ldmask + c / 8);
        }
        UNROLL
        for (int j = 0; j < ranks; j++) {
            const pf_vf w = pf_v_set(s[j]);
            UNROLL
            for (int v = 0; v < vecs; v++) sum[j][v] = pf_v_fma(w, x[v], sum[j][v]);
        }
    }
    const pf_vf scale = pf_v_set(k->scale);
    UNROLL
    for (int j = 0; j < ranks; j++) {
        UNROLL
        for (int v = 0; v < vecs; v++) {
            const int64_t c = c0 + v * PF_VN, n = pf_min_i64(PF_VN, k->C - c);
            if (!k->by_column) {
                float *g = k->y + (j0 + j) * k->ldy + c;
                pf_v_store_n(g, pf_v_fma(scale, sum[j][v], pf_v_load_n(g, n)), n);
                continue;
            }
            float lane[PF_VN];
            pf_v_store(lane, pf_v_mul(scale, sum[j][v]));
            for (int64_t l = 0; l < n; l++) k->y[(c + l) * k->ldy + j0 + j] += lane[l];
        }
    }
}

INLINE void outer_columns(const int vecs, const bool masked, const pf_skinny *k, int64_t i0,
                          int64_t i1, int64_t c) {
    int64_t j = 0;
    for (; j + OUTER_RANKS <= k->R; j += OUTER_RANKS)
        outer_tile(OUTER_RANKS, vecs, masked, k, i0, i1, j, c);
    for (; j + 2 <= k->R; j += 2) outer_tile(2, vecs, masked, k, i0, i1, j, c);
    if (j < k->R) outer_tile(1, vecs, masked, k, i0, i1, j, c);
}

INLINE void outer_masked(const bool masked, const pf_skinny *k) {
    for (int64_t i0 = 0; i0 < k->M; i0 += PF_LOWRANK_BLOCK) {
        const int64_t i1 = pf_min_i64(k->M, i0 + PF_LOWRANK_BLOCK);
        int64_t c = 0;
        for (; c + OUTER_VECS * PF_VN <= k->C; c += OUTER_VECS * PF_VN)
            outer_columns(OUTER_VECS, masked, k, i0, i1, c);
        for (; c < k->C; c += PF_VN) outer_columns(1, masked, k, i0, i1, c);
    }
}

static void outer(const pf_skinny *k) {
    if (k->mask != NULL)
        outer_masked(true, k);
    else
        outer_masked(false, k);
}

const pf_lowrank_isa PF_SIMD(pf_lowrank) = {.gemm = &PF_SIMD(pf_gemm),
                                            .mask = PF_SIMD(pf_dropout_bits),
                                            .thin = thin,
                                            .drop = drop,
                                            .turn = turn,
                                            .dots = dots,
                                            .expand = expand,
                                            .outer = outer};
