/* softmax_row_avx512.c - softmax_row_simd.h compiled for AVX512. */
#include "ops/loss/softmax_row_simd.h"

const pf_softmax_isa pf_softmax_row_avx512 = {"avx512", look, finish};
