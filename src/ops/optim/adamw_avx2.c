/* adamw_avx2.c - the step of adamw_simd.h, 8 floats at a time. */
#include "ops/optim/adamw_simd.h"
