/* gemm_avx512.c - the 14 x 32 tile of gemm.h for AVX-512, its packing, and the streaming path of
 * generation.
 *
 * 28 accumulators, two registers of B, one broadcast of A: 28 fused multiply-adds per 16 loads, so
 * that the two FMA pipes are the limit. Edge tiles run the same code with fewer rows or masked
 * columns: the arithmetic of an element does not depend on where it stands. */
#include "ops/matmul/gemm.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { MR = 14, NR = 32 };

INLINE __mmask16 mask_of(int64_t n) {
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1u);
}

/* --- tile
 * -----------------------------------------------------------------------------------------------------------
 */

INLINE void tile_rows(const int m, const bool a_by_k, const bool masked_b, const pf_gemm_tile *t) {
    __m512 acc[MR][2];
    const __mmask16 m0 = mask_of(t->n), m1 = mask_of(t->n - 16);
    const int64_t lda = t->lda, ldb = t->ldb, ldc = t->ldc, kc = t->kc;
    const float *a = t->a, *b = t->b;
    float *c = t->c;
    const char *ahead = t->ahead, *run_end = ahead + t->ahead_left;
    const int64_t run = t->ahead_run, gap = t->ahead_step - run;
    UNROLL
    for (int i = 0; i < m; i++) {
        acc[i][0] = _mm512_setzero_ps();
        acc[i][1] = _mm512_setzero_ps();
        _mm_prefetch((const char *)(c + i * ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(c + i * ldc + t->n - 1), _MM_HINT_T0);
    }
    /* rows i = 3j + r at p[j] + r * lda: five pointers and one index fit the address modes */
    const float *p[5];
    UNROLL
    for (int j = 0; j < 5; j++) p[j] = a + 3 * (3 * j < m ? j : 0) * lda;
    for (int64_t k = 0; k < kc; k++) {
        const __m512 b0 = masked_b ? _mm512_maskz_loadu_ps(m0, b) : _mm512_loadu_ps(b);
        const __m512 b1 = masked_b ? _mm512_maskz_loadu_ps(m1, b + 16) : _mm512_loadu_ps(b + 16);
        UNROLL
        for (int i = 0; i < m; i++) {
            const __m512 v = _mm512_set1_ps(a_by_k ? a[i] : p[i / 3][i % 3 * lda]);
            acc[i][0] = _mm512_fmadd_ps(v, b0, acc[i][0]);
            acc[i][1] = _mm512_fmadd_ps(v, b1, acc[i][1]);
        }
        _mm_prefetch(ahead, _MM_HINT_T1);
        ahead += 64;
        if (ahead >= run_end) {
            ahead = run_end + gap;
            run_end = ahead + run;
        }
        b += ldb;
        if (a_by_k) {
            a += lda;
        } else {
            UNROLL
            for (int j = 0; j < 5; j++) {
                if (3 * j >= m) continue;
                p[j]++;
                __asm__("" : "+r"(p[j])); /* keep them, rather than one pointer per row */
            }
        }
    }
    const __m512 alpha = _mm512_set1_ps(t->alpha);
    UNROLL
    for (int i = 0; i < m; i++) {
        float *ci = c + i * ldc;
        __m512 v0, v1;
        if (t->first) {
            v0 = _mm512_mul_ps(alpha, acc[i][0]);
            v1 = _mm512_mul_ps(alpha, acc[i][1]);
        } else {
            v0 = _mm512_fmadd_ps(alpha, acc[i][0], _mm512_maskz_loadu_ps(m0, ci));
            v1 = _mm512_fmadd_ps(alpha, acc[i][1], _mm512_maskz_loadu_ps(m1, ci + 16));
        }
        if (t->bias != NULL) {
            v0 = _mm512_add_ps(v0, _mm512_maskz_loadu_ps(m0, t->bias));
            v1 = _mm512_add_ps(v1, _mm512_maskz_loadu_ps(m1, t->bias + 16));
        }
        _mm512_mask_storeu_ps(ci, m0, v0);
        _mm512_mask_storeu_ps(ci + 16, m1, v1);
    }
}

#define TILE_FN(m)                                                                                 \
    static void tile_##m(const pf_gemm_tile *t) {                                                  \
        if (!t->b_padded && t->n < NR) {                                                           \
            if (t->a_by_k)                                                                         \
                tile_rows(m, true, true, t);                                                       \
            else                                                                                   \
                tile_rows(m, false, true, t);                                                      \
        } else if (t->a_by_k)                                                                      \
            tile_rows(m, true, false, t);                                                          \
        else                                                                                       \
            tile_rows(m, false, false, t);                                                         \
    }
