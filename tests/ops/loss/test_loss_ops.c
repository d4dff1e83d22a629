/* The loss family in float: see ops/op_harness.h. */
#include "loss_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, loss_cases, (int)PF_COUNT(loss_cases));
}
