/* row_mask_avx2.c - row_mask_simd.h for 8 floats. */
#include "ops/activation/row_mask_simd.h"
