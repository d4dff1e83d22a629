/* scale_avx2.c - scale_simd.h for 8 floats. */
#include "ops/activation/scale_simd.h"
