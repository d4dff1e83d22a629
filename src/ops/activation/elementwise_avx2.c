/* elementwise_avx2.c - the kernels of elementwise_simd.h, 8 floats at a time. */
#include "ops/activation/elementwise_simd.h"
