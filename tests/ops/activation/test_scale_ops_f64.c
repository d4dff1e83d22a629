/* test_scale_ops_f64.c - gradients of scale and softcap against differences, results against
 * oracles, in double; see op_harness.h. */
#include "scale_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, scale_cases, PF_COUNT(scale_cases));
}
