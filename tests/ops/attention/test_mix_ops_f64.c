/* test_mix_ops_f64.c - gradients of mix_scores and mix_values against differences, results against
 * oracles, in double; see op_harness.h. */
#include "mix_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, mix_cases, PF_COUNT(mix_cases));
}
