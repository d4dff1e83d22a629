/* Single rows of a table in double: gradients against central differences; see ops/op_harness.h. */
#include "token_rows_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, token_rows_cases, (int)PF_COUNT(token_rows_cases));
}
