/* narrow.h - dense products in a narrower type: C (+)= op(A) · op(B) (+ bias) with B a frozen
 * weight.
 *
 * Numbers are packed into 32-bit words: two bfloat16 or four bytes, neighbours along k. Rows of A
 * are narrowed once per product, panels of B while they are packed, so neither the memory of a
 * weight nor its type changes.
 *
 *   bf16   operands are rounded to nearest, sums are f32.
 *   int8   a row of A becomes q · s with s = max|a| / 127, output o of the weight q · w with
 *          w = max|W[o,:]| / 127; the sum of the integer products is exact. Backward (NN) the sum
 *          runs over outputs, so w is folded into A before A is narrowed. A row of which a few
 *          numbers are so large that 127 steps say little about the rest (max > OUTLIER · root mean
 *          square; Dettmers et al. 2022, arXiv 2208.07339, take such columns out) gets a second
 *          row that holds what the first one left, with steps 254 times as fine.
 *
 * Order of operations: the sum over k is cut into blocks of PF_NARROW_BLOCK words; blocks are added
 * to C in order, the first row before the second, the bias last. Whether a row has a second one
 * depends on that row alone. So a row of C has the same bits in a batch of any size and on any
 * number of threads; int8 has the same bits under every instruction set.
 *
 * A row of A that holds a NaN or an infinity gives a row of NaN. Nothing is allocated. */
#ifndef PF_NARROW_H
#define PF_NARROW_H

#include "ops/matmul/gemm.h"
#include "tensor/compute.h"

enum {
    PF_NARROW_BLOCK = 384, /* words of k in a block */
    PF_NARROW_ROWS = 2048, /* rows of A that are narrowed at a time */
    PF_NARROW_MAX_MR = 14,
    PF_NARROW_MAX_NR = 32,
    PF_NARROW_OUTLIER = 12 /* max / root mean square beyond which a row gets a second one */
};

#define PF_NARROW_TINY 1e-30f /* a row of which no number is larger counts as zero */

typedef struct pf_narrow_isa pf_narrow_isa;
/* The fastest that this processor (and PEFT_ISA) allows; NULL: none but the reference. */
const pf_narrow_isa *pf_narrow_best(pf_compute type);
const pf_narrow_isa *pf_narrow_reference(pf_compute type);
const pf_narrow_isa *pf_narrow_isa_for(pf_compute type); /* the fastest, or else the reference */
const char *pf_narrow_name(const pf_narrow_isa *isa);

/* The scales of rows [first, first + n) of a weight: pf_weight_row_scales, faster where it can be.
 */
void pf_narrow_scales(const pf_weight *w, int64_t first, int64_t n, float *scale);

/* Scratch for products with at most m rows of A and k terms. */
int64_t pf_narrow_workspace(int64_t m, int64_t k, int n_workers);
/* g->form is NT or NN, g->alpha 1, g->b a weight whose row_scale is set if the type is int8. */
void pf_narrow_run(pf_pool *pool, const pf_narrow_isa *isa, const pf_gemm *g, void *workspace);
/* Several NT products (at most PF_GEMM_SET) with the same A, which is narrowed once. */
void pf_narrow_run_set(pf_pool *pool, const pf_narrow_isa *isa, const pf_gemm *g, int n,
                       void *workspace);

/* --- what an instruction set brings (narrow_plain.c, narrow_int8_avx512.c, ...)
 * -------------------- */

typedef struct pf_narrow_row { /* what is known of a row of A that was narrowed */
    float scale, rest_scale;   /* int8: of the first and the second row; 0: there is no second */
} pf_narrow_row;

/* m <= mr rows and n <= nr columns of C, kw words of k. */
typedef struct pf_narrow_tile {
    int m, n;
    int64_t kw;
    const uint32_t *a; /* row i at a + i * lda */
    int64_t lda;
    const uint32_t *b;               /* word (k, j) at b[k * nr + j] */
    float *c[PF_NARROW_MAX_MR];      /* where row i goes */
    float scale[PF_NARROW_MAX_MR];   /* int8 only, like the next */
    int32_t start[PF_NARROW_MAX_MR]; /* what the sum begins with */
    bool first;                      /* write; else add to C */
    const float *col_scale;          /* (n) or NULL: 1 */
} pf_narrow_tile;

struct pf_narrow_isa {
    const char *name;
    pf_compute type;
    int mr, nr;
    /* x (k), times fold (k) if not NULL -> pf_narrow_words(k) words, and what is left of it into
     * rest if there is a second row. sums, rest_sums: of the bytes of each block. */
    void (*row)(const float *x, const float *fold, int64_t k, uint32_t *words, uint32_t *rest,
                int32_t *sums, int32_t *rest_sums, pf_narrow_row *info);
    /* n rows of kc stored numbers, each times its factor, become n columns of a panel: word
     * (k, j) at dst[k * nr + j]; what is missing is zero. F32, BF16 or F16. */
    void (*pack_rows)(pf_dtype t, const void *const *rows, const float *factor, int n, int64_t kc,
                      uint32_t *dst);
    /* The stored rows of one word of k (fewer at the end), n columns, spread over panels: word of
     * column j at dst[j / nr * stride + j % nr]. */
    void (*pack_terms)(pf_dtype t, const void *const *rows, int n_rows, const float *factor,
                       int64_t n, uint32_t *dst, int64_t stride);
    void (*tile)(const pf_narrow_tile *t);
    /* int8: max |row|; not finite when a number is not. NULL: pf_weight_row_scales does it. */
    float (*largest)(pf_dtype t, const void *row, int64_t n);
};

extern const pf_narrow_isa pf_narrow_int8_plain, pf_narrow_bf16_plain;
extern const pf_narrow_isa pf_narrow_int8_avx512, pf_narrow_bf16_avx512;
extern const pf_narrow_isa pf_narrow_int8_avxvnni, pf_narrow_int8_avx2;

/* Terms in a word. */
static inline int pf_narrow_lanes(pf_compute type) {
    return type == PF_COMPUTE_INT8 ? 4 : 2;
}

#endif
