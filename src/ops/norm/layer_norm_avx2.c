/* layer_norm_avx2.c - the kernels of layer_norm_simd.h, 8 floats at a time. */
#include "ops/norm/layer_norm_simd.h"
