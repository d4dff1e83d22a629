/* test_text_gate_ops.c - text_gate in every kernel against the reference, bit for bit where
 * that is promised; see op_harness.h. */
#include "text_gate_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, text_gate_cases, PF_COUNT(text_gate_cases));
}
