/* rope_avx512.c - the kernel of rope_simd.h, 16 floats at a time. */
#include "ops/attention/rope_simd.h"
