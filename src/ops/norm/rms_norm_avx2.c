/* rms_norm_avx2.c - the kernels of rms_norm_simd.h, 8 floats at a time. */
#include "ops/norm/rms_norm_simd.h"
