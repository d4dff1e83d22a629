/* compute.c - the names of compute.h. */
#include "tensor/compute.h"

#include <string.h>

static const char *const names[] = {"f32", "bf16", "int8"};

const char *pf_compute_name(pf_compute c) {
    return names[c];
}

bool pf_compute_by_name(const char *name, pf_compute *c) {
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *c = (pf_compute)i;
        return true;
    }
    return false;
}
