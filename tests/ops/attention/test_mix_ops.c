/* test_mix_ops.c - mix_scores and mix_values in every kernel against the reference, bit for bit
 * where that is promised; see op_harness.h. */
#include "mix_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, mix_cases, PF_COUNT(mix_cases));
}
