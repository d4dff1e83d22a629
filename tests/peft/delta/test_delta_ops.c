/* test_delta_ops.c - fast against reference, threads, saving policies, fusion and timing;
 * see op_harness.h. */
#include "delta_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, delta_cases, PF_COUNT(delta_cases));
}
