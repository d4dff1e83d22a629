/* rope_avx2.c - the kernel of rope_simd.h, 8 floats at a time. */
#include "ops/attention/rope_simd.h"
