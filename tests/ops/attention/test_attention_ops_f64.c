/* test_attention_ops_f64.c - gradients against differences, results against oracles, in double; see
 * op_harness.h. */
#include "attention_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, attention_cases, PF_COUNT(attention_cases));
}
