/* test_norm_ops_f64.c - gradients against differences, results against oracles, in double; see
 * op_harness.h. */
#include "norm_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, norm_cases, PF_COUNT(norm_cases));
}
