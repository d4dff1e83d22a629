/* row_mask_avx512.c - row_mask_simd.h for 16 floats. */
#include "ops/activation/row_mask_simd.h"
