/* gemm_avx2.c - the 6 x 16 tile of gemm.h for AVX2 with FMA, its packing, and the streaming path of
 * generation. The same chain of fused multiply-adds per element as gemm_avx512.c: the same bits. */
#include "ops/matmul/gemm.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum { MR = 6, NR = 16 };

/* Lanes below n, for masked loads and stores. */
INLINE __m256i mask_of(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n), lane);
}

/* --- tile ---------------------------------------------------------------------------------- */

INLINE void tile_rows(const int m, const bool a_by_k, const bool masked_b, const pf_gemm_tile *t) {
    __m256 acc[MR][2];
    const __m256i m0 = mask_of(t->n), m1 = mask_of(t->n - 8);
    const int64_t lda = t->lda, ldb = t->ldb, ldc = t->ldc, kc = t->kc;
    const float *a = t->a, *b = t->b;
    float *c = t->c;
    UNROLL
    for (int i = 0; i < m; i++) {
        acc[i][0] = _mm256_setzero_ps();
        acc[i][1] = _mm256_setzero_ps();
        _mm_prefetch((const char *)(c + i * ldc), _MM_HINT_T0);
    }
    for (int64_t k = 0; k < kc; k++) {
        const __m256 b0 = masked_b ? _mm256_maskload_ps(b, m0) : _mm256_loadu_ps(b);
        const __m256 b1 = masked_b ? _mm256_maskload_ps(b + 8, m1) : _mm256_loadu_ps(b + 8);
        UNROLL
        for (int i = 0; i < m; i++) {
            const __m256 v = _mm256_broadcast_ss(a_by_k ? a + i : a + i * lda + k);
            acc[i][0] = _mm256_fmadd_ps(v, b0, acc[i][0]);
            acc[i][1] = _mm256_fmadd_ps(v, b1, acc[i][1]);
        }
        b += ldb;
        if (a_by_k) a += lda;
    }
    const __m256 alpha = _mm256_set1_ps(t->alpha);
    UNROLL
    for (int i = 0; i < m; i++) {
        float *ci = c + i * ldc;
        __m256 v0, v1;
        if (t->first) {
            v0 = _mm256_mul_ps(alpha, acc[i][0]);
            v1 = _mm256_mul_ps(alpha, acc[i][1]);
        } else {
            v0 = _mm256_fmadd_ps(alpha, acc[i][0], _mm256_maskload_ps(ci, m0));
            v1 = _mm256_fmadd_ps(alpha, acc[i][1], _mm256_maskload_ps(ci + 8, m1));
        }
        if (t->bias != NULL) {
            v0 = _mm256_add_ps(v0, _mm256_maskload_ps(t->bias, m0));
            v1 = _mm256_add_ps(v1, _mm256_maskload_ps(t->bias + 8, m1));
        }
        _mm256_maskstore_ps(ci, m0, v0);
        _mm256_maskstore_ps(ci + 8, m1, v1);
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

static void tile(const pf_gemm_tile *t) {
    static void (*const by_rows[MR + 1])(const pf_gemm_tile *) = {NULL,   tile_1, tile_2, tile_3,
                                                                  tile_4, tile_5, tile_6};
    by_rows[t->m](t);
}

/* --- transposing 8 rows -------------------------------------------------------------------- */

/* Four quarters with row q in the low and q + 4 in the high lane become four columns. */
INLINE void turn4(__m256 z[4]) {
    const __m256 a = _mm256_unpacklo_ps(z[0], z[1]), b = _mm256_unpackhi_ps(z[0], z[1]);
    const __m256 c = _mm256_unpacklo_ps(z[2], z[3]), d = _mm256_unpackhi_ps(z[2], z[3]);
    z[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(c)));
    z[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(c)));
    z[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(b), _mm256_castps_pd(d)));
    z[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(b), _mm256_castps_pd(d)));
}

/* Four numbers of a row from p on; only n of them exist, the rest is zero. */
INLINE __m128 four(const pf_dtype t, const void *row, int64_t k, const int n) {
    if (t == PF_DTYPE_F32) {
        const float *p = (const float *)row + k;
        if (n == 4) return _mm_loadu_ps(p);
        return _mm_maskload_ps(p, _mm256_castsi256_si128(mask_of(n)));
    }
    const uint16_t *p = (const uint16_t *)row + k;
    __m128i h;
    if (n == 4) {
        h = _mm_loadl_epi64((const void *)p);
    } else {
        uint64_t bits = 0;
        for (int i = 0; i < n; i++) bits |= (uint64_t)p[i] << (16 * i);
        h = _mm_cvtsi64_si128((long long)bits);
    }
    if (t == PF_DTYPE_F16) return _mm_cvtph_ps(h);
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(h), 16));
}

INLINE void load_turned(const pf_dtype t, const void *const *rows, int64_t k, const int n,
                        __m256 z[4]) {
    UNROLL
    for (int q = 0; q < 4; q++)
        z[q] = _mm256_insertf128_ps(_mm256_castps128_ps256(four(t, rows[q], k, n)),
                                    four(t, rows[q + 4], k, n), 1);
    turn4(z);
}

/* --- packing ------------------------------------------------------------------------------- */

