/* narrow_int8_avx2.c - 8-bit products of narrow.h for AVX2 alone: bytes are multiplied as 16-bit
 * numbers, in two halves, since the instruction for bytes (vpmaddubsw) saturates. About the rate of
 * f32: what it is for is the same bits as elsewhere. */
#include "ops/matmul/narrow.h"

#include <immintrin.h>

static inline __attribute__((always_inline)) __m256i dot8(__m256i acc, __m256i b, __m256i a) {
    const __m256i even_b = _mm256_and_si256(b, _mm256_set1_epi16(0xff));
    const __m256i even_a = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(even_b, even_a));
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_srli_epi16(b, 8), _mm256_srai_epi16(a, 8)));
}

#include "ops/matmul/narrow_ymm.h"

const pf_narrow_isa pf_narrow_int8_avx2 = {.name = "int8 avx2",
                                           .type = PF_COMPUTE_INT8,
                                           .mr = MR,
                                           .nr = NR,
                                           .row = int8_row,
                                           .pack_rows = int8_pack_rows,
                                           .pack_terms = int8_pack_terms,
                                           .tile = int8_tile};
