/* adamw_avx512.c - the step of adamw_simd.h, 16 floats at a time. */
#include "ops/optim/adamw_simd.h"
