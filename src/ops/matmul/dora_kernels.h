/* dora_kernels.h - what dora.c needs of dora_cpu.c. */
#ifndef PF_DORA_KERNELS_H
#define PF_DORA_KERNELS_H

#include "graph/exec.h"

/* dora_norm: the inputs */
enum { PF_DORA_W, PF_DORA_SQUARES, PF_DORA_A, PF_DORA_B, PF_DORA_A0, PF_DORA_B0, PF_DORA_INPUTS };
/* dora_scale: v, m, inverse. dora_scale_grad: dy, v or NULL, m, inverse, dm (GRAD) or NULL -> dv
 * when wanted */
typedef struct pf_dora_scale_grad_args {
    bool want_dv;
} pf_dora_scale_grad_args;

int64_t pf_dora_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_dora_scale_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
extern const pf_kernel_row pf_dora_norm_kernel_rows[];
extern const pf_kernel_row pf_dora_scale_kernel_rows[], pf_dora_scale_grad_kernel_rows[];

#endif
