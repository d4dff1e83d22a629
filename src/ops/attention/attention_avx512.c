/* attention_avx512.c - the inside of attention's tiles, 16 floats at a time; see attention_simd.h.
 */
#include "ops/attention/attention_simd.h"
