/* gemm.h - dense products on the CPU: C (+)= alpha · op(A) · op(B) (+ bias).
 *
 *   NT   C[i,j] = sum_k A[i,k] B[j,k]     x Wᵀ       A (m, k), B (n, k)
 *   NN   C[i,j] = sum_k A[i,k] B[k,j]     dy W       A (m, k), B (k, n)
 *   TN   C[i,j] = sum_k A[k,i] B[k,j]     dyᵀ x      A (k, m), B (k, n)
 *
 * B is a weight in any storage type; it is widened panel by panel while it is packed, in cache.
 *
 * Order of operations. The sum over k is cut into blocks of pf_gemm_block(k) terms, counted from k
 * = 0. Within a block an element is one chain, acc = acc + a·b in ascending k from 0; blocks are
 * added to C in order, each as C + alpha·acc (the first one as alpha·acc unless `accumulate`), the
 * bias last. Nothing else enters: not m, not the tile or edge in which the element stands, not the
 * path (packed or streaming), not the number of threads. Hence a row of x Wᵀ has the same bits in a
 * batch of any size, in training and in generation. AVX2 and AVX-512 use fused multiply-add and
 * give the same bits as each other; plain C rounds the product and differs in the last places.
 *
 * Nothing is allocated: the caller brings pf_gemm_workspace bytes, 64-byte aligned. */
#ifndef PF_GEMM_H
#define PF_GEMM_H

#include "base/cpu.h"
#include "base/pool.h"
#include "tensor/weight.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum pf_gemm_form { PF_GEMM_NT, PF_GEMM_NN, PF_GEMM_TN } pf_gemm_form;

typedef struct pf_gemm {
    pf_gemm_form form;
    int64_t m, n, k;
    const pf_real *a;
    int64_t lda;
    const pf_weight *b;
    pf_real *c; /* (m, n) */
    int64_t ldc;
    pf_real alpha;
    bool accumulate;     /* C keeps what it holds */
    const pf_real *bias; /* (n) or NULL */
} pf_gemm;

enum { PF_GEMM_MAX_BLOCK = 384 };

typedef struct pf_gemm_isa pf_gemm_isa;
extern const pf_gemm_isa pf_gemm_plain;
#ifndef PF_DOUBLE
extern const pf_gemm_isa pf_gemm_avx2, pf_gemm_avx512;
#endif
const pf_gemm_isa *pf_gemm_best(void); /* for the level in force (base/cpu.h) */

/* Terms per block: a function of k alone, at most PF_GEMM_MAX_BLOCK. */
int64_t pf_gemm_block(int64_t k);
/* Bytes of scratch that suffice for every product with these workers. */
int64_t pf_gemm_workspace(int n_workers);
void pf_gemm_run(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, void *workspace);

enum { PF_GEMM_SET = 4 }; /* most products in a set */
/* Several products in one run of the pool: n of them, no two with a C in common. */
void pf_gemm_run_set(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, int n,
                     void *workspace);
/* The sum of several: all have the C of the first, all but the first accumulate. */
void pf_gemm_run_sum(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, int n,
                     void *workspace);

/* pf_real numbers as a weight, for products of two activations. */
pf_weight pf_gemm_dense(const pf_real *data, int64_t rows, int64_t cols, int64_t stride);

/* --- what an instruction set brings (gemm_plain.c, gemm_avx2.c, gemm_avx512.c)
 * -------------------------------------- */

enum { PF_GEMM_MAX_NR = 32, PF_GEMM_MAX_MR = 14 };

/* One tile of C: m <= mr rows, n <= nr columns, kc terms. */
typedef struct pf_gemm_tile {
    int m, n;
    int64_t kc;
    const pf_real *a; /* element (i, k) at a[i * lda + k], or a[k * lda + i] when a_by_k */
    int64_t lda;
    bool a_by_k;
    const pf_real *b; /* element (k, j) at b[k * ldb + j] */
    int64_t ldb;
    bool b_padded; /* nr columns may be read, whatever n is */
    pf_real *c;
    int64_t ldc;
    pf_real alpha;
    bool first;          /* write alpha·acc; else add to C */
    const pf_real *bias; /* of these columns, on the last block only */
    /* What will be wanted soon: one cache line per term is asked for, from `ahead` on, `ahead_left`
     * bytes here, then runs of ahead_run bytes that begin ahead_step bytes apart. */
    const char *ahead;
    int64_t ahead_left, ahead_run, ahead_step;
} pf_gemm_tile;

/* Few rows against many weights, without packing: C rows [0, m), columns [0, n). */
typedef struct pf_gemm_stream {
    int m;
    int64_t n, k;
    const pf_real *a;
    int64_t lda;
    pf_dtype dtype;      /* F32, BF16 or F16 */
    const void *b;       /* stored row 0 */
    int64_t ldb;         /* elements between stored rows */
    const int32_t *perm; /* column j of C is stored row perm[j]; NULL: j */
    pf_real *c;
    int64_t ldc;
    pf_real alpha;
    bool accumulate;
    const pf_real *bias;
} pf_gemm_stream;

struct pf_gemm_isa {
    const char *name;
    pf_isa level;
    int mr, nr;
    void (*tile)(const pf_gemm_tile *t);
    /* dst[k * nr + j] = element k of row j for k < kc, j < n; columns from n to nr are zeroed.
     * Types as for stream; in
     * the double build, double. */
    void (*pack_rows)(pf_dtype t, const void *const *rows, int n, int64_t kc, pf_real *dst);
    /* One stored row over panels: dst[j / nr * stride + j % nr] = src[j] for j < n, zeros up to the
     * end of the last panel. */
    void (*spread_row)(pf_dtype t, const void *src, int64_t n, pf_real *dst, int64_t stride);
    int stream_rows; /* most rows of a stream; 0: none */
    void (*stream)(const pf_gemm_stream *s);
};

#endif
