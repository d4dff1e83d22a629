/* stored_tensor.c - sizes of stored tensors, with every product checked; lookup by name; text for
 * messages. */
#include "formats/stored_tensor.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

peft_status pf_stored_tensor_measure(pf_stored_tensor *t, const char *where, peft_error *err) {
    char name[PF_NAME_TEXT], shape[PF_SHAPE_TEXT];
    PF_ASSERT(t->n_dims >= 0 && t->n_dims <= PF_STORED_DIMS);
    /* Zeros are left out of the product, so that rows * cols fits for any group of dimensions. */
    uint64_t n = 1, product = 1;
    bool empty = false, fits = true;
    for (int i = 0; i < t->n_dims; i++) {
        uint64_t d = (uint64_t)t->shape[i];
        if (t->shape[i] < 0 || (d != 0 && product > (uint64_t)INT64_MAX / d)) {
            fits = false;
            break;
        }
        if (d == 0)
            empty = true;
        else
            product *= d;
    }
    n = empty ? 0 : product;
    const pf_dtype_traits *info = pf_dtype_info(t->dtype);
    if (fits && n % (uint64_t)info->block != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s%stensor %s: shape %s of %s does not fill whole bytes",
                       where != NULL ? where : "", where != NULL ? ": " : "",
                       pf_name_text(t->name, name, sizeof name),
                       pf_shape_text(t, shape, sizeof shape), info->name);
    }
    if (!fits || !pf_dtype_bytes(t->dtype, n, &t->bytes)) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s%stensor %s: shape %s is too large for any machine",
                       where != NULL ? where : "", where != NULL ? ": " : "",
                       pf_name_text(t->name, name, sizeof name),
                       pf_shape_text(t, shape, sizeof shape));
    }
    return PEFT_OK;
}

peft_status pf_stored_tensor_set(pf_stored_tensor *t, const char *name, pf_dtype dtype, int n_dims,
                                 const int64_t *shape, const void *data, peft_error *err) {
    PF_ASSERT(n_dims >= 0 && n_dims <= PF_STORED_DIMS);
    *t = (pf_stored_tensor){.name = name, .dtype = dtype, .n_dims = n_dims, .data = data};
    for (int i = 0; i < n_dims; i++) t->shape[i] = shape[i];
    return pf_stored_tensor_measure(t, NULL, err);
}

int64_t pf_stored_tensor_count(const pf_stored_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->shape[i] == 0) return 0;
    }
    for (int i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

peft_status pf_stored_weight(const pf_stored_tensor *t, const char *path, pf_weight *out,
                             peft_error *err) {
    char name[PF_NAME_TEXT], shape[PF_SHAPE_TEXT];
    const pf_dtype_traits *info = pf_dtype_info(t->dtype);
    int64_t rows = t->n_dims >= 2 ? t->shape[0] : 1, cols = 1;
    for (int i = t->n_dims >= 2 ? 1 : 0; i < t->n_dims; i++) cols *= t->shape[i];
    if (!pf_dtype_readable(t->dtype)) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: tensor %s is stored as %s, which cannot be computed with; convert the model to "
            "bfloat16, float16 or float32",
            path, pf_name_text(t->name, name, sizeof name), info->name);
    }
    if (cols % info->block != 0) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "%s: tensor %s: rows of %s are not whole blocks of %d %s numbers", path,
                       pf_name_text(t->name, name, sizeof name),
                       pf_shape_text(t, shape, sizeof shape), info->block, info->name);
    }
    *out = pf_weight_of(t->name, t->dtype, t->data, rows, cols);
    return PEFT_OK;
}

char *pf_shape_text(const pf_stored_tensor *t, char *out, size_t n) {
    size_t at = 0;
    PF_ASSERT(n >= PF_SHAPE_TEXT);
    out[at++] = '[';
    for (int i = 0; i < t->n_dims; i++) {
        int k = snprintf(out + at, n - at, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
        if (k > 0) at += (size_t)k;
    }
    out[at++] = ']';
    out[at] = 0;
    return out;
}

char *pf_name_text(const char *name, char *out, size_t n) {
    size_t len = strlen(name), at = 0, i = 0;
    PF_ASSERT(n >= 32);
    size_t room = n - 8; /* for the last character, "..." and the quotes */
    out[at++] = '\'';
    while (i < len && at + 5 < room) {
        uint32_t cp;
        int k = pf_utf8_decode(name + i, len - i, &cp);
        if (k <= 0 || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            int w = snprintf(out + at, n - at, "\\x%02x", (unsigned char)name[i]);
            if (w > 0) at += (size_t)w;
            i++;
            continue;
        }
        memcpy(out + at, name + i, (size_t)k);
        at += (size_t)k;
        i += (size_t)k;
    }
    if (i < len) {
        memcpy(out + at, "...", 3);
        at += 3;
    }
    out[at++] = '\'';
    out[at] = 0;
    return out;
}

/* ---- order by name ----------------------------------------------------------------- */

typedef struct name_index {
    const char *name;
    int index;
} name_index;

static int compare_names(const void *a, const void *b) {
    const name_index *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c != 0 ? c : (x->index > y->index) - (x->index < y->index);
}

peft_status pf_stored_tensor_sort(const pf_stored_tensor *tensors, int n, int *by_name,
                                  peft_error *err) {
    name_index *list = pf_calloc((size_t)n + 1, sizeof *list);
    PF_CHECK_ALLOC(list, err);
    for (int i = 0; i < n; i++) list[i] = (name_index){tensors[i].name, i};
    qsort(list, (size_t)n, sizeof *list, compare_names);
    for (int i = 0; i < n; i++) by_name[i] = list[i].index;
    pf_free(list);
    return PEFT_OK;
}

int pf_stored_tensor_find(const pf_stored_tensor *tensors, int n, const int *by_name,
                          const char *name) {
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(tensors[by_name[mid]].name, name);
        if (c == 0) return by_name[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return -1;
}
