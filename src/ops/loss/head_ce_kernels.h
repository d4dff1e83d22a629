/* head_ce_kernels.h - what passes over a tile of logits, and what the descriptors in head_ce.c need
 * of head_ce_cpu.c. */
#ifndef PF_HEAD_CE_KERNELS_H
#define PF_HEAD_CE_KERNELS_H

#include "graph/exec.h"
#include "ops/matmul/lowrank_kernels.h"

/* Entries and rows of the vocabulary whose logits exist at one time. The results do not depend on
 * the first; the sums run over tiles of the second, so it is a constant. */
enum { PF_HEAD_ENTRIES = 1024, PF_HEAD_TILE = 1024 };

typedef struct pf_head_isa {
    const pf_lowrank_isa *lowrank;
    pf_real (*max)(const pf_real *z, int64_t n);
    /* z = cap tanh(z / cap) */
    void (*cap)(pf_real *z, int64_t n, pf_real cap);
    /* z = e^(z - m), returns the sum; then, of logits capped by `cap` (0: not capped), z times the
     * slope of the cap, 1 - (logit / cap)² */
    pf_real (*exp_sum)(pf_real *z, int64_t n, pf_real m, pf_real cap);
    /* z = c e^(z - m), times the slope likewise */
    void (*exp_scaled)(pf_real *z, int64_t n, pf_real m, pf_real c, pf_real cap);
} pf_head_isa;

extern const pf_head_isa pf_head_cpu;
#ifndef PF_DOUBLE
extern const pf_head_isa pf_head_avx2, pf_head_avx512;
#endif

/* Inputs of head_ce: h (E, C), w (V, C), bias (1, V) or NULL, a (r, C) and b (V, r) or NULL.
 * Outputs: nll, correct, lse (E, 1) each and, for a frozen head, unit (E, C). */
enum { PF_HEAD_H, PF_HEAD_W, PF_HEAD_BIAS, PF_HEAD_A, PF_HEAD_B, PF_HEAD_INPUTS };
enum { PF_HEAD_NLL, PF_HEAD_CORRECT, PF_HEAD_LSE, PF_HEAD_UNIT };

/* Inputs of head_ce_grad: those of head_ce, then dnll, lse (E, 1), acc (E, C) or NULL, and the GRAD
 * values, NULL where not wanted. Output: dh, when wanted. */
enum {
    PF_HEAD_GRAD_DNLL = PF_HEAD_INPUTS,
    PF_HEAD_GRAD_LSE,
    PF_HEAD_GRAD_ACC,
    PF_HEAD_GRAD_DW,
    PF_HEAD_GRAD_DBIAS,
    PF_HEAD_GRAD_DA,
    PF_HEAD_GRAD_DB,
    PF_HEAD_GRAD_INPUTS
};

typedef struct pf_head_ce_grad_args {
    double scale, dropout;
    uint64_t seed;
    uint32_t mask_key;
    double softcap;
    bool want_dh;
    pf_compute compute;
} pf_head_ce_grad_args;

extern const pf_kernel_row pf_head_ce_kernel_rows[];
extern const pf_kernel_row pf_head_ce_grad_kernel_rows[];
int64_t pf_head_ce_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_head_ce_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif
