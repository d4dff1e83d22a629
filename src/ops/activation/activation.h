/* activation.h - elementwise ops: silu, mul, add, and swiglu = silu(gate) · up (Shazeer 2020, arXiv
 * 2002.05202) that fusion makes of the first two. */
#ifndef PF_ACTIVATION_H
#define PF_ACTIVATION_H

#include "graph/graph.h"

peft_status pf_silu(pf_graph *g, const char *name, pf_value *x, pf_value **y, peft_error *err);
peft_status pf_mul(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err);
peft_status pf_add(pf_graph *g, const char *name, pf_value *a, pf_value *b, pf_value **y,
                   peft_error *err);

extern const pf_op pf_op_silu, pf_op_mul, pf_op_add; /* for fusion rules that look for them */

#endif
