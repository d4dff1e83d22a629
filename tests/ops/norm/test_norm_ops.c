/* test_norm_ops.c - in every kernel against the reference, bit for bit where that is promised; see
 * op_harness.h. */
#include "norm_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, norm_cases, PF_COUNT(norm_cases));
}
