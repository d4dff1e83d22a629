/* The loss family in double: gradients against central differences; see ops/op_harness.h. */
#include "loss_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, loss_cases, (int)PF_COUNT(loss_cases));
}
