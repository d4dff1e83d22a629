/* linear_kernels.h - what the descriptors in linear.c and bias.c need of linear_cpu.c. */
#ifndef PF_LINEAR_KERNELS_H
#define PF_LINEAR_KERNELS_H

#include "graph/exec.h"

typedef struct pf_linear_args { /* of linear and linear_grad_x */
    pf_compute compute;
} pf_linear_args;

typedef struct pf_add_bias_args { /* of add_bias and bias_grad */
    double scale;
} pf_add_bias_args;

/* The type for a product with this matrix in this graph. */
static inline pf_compute pf_linear_compute(const pf_graph *g, const pf_value *w) {
    return w->kind == PF_VALUE_WEIGHT ? g->compute : PF_COMPUTE_F32;
}

/* linear: x, then w and bias (or NULL) of each product. linear_grad_x: acc or NULL, then dy and w.
 */
static inline int pf_linear_products(const pf_node *n) {
    return (n->n_in - 1) / 2;
}
static inline pf_value *pf_linear_w(const pf_node *n, int p) {
    return n->in[1 + 2 * p];
}
static inline pf_value *pf_linear_bias(const pf_node *n, int p) {
    return n->in[2 + 2 * p];
}
static inline pf_value *pf_linear_grad_dy(const pf_node *n, int p) {
    return n->in[1 + 2 * p];
}
static inline pf_value *pf_linear_grad_w(const pf_node *n, int p) {
    return n->in[2 + 2 * p];
}

extern const pf_kernel_row pf_linear_kernel_rows[];
extern const pf_kernel_row pf_linear_grad_x_kernel_rows[];
extern const pf_kernel_row pf_linear_grad_w_kernel_rows[];
extern const pf_kernel_row pf_linear_dw_kernel_rows[];
int64_t pf_linear_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_linear_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

/* The numbers of a WEIGHT as stored, or of any other value as pf_real. */
pf_weight pf_linear_matrix(const pf_exec *x, const pf_value *v);

#endif
