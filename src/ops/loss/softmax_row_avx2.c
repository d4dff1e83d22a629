/* softmax_row_avx2.c - softmax_row_simd.h compiled for AVX2. */
#include "ops/loss/softmax_row_simd.h"

const pf_softmax_isa pf_softmax_row_avx2 = {"avx2", look, finish};
