/* scale_avx512.c - scale_simd.h for 16 floats. */
#include "ops/activation/scale_simd.h"