TILE_FN(1)
TILE_FN(2)
TILE_FN(3)
TILE_FN(4)
TILE_FN(5)
TILE_FN(6)
TILE_FN(7)
TILE_FN(8)
TILE_FN(9)
TILE_FN(10)
TILE_FN(11)
TILE_FN(12)
TILE_FN(13)
TILE_FN(14)

static void tile(const pf_gemm_tile *t) {
    static void (*const by_rows[MR + 1])(const pf_gemm_tile *) = {
        NULL,   tile_1, tile_2,  tile_3,  tile_4,  tile_5,  tile_6, tile_7,
        tile_8, tile_9, tile_10, tile_11, tile_12, tile_13, tile_14};
    by_rows[t->m](t);
}

/* --- transposing 16 rows ------------------------------------------------------------------- */

INLINE __m512 low_pair(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}
INLINE __m512 high_pair(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

/* 16 rows of 16 lanes become 16 columns. */
INLINE void turn16(__m512 r[16]) {
    __m512 t[16];
    UNROLL
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) { /* r[i + c], lane L: column 4L + c of rows i .. i+3 */
        r[i] = low_pair(t[i], t[i + 2]);
        r[i + 1] = high_pair(t[i], t[i + 2]);
        r[i + 2] = low_pair(t[i + 1], t[i + 3]);
        r[i + 3] = high_pair(t[i + 1], t[i + 3]);
    }
    UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        const __m512 b = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const __m512 d = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(a, d, 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
        t[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
    }
    UNROLL
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

enum { AHEAD = 256 }; /* bytes; many short streams, which the processor does not foresee */

/* 64 bytes of 16 rows from term k on, turned: 16 columns of F32 or F16, 32 of BF16 (two to a
 * 32-bit lane). With n below that, only n terms exist and the rest is zero. */
INLINE void load_turned(const pf_dtype t, const void *const *rows, int64_t k, const int n,
                        __m512 z[16]) {
    UNROLL
    for (int q = 0; q < 16; q++) {
        if (t == PF_DTYPE_F32) {
            const float *p = (const float *)rows[q] + k;
            z[q] = n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(mask_of(n), p);
        } else if (t == PF_DTYPE_F16) {
            const uint16_t *p = (const uint16_t *)rows[q] + k;
            z[q] = _mm512_cvtph_ps(n >= 16 ? _mm256_loadu_si256((const void *)p)
                                           : _mm256_maskz_loadu_epi16(mask_of(n), p));
        } else {
            const uint16_t *p = (const uint16_t *)rows[q] + k;
            z[q] = _mm512_castsi512_ps(n >= 32 ? _mm512_loadu_si512(p)
                                               : _mm512_maskz_loadu_epi16((1u << n) - 1u, p));
        }
        _mm_prefetch((const char *)rows[q] + k * (t == PF_DTYPE_F32 ? 4 : 2) + AHEAD, _MM_HINT_T0);
    }
    turn16(z);
}

/* The two numbers of a lane of BF16. */
INLINE __m512 low_bf16(__m512 v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16));
}
INLINE __m512 high_bf16(__m512 v) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0xffff0000u)));
}

/* --- packing ------------------------------------------------------------------------------- */

INLINE void pack16(const pf_dtype t, const void *const *rows, __mmask16 keep, int64_t kc,
                   float *dst) {
    const int step = t == PF_DTYPE_BF16 ? 32 : 16;
    __m512 z[16];
    int64_t k = 0;
    for (; k + step <= kc; k += step) {
        float *d = dst + k * NR;
        load_turned(t, rows, k, step, z);
        UNROLL
        for (int q = 0; q < 16; q++) {
            if (t == PF_DTYPE_BF16) {
                _mm512_storeu_ps(d + 2 * q * NR, _mm512_maskz_mov_ps(keep, low_bf16(z[q])));
                _mm512_storeu_ps(d + (2 * q + 1) * NR, _mm512_maskz_mov_ps(keep, high_bf16(z[q])));
            } else {
                _mm512_storeu_ps(d + q * NR, _mm512_maskz_mov_ps(keep, z[q]));
            }
        }
    }
    if (k < kc) {
        load_turned(t, rows, k, (int)(kc - k), z);
        for (int q = 0; k + q < kc; q++) {
            const __m512 v = t != PF_DTYPE_BF16 ? z[q & 15]
                             : q % 2 == 0       ? low_bf16(z[q / 2])
                                                : high_bf16(z[q / 2]);
            _mm512_storeu_ps(dst + (k + q) * NR, _mm512_maskz_mov_ps(keep, v));
        }
    }
}

