/* layer_norm_avx512.c - the kernels of layer_norm_simd.h, 16 floats at a time. */
#include "ops/norm/layer_norm_simd.h"
