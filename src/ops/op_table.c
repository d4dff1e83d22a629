/* op_table.c - the one place that enumerates ops and fusion rules; the lists are the .def files. */
#include "ops/op_table.h"

#define PF_OP(name) extern const pf_op pf_op_##name;
#include "ops/ops.def"
#undef PF_OP

const pf_op *const pf_op_table[] = {
#define PF_OP(name) &pf_op_##name,
#include "ops/ops.def"
#undef PF_OP
    NULL,
};

#define PF_FUSION(name) extern const pf_fusion_rule pf_fusion_##name;
#include "ops/fusions.def"
#undef PF_FUSION

const pf_fusion_rule *const pf_fusion_table[] = {
#define PF_FUSION(name) &pf_fusion_##name,
#include "ops/fusions.def"
#undef PF_FUSION
    NULL,
};
