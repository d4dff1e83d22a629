/* test_text_gate_ops_f64.c - gradients of text_gate against differences, results against
 * oracles, in double; see op_harness.h. */
#include "text_gate_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, text_gate_cases, PF_COUNT(text_gate_cases));
}
