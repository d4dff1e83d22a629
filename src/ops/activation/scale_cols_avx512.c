/* scale_cols_avx512.c - the kernels of scale_cols_simd.h, 16 floats at a time. */
#include "ops/activation/scale_cols_simd.h"