INLINE void pack8(const pf_dtype t, const void *const *rows, __m256i keep, int64_t kc, float *dst) {
    const __m256 keep_ps = _mm256_castsi256_ps(keep);
    for (int64_t k = 0; k < kc; k += 4) {
        const int n = kc - k < 4 ? (int)(kc - k) : 4;
        __m256 z[4];
        if (n == 4)
            load_turned(t, rows, k, 4, z);
        else
            load_turned(t, rows, k, n, z);
        for (int q = 0; q < n; q++)
            _mm256_storeu_ps(dst + (k + q) * NR, _mm256_and_ps(keep_ps, z[q]));
    }
}

static void pack_rows(pf_dtype t, const void *const *rows, int n, int64_t kc, float *dst) {
    const void *r[NR]; /* rows beyond n are read as row 0 and masked away */
    for (int j = 0; j < NR; j++) r[j] = rows[j < n ? j : 0];
    for (int h = 0; h < 2; h++) {
        const __m256i keep = mask_of(n - 8 * h);
        if (t == PF_DTYPE_F32)
            pack8(PF_DTYPE_F32, r + 8 * h, keep, kc, dst + 8 * h);
        else if (t == PF_DTYPE_BF16)
            pack8(PF_DTYPE_BF16, r + 8 * h, keep, kc, dst + 8 * h);
        else
            pack8(PF_DTYPE_F16, r + 8 * h, keep, kc, dst + 8 * h);
    }
}

INLINE void spread_typed(const pf_dtype t, const void *src, int64_t n, float *dst, int64_t stride) {
    for (int64_t p = 0; p < n; p += NR, dst += stride) {
        for (int j = 0; j < NR; j += 4) {
            const int64_t left = n - p - j;
            const __m128 v = left >= 4  ? four(t, src, p + j, 4)
                             : left > 0 ? four(t, src, p + j, (int)left)
                                        : _mm_setzero_ps();
            _mm_storeu_ps(dst + j, v);
        }
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

/* --- streaming ----------------------------------------------------------------------------- */

enum { STREAM_ROWS = 4 };

INLINE void stream_group(const int m, const pf_dtype t, const pf_gemm_stream *s,
                         const void *const *rows, int64_t j0, __m256i keep) {
    const int64_t lda = s->lda, block = pf_gemm_block(s->k);
    const __m256 alpha = _mm256_set1_ps(s->alpha);
    __m256 sum[STREAM_ROWS];
    UNROLL
    for (int i = 0; i < m; i++)
        sum[i] =
            s->accumulate ? _mm256_maskload_ps(s->c + i * s->ldc + j0, keep) : _mm256_setzero_ps();
    for (int64_t k0 = 0; k0 < s->k; k0 += block) {
        const int64_t k1 = k0 + block < s->k ? k0 + block : s->k;
        __m256 acc[STREAM_ROWS], z[4];
        UNROLL
        for (int i = 0; i < m; i++) acc[i] = _mm256_setzero_ps();
        int64_t k = k0;
        for (; k + 4 <= k1; k += 4) {
            load_turned(t, rows, k, 4, z);
            UNROLL
            for (int q = 0; q < 4; q++) {
                UNROLL
                for (int i = 0; i < m; i++)
                    acc[i] =
                        _mm256_fmadd_ps(_mm256_broadcast_ss(s->a + i * lda + k + q), z[q], acc[i]);
            }
        }
        if (k < k1) {
            load_turned(t, rows, k, (int)(k1 - k), z);
            for (int q = 0; k + q < k1; q++) {
                UNROLL
                for (int i = 0; i < m; i++)
                    acc[i] =
                        _mm256_fmadd_ps(_mm256_broadcast_ss(s->a + i * lda + k + q), z[q], acc[i]);
            }
        }
        const bool first = k0 == 0 && !s->accumulate;
        UNROLL
        for (int i = 0; i < m; i++)
            sum[i] = first ? _mm256_mul_ps(alpha, acc[i]) : _mm256_fmadd_ps(alpha, acc[i], sum[i]);
    }
    UNROLL
    for (int i = 0; i < m; i++) {
        if (s->bias != NULL) sum[i] = _mm256_add_ps(sum[i], _mm256_maskload_ps(s->bias + j0, keep));
        _mm256_maskstore_ps(s->c + i * s->ldc + j0, keep, sum[i]);
    }
}

INLINE void stream_type(const int m, const pf_dtype t, const pf_gemm_stream *s) {
    const int64_t size = t == PF_DTYPE_F32 ? 4 : 2;
    for (int64_t j = 0; j < s->n; j += 8) {
        const void *rows[8];
        for (int64_t r = 0; r < 8; r++) {
            const int64_t col = j + r < s->n ? j + r : j;
            const int64_t row = s->perm != NULL ? s->perm[col] : col;
            rows[r] = (const char *)s->b + row * s->ldb * size;
        }
        stream_group(m, t, s, rows, j, mask_of(s->n - j));
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

static void stream(const pf_gemm_stream *s) {
    static void (*const by_rows[STREAM_ROWS + 1])(const pf_gemm_stream *) = {
        NULL, stream_1, stream_2, stream_3, stream_4};
    by_rows[s->m](s);
}

const pf_gemm_isa pf_gemm_avx2 = {.name = "avx2",
                                  .level = PF_ISA_AVX2,
                                  .mr = MR,
                                  .nr = NR,
                                  .tile = tile,
                                  .pack_rows = pack_rows,
                                  .spread_row = spread_row,
                                  .stream_rows = STREAM_ROWS,
                                  .stream = stream};
