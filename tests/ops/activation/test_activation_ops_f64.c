/* test_activation_ops_f64.c - gradients against differences, results against oracles, in double;
 * see op_harness.h. */
#include "activation_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, activation_cases, PF_COUNT(activation_cases));
}
