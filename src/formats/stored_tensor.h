/* stored_tensor.h - one tensor of a file: what readers hand out and what writers are given a list
 * of.
 *
 * A shape has at most PF_STORED_DIMS dimensions, none negative, and the product of those that are
 * not zero fits an int64_t; `bytes` is what shape and type need, so nobody has to check an index
 * computed from the shape again. */
#ifndef PF_STORED_TENSOR_H
#define PF_STORED_TENSOR_H

#include "tensor/weight.h"

#define PF_STORED_DIMS 8

typedef struct pf_stored_tensor {
    const char *name; /* UTF-8; borrowed from the file's arena, or from the caller of a writer */
    pf_dtype dtype;
    int n_dims; /* 0: a scalar */
    int64_t shape[PF_STORED_DIMS];
    size_t bytes;
    const void *data; /* read-only, mostly mapped; NULL when nothing is stored, or not yet */
    int file;         /* which file of its source */
} pf_stored_tensor;

typedef struct pf_metadata {
    const char *key, *value;
} pf_metadata;

/* Sets dtype, shape and bytes of a tensor that is to be written; fails as a reader would. */
peft_status pf_stored_tensor_set(pf_stored_tensor *t, const char *name, pf_dtype dtype, int n_dims,
                                 const int64_t *shape, const void *data, peft_error *err);
/* bytes from dtype, n_dims and shape. `where`, a file, begins the message; or NULL. */
peft_status pf_stored_tensor_measure(pf_stored_tensor *t, const char *where, peft_error *err);
int64_t pf_stored_tensor_count(const pf_stored_tensor *t); /* elements */

/* The tensor as a matrix: a vector is one row, and dimensions past the first are taken together.
 * Fails for types that cannot be computed with. `path` is for the message. */
peft_status pf_stored_weight(const pf_stored_tensor *t, const char *path, pf_weight *out,
                             peft_error *err);

/* "[32,128]" into a caller's buffer of at least PF_SHAPE_TEXT bytes, which is returned. */
#define PF_SHAPE_TEXT (PF_STORED_DIMS * 21 + 3)
char *pf_shape_text(const pf_stored_tensor *t, char *out, size_t n);

/* A name from a file, fit to be shown: quoted, control characters escaped, cut when long. Returns
 * out. */
#define PF_NAME_TEXT 160
char *pf_name_text(const char *name, char *out, size_t n);

/* Indices 0..n-1 in order of name (bytes). */
peft_status pf_stored_tensor_sort(const pf_stored_tensor *tensors, int n, int *by_name,
                                  peft_error *err);
/* The index of a name in a list that by_name sorts, or -1. */
int pf_stored_tensor_find(const pf_stored_tensor *tensors, int n, const int *by_name,
                          const char *name);

#endif
