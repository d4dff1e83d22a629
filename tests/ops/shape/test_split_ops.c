/* test_split_ops.c - split and join in every kernel, over threads, saving policies and orders of
 * samples; see op_harness.h. */
#include "split_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, split_cases, PF_COUNT(split_cases));
}
