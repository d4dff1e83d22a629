/* test_moe_ops_f64.c - mixtures of experts: gradients against differences, results against oracles,
 * in double; see op_harness.h. */
#include "moe_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, moe_cases, PF_COUNT(moe_cases));
}
