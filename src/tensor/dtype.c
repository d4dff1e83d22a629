/* dtype.c - the table of stored types and their codecs: one pair of row functions per type, in
 * plain C. The rows of the half types have a faster twin in dtype_avx2.c. */
#include "tensor/dtype.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"

#include "base/banned.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "files hold little-endian numbers that are mapped in place"
#endif

/* The double-precision engine of the tests is built from the reference kernels alone. */
#if defined(__x86_64__) && !defined(PF_DOUBLE)
#define FAST_ROWS
#endif

/* Sources may stand at any address, so every load is a memcpy; compilers turn it into the plain
 * load. */
#define READER(codec, type)                                                                        \
    static void codec##_read(const void *src, size_t n, float *dst) {                              \
        const unsigned char *p = src;                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            type v;                                                                                \
            memcpy(&v, p + i * sizeof v, sizeof v);                                                \
            dst[i] = (float)v;                                                                     \
        }                                                                                          \
    }

READER(f64, double)
READER(i8, int8_t)
READER(i16, int16_t)
READER(i32, int32_t)
READER(i64, int64_t)
READER(u8, uint8_t)
READER(u16, uint16_t)
READER(u32, uint32_t)
READER(u64, uint64_t)

static void f32_read(const void *src, size_t n, float *dst) {
    if (n > 0) memcpy(dst, src, n * sizeof *dst);
}

static void f32_write(const float *src, size_t n, void *dst) {
    if (n > 0) memcpy(dst, src, n * sizeof *src);
}

static void f64_write(const float *src, size_t n, void *dst) {
    unsigned char *p = dst;
    for (size_t i = 0; i < n; i++) {
        double v = (double)src[i];
        memcpy(p + i * sizeof v, &v, sizeof v);
    }
}

static void bool8_read(const void *src, size_t n, float *dst) {
    const unsigned char *p = src;
    for (size_t i = 0; i < n; i++) dst[i] = p[i] != 0 ? 1.0f : 0.0f;
}

static void f16_read(const void *src, size_t n, float *dst) {
    const unsigned char *p = src;
#ifdef FAST_ROWS
    if (pf_cpu_level() >= PF_ISA_AVX2) {
        pf_f16_to_f32_avx2(src, n, dst);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + i * sizeof h, sizeof h);
        dst[i] = pf_f16_to_f32(h);
    }
}

static void f16_write(const float *src, size_t n, void *dst) {
    unsigned char *p = dst;
#ifdef FAST_ROWS
    if (pf_cpu_level() >= PF_ISA_AVX2) {
        pf_f32_to_f16_avx2(src, n, dst);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        uint16_t h = pf_f32_to_f16(src[i]);
        memcpy(p + i * sizeof h, &h, sizeof h);
    }
}

static void bf16_read(const void *src, size_t n, float *dst) {
    const unsigned char *p = src;
#ifdef FAST_ROWS
    if (pf_cpu_level() >= PF_ISA_AVX2) {
        pf_bf16_to_f32_avx2(src, n, dst);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + i * sizeof h, sizeof h);
        dst[i] = pf_bf16_to_f32(h);
    }
}

static void bf16_write(const float *src, size_t n, void *dst) {
    unsigned char *p = dst;
#ifdef FAST_ROWS
    if (pf_cpu_level() >= PF_ISA_AVX2) {
        pf_f32_to_bf16_avx2(src, n, dst);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        uint16_t h = pf_f32_to_bf16(src[i]);
        memcpy(p + i * sizeof h, &h, sizeof h);
    }
}

/* Numbers are computed as floats and stored in float types; nothing is ever narrowed to an integer.
 */
#define none_read   NULL
#define none_write  NULL
#define i8_write    NULL
#define i16_write   NULL
#define i32_write   NULL
#define i64_write   NULL
#define u8_write    NULL
#define u16_write   NULL
#define u32_write   NULL
#define u64_write   NULL
#define bool8_write NULL

static const pf_dtype_traits traits[PF_DTYPE_COUNT] = {
    [PF_DTYPE_NONE] = {"none", NULL, 1, 0, 1, 0, false, NULL, NULL},
#define PF_DTYPE_ROW(id, st, torch, block, bytes, align, order, is_float, codec)                   \
    [PF_DTYPE_##                                                                                   \
        id] = {st, torch, block, bytes, align, order, is_float, codec##_read, codec##_write},
    PF_DTYPE_LIST(PF_DTYPE_ROW)
#undef PF_DTYPE_ROW
};

const pf_dtype_traits *pf_dtype_info(pf_dtype t) {
    PF_ASSERT((unsigned)t < PF_DTYPE_COUNT);
    return &traits[t];
}

bool pf_dtype_readable(pf_dtype t) {
    return pf_dtype_info(t)->to_f32 != NULL;
}
bool pf_dtype_writable(pf_dtype t) {
    return pf_dtype_info(t)->from_f32 != NULL;
}

pf_dtype pf_dtype_by_name(const char *name, size_t n) {
    for (int i = PF_DTYPE_NONE + 1; i < PF_DTYPE_COUNT; i++) {
        const char *s = traits[i].name;
        if (strlen(s) == n && memcmp(s, name, n) == 0) return (pf_dtype)i;
    }
    return PF_DTYPE_NONE;
}

pf_dtype pf_dtype_by_torch_name(const char *name) {
    /* what people write in configuration files beside torch's own names */
    static const struct {
        const char *name;
        pf_dtype dtype;
    } short_names[] = {
        {"fp32", PF_DTYPE_F32},   {"f32", PF_DTYPE_F32},  {"float", PF_DTYPE_F32},
        {"fp16", PF_DTYPE_F16},   {"f16", PF_DTYPE_F16},  {"half", PF_DTYPE_F16},
        {"bf16", PF_DTYPE_BF16},  {"fp64", PF_DTYPE_F64}, {"f64", PF_DTYPE_F64},
        {"double", PF_DTYPE_F64}, {"long", PF_DTYPE_I64}, {"int", PF_DTYPE_I32},
    };
    if (pf_starts_with(name, "torch.")) name += strlen("torch.");
    for (int i = PF_DTYPE_NONE + 1; i < PF_DTYPE_COUNT; i++) {
        if (pf_streq(name, traits[i].torch_name)) return (pf_dtype)i;
    }
    for (size_t i = 0; i < PF_COUNT(short_names); i++) {
        if (pf_streq(name, short_names[i].name)) return short_names[i].dtype;
    }
    return PF_DTYPE_NONE;
}

bool pf_dtype_bytes(pf_dtype t, uint64_t n, size_t *bytes) {
    const pf_dtype_traits *info = pf_dtype_info(t);
    uint64_t block = (uint64_t)info->block;
    if (n % block != 0 || n / block > SIZE_MAX) return false;
    return pf_mul_size((size_t)(n / block), info->block_bytes, bytes);
}

void pf_dtype_to_f32(pf_dtype t, const void *src, size_t n, float *dst) {
    const pf_dtype_traits *info = pf_dtype_info(t);
    PF_ASSERT(info->to_f32 != NULL && n % (size_t)info->block == 0);
    info->to_f32(src, n, dst);
}

void pf_dtype_from_f32(pf_dtype t, const float *src, size_t n, void *dst) {
    const pf_dtype_traits *info = pf_dtype_info(t);
    PF_ASSERT(info->from_f32 != NULL && n % (size_t)info->block == 0);
    info->from_f32(src, n, dst);
}
