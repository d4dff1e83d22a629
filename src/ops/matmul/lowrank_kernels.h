/* lowrank_kernels.h - the skinny products of the low-rank ops: raw pointers and sizes, one thread.
 *
 *   dots    out[i,j] = scale · sum_c m[i,c] x[i,c] a[j,c]           (M, C) · (R, C)ᵀ -> (M, R)
 *   expand  y[i,c] (+)= m[i,c] · sum_j s[i,j] a[j,c]                (M, R) · (R, C)  -> (M, C)
 *   outer   g[j,c] += scale · sum_i s[i,j] m[i,c] x[i,c]            (M, R)ᵀ · (M, C) -> (R, C)
 *
 * m is a mask of bits (dropout.h), all ones when NULL. An element of dots and expand is made of its
 * row alone by the same operations wherever it stands; outer adds rows in order, in blocks of
 * PF_LOWRANK_BLOCK counted from row 0. */
#ifndef PF_LOWRANK_KERNELS_H
#define PF_LOWRANK_KERNELS_H

#include "graph/exec.h"
#include "ops/matmul/dropout.h"
#include "ops/matmul/gemm.h"

enum { PF_LOWRANK_BLOCK = 256 };

typedef struct pf_skinny {
    int64_t M, R, C;
    const pf_real *x; /* (M, C) of dots and outer */
    int64_t ldx;
    const uint8_t *mask; /* (M, C) bits, or NULL */
    int64_t ldmask;      /* bytes */
    const pf_real *a;    /* (R, C) of dots and expand */
    int64_t lda;
    pf_real *s; /* (M, R): result of dots, input of expand and outer */
    int64_t lds;
    pf_real *y; /* (M, C) of expand, g of outer */
    int64_t ldy;
    pf_real scale;   /* of dots and outer */
    bool accumulate; /* of expand */
    bool by_column;  /* outer: element (j, c) of g at y[c * ldy + j] */
} pf_skinny;

typedef struct pf_lowrank_isa {
    const pf_gemm_isa *gemm;
    pf_dropout_fn mask;
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

/* The arguments of a lowrank_grad node. Inputs: dy, x, a, b, acc or NULL, dA (GRAD) or NULL,
 * dB (GRAD) or NULL. Output: dx when wanted. */
typedef struct pf_lowrank_grad_args {
    double scale, dropout;
    uint64_t seed;
    uint32_t mask_key;
    const int32_t *const *adapter;
    int32_t adapter_id;
    bool want_dx;
} pf_lowrank_grad_args;

extern const pf_kernel_row pf_lowrank_kernel_rows[];
extern const pf_kernel_row pf_lowrank_grad_kernel_rows[];
int64_t pf_lowrank_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_lowrank_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif
