/* head_ce_avx512.c - the passes over a tile of logits, 16 floats at a time. */
#include "ops/loss/head_ce_simd.h"
