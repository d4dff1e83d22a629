/* lowrank_kernels.h - the skinny products of the low-rank ops: raw pointers and sizes, one thread.
 *
 *   thin  s[i,j] = scale · sum_c x[i,c] p[c,j]                    (M, C) · (C, R)  -> (M, R)
 *   dots    s[i,j] = scale · sum_c m[i,c] x[i,c] a[j,c]             (M, C) · (R, C)ᵀ -> (M, R)
 *   expand  y[i,c] (+)= m[i,c] · sum_j s[i,j] a[j,c]                (M, R) · (R, C)  -> (M, C)
 *   outer   g[j,c] += scale · sum_i s[i,j] m[i,c] x[i,c]            (M, R)ᵀ · (M, C) -> (R, C)
 *   drop    y[i,c] = m[i,c] x[i,c]
 *   turn    y[c,j] = a[j,c]                                         (R, C) -> (C, R)
 *
 * m is a mask of bits (dropout.h), all ones when NULL. thin wants R to be a multiple of
 * PF_LOWRANK_PAD and needs no sums across a vector, so it is the one for many rows; dots reads a
 * matrix as it stands. An element of thin, dots and expand is made of its row alone by the same
 * operations wherever it stands; outer adds rows in order, in blocks of PF_LOWRANK_BLOCK counted
 * from row 0. */
#ifndef PF_LOWRANK_KERNELS_H
#define PF_LOWRANK_KERNELS_H

#include "graph/exec.h"
#include "ops/matmul/dropout.h"
#include "ops/matmul/gemm.h"

enum {
    PF_LOWRANK_BLOCK = 256, /* rows of a partial sum of outer */
    PF_LOWRANK_PANEL = 512, /* terms of a partial sum of thin */
    PF_LOWRANK_PAD = 16,    /* ranks of thin come in so many */
    PF_LOWRANK_GROUP = 8    /* most pairs that share an input in one node */
};

typedef struct pf_skinny {
    int64_t M, R, C;
    const pf_real *x; /* (M, C) of thin, dots, outer, drop */
    int64_t ldx;
    const uint8_t *mask; /* (M, C) bits, or NULL */
    int64_t ldmask;      /* bytes */
    const pf_real *a;    /* (R, C) of dots, expand and turn; p (C, R) of thin */
    int64_t lda;
    const pf_real *const *a_rows; /* expand: the R rows one by one, rather than a; NULL: a */
    pf_real *s;                   /* (M, R): result of thin and dots, input of expand and outer */
    int64_t lds;
    pf_real *y; /* (M, C) of expand and drop, (C, R) of turn, g of outer */
    int64_t ldy;
    pf_real scale;   /* of thin, dots and outer */
    bool accumulate; /* of expand */
    bool by_column;  /* outer: element (j, c) of g at y[c * ldy + j] */
} pf_skinny;

typedef struct pf_lowrank_isa {
    const pf_gemm_isa *gemm;
    pf_dropout_fn mask;
    void (*thin)(const pf_skinny *k);
    void (*drop)(const pf_skinny *k);
    void (*turn)(const pf_skinny *k);
    void (*dots)(const pf_skinny *k);
    void (*expand)(const pf_skinny *k);
    void (*outer)(const pf_skinny *k);
} pf_lowrank_isa;

extern const pf_lowrank_isa pf_lowrank_cpu;
#ifndef PF_DOUBLE
extern const pf_lowrank_isa pf_lowrank_avx2, pf_lowrank_avx512;
#endif

/* --- shared by lowrank, head_ce and embed_lowrank (lowrank_cpu.c) --------------------------- */

/* dst (cols, rows) = src (rows, cols) turned. */
void pf_lowrank_turn(pf_pool *pool, const pf_real *src, int64_t rows, int64_t cols, pf_real *dst);

/* The next run of rows of an adapter at or after `at` in the row -> adapter table (NULL: all rows
 * are ours); false when there is none. */
bool pf_lowrank_next_run(const int32_t *const *adapter, int32_t id, int64_t rows, int64_t at,
                         int64_t *from, int64_t *to);

/* --- the nodes ------------------------------------------------------------------------------ */

/* lowrank_down: x, then A of each pair (1 to PF_LOWRANK_GROUP) -> S of each pair (R, r) */
typedef struct pf_lowrank_down_args {
    double dropout;
    uint64_t seed;
    uint32_t mask_key;
    const int32_t *const *adapter;
    int32_t adapter_id;
} pf_lowrank_down_args;

/* lowrank_down_grad: x, acc or NULL, then A, dS, dA (GRAD) or NULL of each pair -> dx when wanted
 */
typedef struct pf_lowrank_down_grad_args {
    pf_lowrank_down_args down;
    bool want_dx;
} pf_lowrank_down_grad_args;

/* lowrank_up: base, S, B -> y. lowrank_up_grad: dy, S or NULL, B, dB (GRAD) or NULL -> dS */
typedef struct pf_lowrank_up_args {
    double scale;
    const int32_t *const *adapter;
    int32_t adapter_id;
} pf_lowrank_up_args;

enum { PF_DOWN_GRAD_X, PF_DOWN_GRAD_ACC, PF_DOWN_GRAD_PAIRS }; /* inputs; pairs by threes */

extern const pf_kernel_row pf_lowrank_down_kernel_rows[], pf_lowrank_down_grad_kernel_rows[];
extern const pf_kernel_row pf_lowrank_up_kernel_rows[], pf_lowrank_up_grad_kernel_rows[];

#endif
