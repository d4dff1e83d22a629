/* lowrank_avx512.c - the skinny products of lowrank.h, 16 floats at a time. */
#include "ops/matmul/lowrank_simd.h"
