/* attention_avx2.c - the inside of attention's tiles, 8 floats at a time; see attention_simd.h. */
#include "ops/attention/attention_simd.h"
