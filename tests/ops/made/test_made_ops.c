/* test_made_ops.c - in every kernel against the reference, bit for bit where that is
 * promised; see op_harness.h. */
#include "made_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, made_cases, PF_COUNT(made_cases));
}
