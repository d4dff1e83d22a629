/* test_lstm_ops_f64.c - the recurrence against its oracle, gradients against differences; see
 * op_harness.h. */
#include "lstm_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, lstm_cases, PF_COUNT(lstm_cases));
}
