/* head_ce_avx2.c - the passes over a tile of logits, 8 floats at a time. */
#include "ops/loss/head_ce_simd.h"
