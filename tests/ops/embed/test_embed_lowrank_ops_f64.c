/* embed_lowrank in double: gradients against central differences; see ops/op_harness.h. */
#include "embed_lowrank_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, embed_lowrank_cases, (int)PF_COUNT(embed_lowrank_cases));
}
