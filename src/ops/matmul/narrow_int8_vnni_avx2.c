/* narrow_int8_vnni_avx2.c - 8-bit products of narrow.h for AVX2 with AVX-VNNI (laptops since 2021).
 */
#include "ops/matmul/narrow.h"

#include <immintrin.h>

/* The instruction by name: gcc copies the accumulator around its intrinsic. */
static inline __attribute__((always_inline)) __m256i dot8(__m256i acc, __m256i b, __m256i a) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(b), "x"(a));
    return acc;
}

#include "ops/matmul/narrow_ymm.h"

const pf_narrow_isa pf_narrow_int8_avxvnni = {.name = "int8 avxvnni",
                                              .type = PF_COMPUTE_INT8,
                                              .mr = MR,
                                              .nr = NR,
                                              .row = int8_row,
                                              .pack_rows = int8_pack_rows,
                                              .pack_terms = int8_pack_terms,
                                              .tile = int8_tile};
