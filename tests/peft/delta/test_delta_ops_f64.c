/* test_delta_ops_f64.c - gradients against differences, results against oracles, in double;
 * see op_harness.h. */
#include "delta_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, delta_cases, PF_COUNT(delta_cases));
}
