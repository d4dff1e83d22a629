/* weight.c - views of stored matrices: cutting, turning, and widening a tile. See weight.h for what
 * the fields mean. */
#include "tensor/weight.h"

#include "base/banned.h"

/* Elements widened at a time on the stack. No type that can be read has a larger block. */
#define STRETCH 256

pf_weight pf_weight_of(const char *name, pf_dtype dtype, const void *data, int64_t rows,
                       int64_t cols) {
    PF_ASSERT(rows >= 0 && cols >= 0 && cols % pf_dtype_info(dtype)->block == 0);
    return (pf_weight){
        .name = name, .dtype = dtype, .data = data, .rows = rows, .cols = cols, .stride = cols};
}

/* The stored element (i, j), j at a block boundary. */
static const unsigned char *element(const pf_weight *w, int64_t i, int64_t j) {
    const pf_dtype_traits *t = pf_dtype_info(w->dtype);
    size_t blocks = (size_t)(i * w->stride + j) / (size_t)t->block;
    return (const unsigned char *)w->data + blocks * t->block_bytes;
}

static int64_t stored_row(const pf_weight *w, int64_t i) {
    return w->row_perm != NULL ? w->row_perm[i] : i;
}

pf_weight pf_weight_slice_rows(const pf_weight *w, int64_t first, int64_t n) {
    PF_ASSERT(first >= 0 && n >= 0 && first <= w->rows && n <= w->rows - first);
    pf_weight v = *w;
    v.rows = n;
    if (w->row_scale != NULL) v.row_scale = w->row_scale + first;
    if (w->transposed) {
        int block = pf_dtype_info(w->dtype)->block;
        PF_ASSERT(first % block == 0 && n % block == 0);
        if (w->data != NULL) v.data = element(w, 0, first);
    } else if (w->row_perm != NULL) {
        v.row_perm = w->row_perm + first;
    } else if (w->data != NULL) {
        v.data = element(w, first, 0);
    }
    return v;
}

pf_weight pf_weight_transpose(const pf_weight *w) {
    pf_weight v = *w;
    v.rows = w->cols;
    v.cols = w->rows;
    v.transposed = !w->transposed;
    v.row_scale = NULL;
    return v;
}

void pf_weight_row_scales(const pf_weight *w, int64_t first, int64_t n, float *scale) {
    for (int64_t i = 0; i < n; i++) {
        pf_real top[8] = {0}, odd[8] = {0}, tile[STRETCH];
        for (int64_t j = 0; j < w->cols; j += STRETCH) {
            const int64_t m = w->cols - j < STRETCH ? w->cols - j : STRETCH;
            memset(tile, 0, sizeof tile);
            pf_weight_read_tile(w, first + i, 1, j, m, tile, m);
            for (int64_t c = 0; c < m; c += 8) { /* eight chains: one would wait for itself */
                for (int l = 0; l < 8; l++) {
                    const pf_real a = tile[c + l] < 0 ? -tile[c + l] : tile[c + l];
                    top[l] = a > top[l] ? a : top[l];
                    odd[l] += a - a; /* 0, or NaN where a number is not finite */
                }
            }
        }
        pf_real most = 0, not_finite = 0;
        for (int l = 0; l < 8; l++) {
            most = top[l] > most ? top[l] : most;
            not_finite += odd[l];
        }
        scale[i] = (float)(most + not_finite) / 127;
    }
}

size_t pf_weight_bytes(const pf_weight *w) {
    size_t bytes = 0;
    bool fits = pf_dtype_bytes(w->dtype, (uint64_t)w->rows * (uint64_t)w->cols, &bytes);
    PF_ASSERT(fits);
    return bytes;
}

/* Stored (i, j0 .. j0+n-1) as floats into dst. j0 and n need not respect blocks: the whole blocks
 * around them are widened on the stack and the wanted part copied. */
static void read_row(const pf_weight *w, int64_t i, int64_t j0, int64_t n, float *dst) {
    const pf_dtype_traits *t = pf_dtype_info(w->dtype);
    int64_t whole = j0 % t->block == 0 ? n - n % t->block : 0;
    if (whole > 0) t->to_f32(element(w, i, j0), (size_t)whole, dst);
    for (int64_t done = whole; done < n;) {
        float wide[STRETCH];
        int64_t j = j0 + done, skip = j % t->block;
        t->to_f32(element(w, i, j - skip), (size_t)t->block, wide);
        int64_t take = t->block - skip < n - done ? t->block - skip : n - done;
        memcpy(dst + done, wide + skip, (size_t)take * sizeof *dst);
        done += take;
    }
}

void pf_weight_read_tile(const pf_weight *w, int64_t row0, int64_t n_rows, int64_t col0,
                         int64_t n_cols, pf_real *dst, int64_t ld) {
    PF_ASSERT(row0 >= 0 && n_rows >= 0 && row0 <= w->rows && n_rows <= w->rows - row0);
    PF_ASSERT(col0 >= 0 && n_cols >= 0 && col0 <= w->cols && n_cols <= w->cols - col0);
    PF_ASSERT(ld >= n_cols && pf_dtype_readable(w->dtype) &&
              pf_dtype_info(w->dtype)->block <= STRETCH);
    if (n_rows == 0 || n_cols == 0) return;
    float part[STRETCH];
    if (!w->transposed) {
        for (int64_t r = 0; r < n_rows; r++) {
            int64_t i = stored_row(w, row0 + r);
#ifdef PF_DOUBLE
            for (int64_t c = 0; c < n_cols; c += STRETCH) {
                int64_t n = n_cols - c < STRETCH ? n_cols - c : STRETCH;
                read_row(w, i, col0 + c, n, part);
                for (int64_t k = 0; k < n; k++) dst[r * ld + c + k] = part[k];
            }
#else
            read_row(w, i, col0, n_cols, dst + r * ld);
#endif
        }
        return;
    }
    /* Stored rows are the tile's columns: widen a stretch of one, then deal it out down a column of
     * dst. */
    for (int64_t r = 0; r < n_rows; r += STRETCH) {
        int64_t n = n_rows - r < STRETCH ? n_rows - r : STRETCH;
        for (int64_t c = 0; c < n_cols; c++) {
            read_row(w, stored_row(w, col0 + c), row0 + r, n, part);
            for (int64_t k = 0; k < n; k++) dst[(r + k) * ld + c] = part[k];
        }
    }
}

static bool plain(const pf_weight *w, pf_dtype dtype) {
    return w->dtype == dtype && w->data != NULL && !w->transposed && w->row_perm == NULL &&
           (uintptr_t)w->data % pf_dtype_info(dtype)->align == 0;
}

bool pf_weight_is_plain_f32(const pf_weight *w, const float **ptr) {
    if (!plain(w, PF_DTYPE_F32)) return false;
    *ptr = w->data;
    return true;
}

bool pf_weight_is_plain_u16(const pf_weight *w, pf_dtype dtype, const uint16_t **ptr) {
    PF_ASSERT(dtype == PF_DTYPE_F16 || dtype == PF_DTYPE_BF16);
    if (!plain(w, dtype)) return false;
    *ptr = w->data;
    return true;
}

const void *pf_weight_stored_row(const pf_weight *w, int64_t i) {
    return element(w, stored_row(w, i), 0);
}
