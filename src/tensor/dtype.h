/* dtype.h - the types in which numbers are stored, and the way to and from float. Arithmetic is in
 * pf_real (real.h); storage is whatever the file has.
 *
 * One row per type in PF_DTYPE_LIST feeds the enum, the traits and the readers; nothing else lists
 * them. A type is a run of blocks: `block` elements in `block_bytes` bytes. Plain types have a
 * block of one; a packed or block-quantized type is a row with a larger block and a codec of its
 * own that widens whole blocks. A type without a codec ("none") can be listed, moved and written,
 * but not computed with: pf_dtype_readable says so before anybody tries.
 *
 * Stored numbers are little-endian, as is every machine this program runs on (checked in dtype.c),
 * and may stand at any address: readers never assume alignment. Kernels that take a typed pointer
 * do; see pf_tensor_source_align. */
#ifndef PF_DTYPE_H
#define PF_DTYPE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* clang-format off */
/* order: among the tensors of a safetensors file, the type with the larger one comes first (as the library writes them).
 * float: arithmetic on it means something. A name that a format does not have is NULL.
 *    id           safetensors    torch              block bytes align order float codec */
#define PF_DTYPE_LIST(X) \
    X(F64,         "F64",         "float64",          1, 8, 8, 20, true,  f64) \
    X(F32,         "F32",         "float32",          1, 4, 4, 18, true,  f32) \
    X(F16,         "F16",         "float16",          1, 2, 2, 14, true,  f16) \
    X(BF16,        "BF16",        "bfloat16",         1, 2, 2, 15, true,  bf16) \
    X(I64,         "I64",         "int64",            1, 8, 8, 21, false, i64) \
    X(I32,         "I32",         "int32",            1, 4, 4, 16, false, i32) \
    X(I16,         "I16",         "int16",            1, 2, 2, 12, false, i16) \
    X(I8,          "I8",          "int8",             1, 1, 1,  6, false, i8) \
    X(U64,         "U64",         "uint64",           1, 8, 8, 22, false, u64) \
    X(U32,         "U32",         "uint32",           1, 4, 4, 17, false, u32) \
    X(U16,         "U16",         "uint16",           1, 2, 2, 13, false, u16) \
    X(U8,          "U8",          "uint8",            1, 1, 1,  5, false, u8) \
    X(BOOL,        "BOOL",        "bool",             1, 1, 1,  1, false, bool8) \
    X(F8_E4M3,     "F8_E4M3",     "float8_e4m3fn",    1, 1, 1,  8, true,  none) \
    X(F8_E5M2,     "F8_E5M2",     "float8_e5m2",      1, 1, 1,  7, true,  none) \
    X(F8_E8M0,     "F8_E8M0",     "float8_e8m0fnu",   1, 1, 1,  9, true,  none) \
    X(F8_E4M3FNUZ, "F8_E4M3FNUZ", "float8_e4m3fnuz",  1, 1, 1, 10, true,  none) \
    X(F8_E5M2FNUZ, "F8_E5M2FNUZ", "float8_e5m2fnuz",  1, 1, 1, 11, true,  none) \
    X(F6_E2M3,     "F6_E2M3",     NULL,               4, 3, 1,  3, true,  none) \
    X(F6_E3M2,     "F6_E3M2",     NULL,               4, 3, 1,  4, true,  none) \
    X(F4,          "F4",          "float4_e2m1fn_x2", 2, 1, 1,  2, true,  none) \
    X(C64,         "C64",         "complex64",        1, 8, 4, 19, false, none)
/* clang-format on */

typedef enum pf_dtype {
    PF_DTYPE_NONE,
#define PF_DTYPE_ENUM(id, st, torch, block, bytes, align, order, is_float, codec) PF_DTYPE_##id,
    PF_DTYPE_LIST(PF_DTYPE_ENUM)
#undef PF_DTYPE_ENUM
        PF_DTYPE_COUNT
} pf_dtype;

