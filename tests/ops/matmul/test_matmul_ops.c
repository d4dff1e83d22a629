/* The matmul family in float: see ops/op_harness.h. */
#include "matmul_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, matmul_cases, (int)PF_COUNT(matmul_cases));
}
