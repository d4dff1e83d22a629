/* dtype.h - the types that numbers are stored in. One row per type in the traits table;
 * block-quantized types are rows with a block of more than one element. Arithmetic is in pf_real;
 * storage is whatever the file has. */
#ifndef PF_DTYPE_H
#define PF_DTYPE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pf_dtype {
    PF_DTYPE_NONE,
    PF_DTYPE_F64,
    PF_DTYPE_F32,
    PF_DTYPE_F16,
    PF_DTYPE_BF16,
    PF_DTYPE_I64,
    PF_DTYPE_I32,
    PF_DTYPE_I16,
    PF_DTYPE_I8,
    PF_DTYPE_U64,
    PF_DTYPE_U32,
    PF_DTYPE_U16,
    PF_DTYPE_U8,
    PF_DTYPE_BOOL,
    PF_DTYPE_F8_E4M3, /* storage only */
    PF_DTYPE_F8_E5M2, /* storage only */
    PF_DTYPE_COUNT
} pf_dtype;

typedef struct pf_dtype_traits {
    const char *name;       /* as safetensors spells it: "BF16" */
    const char *torch_name; /* "bfloat16" */
    int block;              /* elements per block, 1 for plain types */
    size_t block_bytes;
    bool is_float; /* can be widened to f32 */
} pf_dtype_traits;

const pf_dtype_traits *pf_dtype_info(pf_dtype t);
pf_dtype pf_dtype_by_name(const char *name, size_t n); /* safetensors' spelling; NONE if unknown */
pf_dtype
pf_dtype_by_torch_name(const char *name); /* "bfloat16", "torch.float16", "bf16", "fp32", ... */
/* Bytes of n elements; false on overflow or when n is no multiple of the block. */
bool pf_dtype_bytes(pf_dtype t, uint64_t n, size_t *bytes);

float pf_f16_to_f32(uint16_t h);
uint16_t pf_f32_to_f16(float f); /* to nearest, ties to even; NaN stays NaN */
float pf_bf16_to_f32(uint16_t h);
uint16_t pf_f32_to_bf16(float f);
/* n elements between a floating storage type and f32. src and dst may be unaligned for plain types.
 */
void pf_dtype_to_f32(pf_dtype t, const void *src, size_t n, float *dst);
void pf_dtype_from_f32(pf_dtype t, const float *src, size_t n, void *dst);

#endif