static void pack_rows(pf_dtype t, const void *const *rows, int n, int64_t kc, float *dst) {
    const void *r[NR]; /* rows beyond n are read as row 0 and masked away */
    for (int j = 0; j < NR; j++) r[j] = rows[j < n ? j : 0];
    for (int h = 0; h < 2; h++) {
        const __mmask16 keep = mask_of(n - 16 * h);
        if (t == PF_DTYPE_F32)
            pack16(PF_DTYPE_F32, r + 16 * h, keep, kc, dst + 16 * h);
        else if (t == PF_DTYPE_BF16)
            pack16(PF_DTYPE_BF16, r + 16 * h, keep, kc, dst + 16 * h);
        else
            pack16(PF_DTYPE_F16, r + 16 * h, keep, kc, dst + 16 * h);
    }
}

INLINE __m512 widen16(pf_dtype t, const void *src, int64_t i, __mmask16 m) {
    if (t == PF_DTYPE_F32) return _mm512_maskz_loadu_ps(m, (const float *)src + i);
    const __m256i h = _mm256_maskz_loadu_epi16(m, (const uint16_t *)src + i);
    if (t == PF_DTYPE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

INLINE void spread_typed(const pf_dtype t, const void *src, int64_t n, float *dst, int64_t stride) {
    int64_t p = 0;
    for (; p + NR <= n; p += NR, dst += stride) {
        _mm512_storeu_ps(dst, widen16(t, src, p, 0xffff));
        _mm512_storeu_ps(dst + 16, widen16(t, src, p + 16, 0xffff));
    }
    if (p < n) {
        _mm512_storeu_ps(dst, widen16(t, src, p, mask_of(n - p)));
        _mm512_storeu_ps(dst + 16, widen16(t, src, p + 16, mask_of(n - p - 16)));
    }
}

static void spread_row(pf_dtype t, const void *src, int64_t n, float *dst, int64_t stride) {
    if (t == PF_DTYPE_F32)
        spread_typed(PF_DTYPE_F32, src, n, dst, stride);
    else if (t == PF_DTYPE_BF16)
        spread_typed(PF_DTYPE_BF16, src, n, dst, stride);
    else
        spread_typed(PF_DTYPE_F16, src, n, dst, stride);
}

/* --- streaming: few rows of A, each weight read once and turned in registers ----------------- */

enum { STREAM_ROWS = 8 };

typedef struct group { /* 16 columns of C */
    const void *rows[16];
    int64_t j0;
    __mmask16 keep;
} group;

INLINE void stream_step(const int m, const float *a, int64_t lda, __m512 v, __m512 *acc) {
    UNROLL
    for (int i = 0; i < m; i++) acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(a[i * lda]), v, acc[i]);
}

/* Two groups side by side where rows are few: one chain of adds alone would wait for itself. */
INLINE void stream_groups(const int m, const int n_groups, const pf_dtype t,
                          const pf_gemm_stream *s, const group *gr) {
    const int step = t == PF_DTYPE_BF16 ? 32 : 16;
    const int64_t lda = s->lda, block = pf_gemm_block(s->k);
    const __m512 alpha = _mm512_set1_ps(s->alpha);
    __m512 sum[2][STREAM_ROWS], z[16];
    UNROLL
    for (int h = 0; h < n_groups; h++) {
        UNROLL
        for (int i = 0; i < m; i++)
            sum[h][i] = s->accumulate
                            ? _mm512_maskz_loadu_ps(gr[h].keep, s->c + i * s->ldc + gr[h].j0)
                            : _mm512_setzero_ps();
    }
    for (int64_t k0 = 0; k0 < s->k; k0 += block) {
        const int64_t k1 = k0 + block < s->k ? k0 + block : s->k;
        __m512 acc[2][STREAM_ROWS];
        UNROLL
        for (int h = 0; h < n_groups; h++) {
            UNROLL
            for (int i = 0; i < m; i++) acc[h][i] = _mm512_setzero_ps();
        }
        int64_t k = k0;
        for (; k + step <= k1; k += step) {
            UNROLL
            for (int h = 0; h < n_groups; h++) {
                load_turned(t, gr[h].rows, k, step, z);
                UNROLL
                for (int q = 0; q < 16; q++) {
                    if (t == PF_DTYPE_BF16) {
                        stream_step(m, s->a + k + 2 * q, lda, low_bf16(z[q]), acc[h]);
                        stream_step(m, s->a + k + 2 * q + 1, lda, high_bf16(z[q]), acc[h]);
                    } else {
                        stream_step(m, s->a + k + q, lda, z[q], acc[h]);
                    }
                }
            }
        }
        if (k < k1) {
            UNROLL
            for (int h = 0; h < n_groups; h++) {
                load_turned(t, gr[h].rows, k, (int)(k1 - k), z);
                for (int q = 0; k + q < k1; q++) {
                    const __m512 v = t != PF_DTYPE_BF16 ? z[q & 15]
                                     : q % 2 == 0       ? low_bf16(z[q / 2])
                                                        : high_bf16(z[q / 2]);
                    stream_step(m, s->a + k + q, lda, v, acc[h]);
                }
            }
        }
        const bool first = k0 == 0 && !s->accumulate;
        UNROLL
        for (int h = 0; h < n_groups; h++) {
            UNROLL
            for (int i = 0; i < m; i++)
                sum[h][i] = first ? _mm512_mul_ps(alpha, acc[h][i])
                                  : _mm512_fmadd_ps(alpha, acc[h][i], sum[h][i]);
        }
    }
    UNROLL
    for (int h = 0; h < n_groups; h++) {
        UNROLL
        for (int i = 0; i < m; i++) {
            __m512 v = sum[h][i];
            if (s->bias != NULL)
                v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(gr[h].keep, s->bias + gr[h].j0));
            _mm512_mask_storeu_ps(s->c + i * s->ldc + gr[h].j0, gr[h].keep, v);
        }
    }
}

