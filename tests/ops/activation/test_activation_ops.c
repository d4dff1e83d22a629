/* test_activation_ops.c - in every kernel against the reference, bit for bit where that is
 * promised; see op_harness.h. */
#include "activation_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, activation_cases, PF_COUNT(activation_cases));
}
