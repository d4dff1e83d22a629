/* test_scale_ops.c - scale and softcap in every kernel against the reference, bit for bit where
 * that is promised; see op_harness.h. */
#include "scale_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, scale_cases, PF_COUNT(scale_cases));
}