typedef struct pf_dtype_traits {
    const char *name;       /* as safetensors spells it: "BF16"; ours in messages */
    const char *torch_name; /* "bfloat16"; NULL where torch has no such type */
    int block;              /* elements per block, 1 for plain types */
    size_t block_bytes;
    size_t align; /* what a typed pointer to it needs */
    int order;
    bool is_float;
    /* n is a multiple of block; NULL where the type is storage only */
    void (*to_f32)(const void *src, size_t n, float *dst);
    void (*from_f32)(const float *src, size_t n, void *dst);
} pf_dtype_traits;

const pf_dtype_traits *pf_dtype_info(pf_dtype t); /* NONE has the name "none" and no elements */
bool pf_dtype_readable(pf_dtype t);               /* pf_dtype_to_f32 works */
bool pf_dtype_writable(pf_dtype t);               /* pf_dtype_from_f32 works: F64, F32, F16, BF16 */

pf_dtype pf_dtype_by_name(const char *name, size_t n); /* safetensors' spelling; NONE if unknown */
pf_dtype pf_dtype_by_torch_name(
    const char *name); /* "bfloat16", "torch.float16", "bf16", "fp32", "half", ... */

/* Bytes of n elements; false on overflow or when n is no multiple of the block; *bytes is then
 * untouched. */
bool pf_dtype_bytes(pf_dtype t, uint64_t n, size_t *bytes);

/* n elements, whole blocks, of a type that is readable / writable; at any address. Narrowing rounds
 * to nearest, ties to even; values too large become infinities; a NaN stays a NaN (made quiet, sign
 * and leading bits kept). */
void pf_dtype_to_f32(pf_dtype t, const void *src, size_t n, float *dst);
void pf_dtype_from_f32(pf_dtype t, const float *src, size_t n, void *dst);

/* The rows of the two half types for processors with AVX2 and F16C, chosen by pf_dtype_to_f32; the
 * same bits. */
void pf_f16_to_f32_avx2(const void *src, size_t n, float *dst);
void pf_f32_to_f16_avx2(const float *src, size_t n, void *dst);
void pf_bf16_to_f32_avx2(const void *src, size_t n, float *dst);
void pf_f32_to_bf16_avx2(const float *src, size_t n, void *dst);

static inline uint32_t pf_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float pf_f32_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float pf_bf16_to_f32(uint16_t h) {
    return pf_f32_of_bits((uint32_t)h << 16);
}

static inline uint16_t pf_f32_to_bf16(float f) {
    uint32_t u = pf_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static inline float pf_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h >> 10 & 0x1fu, frac = h & 0x3ffu;
    if (exp == 0) {
        float tiny = (float)frac * 0x1p-24f; /* subnormal or zero: exact */
        return pf_f32_of_bits(sign | pf_f32_bits(tiny));
    }
    if (exp == 0x1f) {
        return pf_f32_of_bits(sign | 0x7f800000u | frac << 13 | (frac != 0 ? 0x400000u : 0));
    }
    return pf_f32_of_bits(sign | (exp + 112u) << 23 | frac << 13);
}

static inline uint16_t pf_f32_to_f16(float f) {
    uint32_t u = pf_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu, out;
    if (a > 0x7f800000u) {
        out = 0x7e00u | (a >> 13 & 0x3ffu);
    } else if (a >= 0x477ff000u) { /* 65520, half way past the largest: rounds to infinity */
        out = 0x7c00u;
    } else if (a >= 0x38800000u) { /* normal; a carry out of the fraction raises the exponent, as it
                                      should */
        uint32_t r = a - 0x38000000u;
        out = (r + 0xfffu + (r >> 13 & 1u)) >> 13;
    } else if (a <= 0x33000000u) { /* up to half of the smallest subnormal */
        out = 0;
    } else {
        uint32_t shift = 126u - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;
        uint32_t rest = m & ((1u << shift) - 1u), half = 1u << (shift - 1u);
        out = m >> shift;
        if (rest > half || (rest == half && (out & 1u) != 0)) out++;
    }
    return (uint16_t)(sign | out);
}

#endif
