/* elementwise_avx512.c - the kernels of elementwise_simd.h, 16 floats at a time. */
#include "ops/activation/elementwise_simd.h"
