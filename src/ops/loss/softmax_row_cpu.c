/* softmax_row_cpu.c - the reference of softmax_row.h, and the choice among the fast ones. */
#include "ops/loss/softmax_row.h"

static pf_softmax_row look(const pf_real *z, int64_t n) {
    pf_softmax_row r = {.max = z[0]};
    for (int64_t i = 1; i < n; i++) {
        if (z[i] > r.max) {
            r.max = z[i];
            r.top = i;
        }
    }
    for (int64_t i = 0; i < n; i++) r.sum += pf_rexp(z[i] - r.max);
    return r;
}

static void finish(pf_real *z, int64_t n, pf_real max, pf_real factor) {
    for (int64_t i = 0; i < n; i++) z[i] = pf_rexp(z[i] - max) * factor;
}

const pf_softmax_isa pf_softmax_plain = {"reference", look, finish};

const pf_softmax_isa *pf_softmax_best(void) {
#ifndef PF_DOUBLE
    if (pf_cpu_level() >= PF_ISA_AVX512) return &pf_softmax_row_avx512;
    if (pf_cpu_level() >= PF_ISA_AVX2) return &pf_softmax_row_avx2;
#endif
    return &pf_softmax_plain;
}
