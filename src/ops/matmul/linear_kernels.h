/* linear_kernels.h - what the descriptors in linear.c and bias.c need of linear_cpu.c. */
#ifndef PF_LINEAR_KERNELS_H
#define PF_LINEAR_KERNELS_H

#include "graph/exec.h"

extern const pf_kernel_row pf_linear_kernel_rows[];
extern const pf_kernel_row pf_linear_grad_x_kernel_rows[];
extern const pf_kernel_row pf_linear_grad_w_kernel_rows[];
int64_t pf_linear_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_linear_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

/* The numbers of a WEIGHT as stored, or of any other value as pf_real. */
pf_weight pf_linear_matrix(const pf_exec *x, const pf_value *v);

#endif
