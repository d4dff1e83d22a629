/* test_embed_ops_f64.c - gradients against differences, results against oracles, in double; see
 * op_harness.h. */
#include "embed_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, embed_cases, PF_COUNT(embed_cases));
}
