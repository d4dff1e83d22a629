/* test_moe_ops.c - mixtures of experts in every kernel against the reference, bit for bit where
 * that is promised; see op_harness.h. */
#include "moe_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, moe_cases, PF_COUNT(moe_cases));
}
