/* DoRA's ops in float: see ops/op_harness.h. */
#include "dora_cases.h"

int main(int argc, char **argv) {
    return op_harness_main(argc, argv, dora_cases, (int)PF_COUNT(dora_cases));
}
