/* test_attention_ops.c - in every kernel against the reference, bit for bit where that is promised;
 * see op_harness.h. */
#include "attention_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, attention_cases, PF_COUNT(attention_cases));
}
