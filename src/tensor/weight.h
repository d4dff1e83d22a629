/* weight.h - a read-only view of stored numbers as a matrix of `rows` outputs by `cols` inputs (a
 * linear layer as torch has it: y = x Wᵀ). A view borrows: the numbers stay mapped in the file, in
 * the type that the file has, and products widen tiles of it in cache. Slices, transposes and row
 * permutations are views too; nothing is copied.
 *
 * Storage is rows of `stride` elements. Element (r, c) of the view is
 *     stored (p(r), c)   when not transposed,      with p(i) = row_perm != NULL ? row_perm[i] : i
 *     stored (p(c), r)   when transposed.
 * The permutation always reorders stored rows, so it survives a transpose. Views are copied by
 * assignment. Sizes that come from a file are checked before a view is made (pf_stored_weight in
 * formats/tensor_source.h does); here a wrong one is our own mistake. */
#ifndef PF_WEIGHT_H
#define PF_WEIGHT_H

#include "tensor/dtype.h"
#include "tensor/real.h"

typedef struct pf_weight {
    const char *name; /* for messages; borrowed */
    pf_dtype dtype;
    const void
        *data; /* borrowed, at any alignment; NULL when only shapes are known (null backend) */
    int64_t rows, cols;      /* logical, after the transpose */
    int64_t stride;          /* elements between stored rows */
    bool transposed;         /* stored as [cols, rows] (GPT-2's Conv1D) */
    const int32_t *row_perm; /* see above; NULL is the identity; borrowed */
    const float *row_scale;  /* (rows) pf_weight_row_scales, for int8 products; NULL; borrowed */
} pf_weight;

/* A contiguous [rows, cols] matrix; a vector has rows 1. */
pf_weight pf_weight_of(const char *name, pf_dtype dtype, const void *data, int64_t rows,
                       int64_t cols);
/* Logical rows first .. first + n - 1. Of a transposed view of a block type: at block boundaries.
 */
pf_weight pf_weight_slice_rows(const pf_weight *w, int64_t first, int64_t n);
pf_weight pf_weight_transpose(const pf_weight *w);
/* max |w| / 127 of rows [first, first + n) of the view: the step of an 8-bit integer. Any thread.
 */
void pf_weight_row_scales(const pf_weight *w, int64_t first, int64_t n, float *scale);
size_t pf_weight_bytes(const pf_weight *w); /* as stored */

/* Rows [row0, row0 + n_rows), columns [col0, col0 + n_cols) into dst[i * ld + j]. Any thread. */
void pf_weight_read_tile(const pf_weight *w, int64_t row0, int64_t n_rows, int64_t col0,
                         int64_t n_cols, pf_real *dst, int64_t ld);
/* Direct access where a kernel can use the stored numbers as they stand: true if the view is f32,
 * aligned, not transposed and not permuted; *ptr is then row 0 and `stride` the distance between
 * rows. */
bool pf_weight_is_plain_f32(const pf_weight *w, const float **ptr);
/* The same for the two half types, whose rows a kernel widens by itself. */
bool pf_weight_is_plain_u16(const pf_weight *w, pf_dtype dtype, const uint16_t **ptr);
/* The stored bytes of one stored row (a logical row when not transposed). */
const void *pf_weight_stored_row(const pf_weight *w, int64_t i);

#endif
