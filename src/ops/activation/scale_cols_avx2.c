/* scale_cols_avx2.c - the kernels of scale_cols_simd.h, 8 floats at a time. */
#include "ops/activation/scale_cols_simd.h"
