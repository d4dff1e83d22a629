/* weight.h - a read-only view of stored numbers as a matrix of `rows` outputs by `cols` inputs (a
 * linear layer as torch has it: y = x Wᵀ). A view borrows: the numbers stay mapped in the file, in
 * the type that the file has, and products widen tiles of it in cache. Slices, transposes and row
 * permutations are views too; nothing is copied. */
#ifndef PF_WEIGHT_H
#define PF_WEIGHT_H

#include "tensor/dtype.h"
#include "tensor/real.h"

typedef struct pf_weight {
    const char *name; /* for messages; borrowed */
    pf_dtype dtype;
    const void *data;   /* borrowed; NULL when only shapes are known (null backend) */
    int64_t rows, cols; /* logical, after the transpose */
    int64_t stride;     /* elements between stored rows */
    bool transposed;    /* stored as [cols, rows] (GPT-2's Conv1D) */
    const int32_t
        *row_perm; /* logical row i is stored row row_perm[i]; NULL is the identity; borrowed */
} pf_weight;

/* A contiguous [rows, cols] matrix; a vector has rows 1. */
pf_weight pf_weight_of(const char *name, pf_dtype dtype, const void *data, int64_t rows,
                       int64_t cols);
pf_weight pf_weight_slice_rows(const pf_weight *w, int64_t first, int64_t n); /* logical rows */
pf_weight pf_weight_transpose(const pf_weight *w);
size_t pf_weight_bytes(const pf_weight *w); /* as stored */

/* Rows [row0, row0 + n_rows), columns [col0, col0 + n_cols) into dst[i * ld + j]. Any thread. */
void pf_weight_read_tile(const pf_weight *w, int64_t row0, int64_t n_rows, int64_t col0,
                         int64_t n_cols, pf_real *dst, int64_t ld);
/* Direct access where a kernel can use the stored numbers as they stand: true if the view is f32,
 * not transposed and not permuted; *ptr is then row 0 and `stride` the distance between rows. */
bool pf_weight_is_plain_f32(const pf_weight *w, const float **ptr);

#endif
