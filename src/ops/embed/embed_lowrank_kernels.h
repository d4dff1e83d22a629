/* embed_lowrank_kernels.h - what the descriptors in embed_lowrank.c need of embed_lowrank_cpu.c. */
#ifndef PF_EMBED_LOWRANK_KERNELS_H
#define PF_EMBED_LOWRANK_KERNELS_H

#include "graph/exec.h"

extern const pf_kernel_row pf_embed_lowrank_kernel_rows[];
extern const pf_kernel_row pf_embed_lowrank_grad_kernel_rows[];
int64_t pf_embed_lowrank_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_embed_lowrank_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif
