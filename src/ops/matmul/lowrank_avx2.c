/* lowrank_avx2.c - the skinny products of lowrank.h, 8 floats at a time. */
#include "ops/matmul/lowrank_simd.h"
