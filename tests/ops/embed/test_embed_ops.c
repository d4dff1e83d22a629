/* test_embed_ops.c - in every kernel against the reference, bit for bit where that is promised; see
 * op_harness.h. */
#include "embed_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, embed_cases, PF_COUNT(embed_cases));
}
