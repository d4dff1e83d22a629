/* test_made_ops_f64.c - gradients against differences, results against oracles, in double;
 * see op_harness.h. */
#include "made_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, made_cases, PF_COUNT(made_cases));
}
