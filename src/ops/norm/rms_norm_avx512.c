/* rms_norm_avx512.c - the kernels of rms_norm_simd.h, 16 floats at a time. */
#include "ops/norm/rms_norm_simd.h"
