/* activation.h - elementwise ops: activation functions (unary.c), mul, add, and swiglu = silu(gate)
 * · up (Shazeer 2020, arXiv 2002.05202) that fusion makes of silu and mul. */
#ifndef PF_ACTIVATION_H
#define PF_ACTIVATION_H

#include "graph/graph.h"

/* y = f(x), f one of the activation functions below */
peft_status pf_activation(pf_graph *g, const pf_op *op, const char *name, pf_value *x, pf_value **y,
                          peft_error *err);
/* The function that a config.json calls so ("gelu_new"); NULL: not known here. */
const pf_op *pf_activation_find(const char *name);
peft_status pf_silu(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err);
peft_status pf_mul(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err);
peft_status pf_add(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err);

extern const pf_op pf_op_silu, pf_op_gelu, pf_op_gelu_tanh, pf_op_relu;
extern const pf_op pf_op_tanh, pf_op_leaky_relu, pf_op_sigmoid, pf_op_quick_gelu, pf_op_mish,
    pf_op_relu6, pf_op_relu2, pf_op_identity; /* unary_plain.c */
extern const pf_op pf_op_mul, pf_op_add;      /* for fusion rules that look for them */

#endif
