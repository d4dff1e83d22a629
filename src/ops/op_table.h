/* op_table.h - all kinds of ops, made from ops.def, and all fusion rules, made from fusions.def. */
#ifndef PF_OP_TABLE_H
#define PF_OP_TABLE_H

#include "graph/fusion.h"

extern const pf_op *const pf_op_table[];              /* NULL at the end */
extern const pf_fusion_rule *const pf_fusion_table[]; /* NULL at the end */

#endif