INLINE void stream_type(const int m, const pf_dtype t, const pf_gemm_stream *s) {
    const int n_groups = m <= 3 ? 2 : 1;
    const int64_t size = t == PF_DTYPE_F32 ? 4 : 2;
    for (int64_t j = 0; j < s->n; j += 16 * n_groups) {
        group gr[2];
        for (int h = 0; h < n_groups; h++) {
            gr[h].j0 = j + 16 * h;
            gr[h].keep = mask_of(s->n - gr[h].j0);
            for (int64_t r = 0; r < 16; r++) {
                const int64_t col = gr[h].j0 + r < s->n ? gr[h].j0 + r : j;
                const int64_t row = s->perm != NULL ? s->perm[col] : col;
                gr[h].rows[r] = (const char *)s->b + row * s->ldb * size;
            }
        }
        stream_groups(m, n_groups, t, s, gr);
    }
}

#define STREAM_FN(m)                                                                               \
    static void stream_##m(const pf_gemm_stream *s) {                                              \
        if (s->dtype == PF_DTYPE_F32)                                                              \
            stream_type(m, PF_DTYPE_F32, s);                                                       \
        else if (s->dtype == PF_DTYPE_BF16)                                                        \
            stream_type(m, PF_DTYPE_BF16, s);                                                      \
        else                                                                                       \
            stream_type(m, PF_DTYPE_F16, s);                                                       \
    }
STREAM_FN(1)
STREAM_FN(2)
STREAM_FN(3)
STREAM_FN(4)
STREAM_FN(5)
STREAM_FN(6)
STREAM_FN(7)
STREAM_FN(8)

static void stream(const pf_gemm_stream *s) {
    static void (*const by_rows[STREAM_ROWS + 1])(const pf_gemm_stream *) = {
        NULL, stream_1, stream_2, stream_3, stream_4, stream_5, stream_6, stream_7, stream_8};
    by_rows[s->m](s);
}

const pf_gemm_isa pf_gemm_avx512 = {.name = "avx512",
                                    .level = PF_ISA_AVX512,
                                    .mr = MR,
                                    .nr = NR,
                                    .tile = tile,
                                    .pack_rows = pack_rows,
                                    .spread_row = spread_row,
                                    .stream_rows = STREAM_ROWS,
                                    .stream = stream};
