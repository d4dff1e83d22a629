/* test_split_ops_f64.c - gradients against differences, results against oracles, in double; see
 * op_harness.h. */
#include "split_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, split_cases, PF_COUNT(split_cases));
}
