/* khatri_rao.c - see khatri_rao.h. Elements are independent; sums of the gradient go over r or s in
 * ascending order. */
#include "peft/delta/delta_maps.h"

/* ---- rows ------------------------------------------------------------------------------------ */

static bool rows_shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0].rows = in[0].rows;
    out[0].cols = in[0].cols * in[1].cols;
    return in[0].rows == in[1].rows;
}

static void rows_forward(const pf_derive_run *r) {
    const double scale = *(const double *)r->args;
    const int64_t R = r->in[0].cols, S = r->in[1].cols;
    for (int64_t o = 0; o < r->in[0].rows; o++) {
        const pf_real *a = r->in[0].data + o * R, *b = r->in[1].data + o * S;
        pf_real *z = r->out[0].data + o * R * S;
        for (int64_t i = 0; i < R; i++) {
            const pf_real f = (pf_real)scale * a[i];
            for (int64_t j = 0; j < S; j++) z[i * S + j] = f * b[j];
        }
    }
}

static void rows_backward(const pf_derive_run *r) {
    const pf_real scale = (pf_real) * (const double *)r->args;
    const int64_t R = r->in[0].cols, S = r->in[1].cols;
    for (int64_t o = 0; r->d_out[0].data != NULL && o < r->in[0].rows; o++) {
        const pf_real *a = r->in[0].data + o * R, *b = r->in[1].data + o * S;
        const pf_real *dz = r->d_out[0].data + o * R * S;
        pf_real *da = r->d_in[0].data, *db = r->d_in[1].data;
        for (int64_t i = 0; i < R; i++) {
            pf_real sum = 0;
            for (int64_t j = 0; j < S; j++) sum += dz[i * S + j] * b[j];
            if (da != NULL) da[o * R + i] += scale * sum;
            const pf_real f = scale * a[i];
            for (int64_t j = 0; db != NULL && j < S; j++) db[o * S + j] += f * dz[i * S + j];
        }
    }
}

const pf_derive pf_khatri_rao_rows = {.name = "Kronecker products of rows",
                                      .n_out = 1,
                                      .shape = rows_shape,
                                      .forward = rows_forward,
                                      .backward = rows_backward};

/* ---- columns --------------------------------------------------------------------------------- */

static bool cols_shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0].rows = in[0].rows * in[1].rows;
    out[0].cols = in[0].cols;
    return in[0].cols == in[1].cols;
}

static void cols_forward(const pf_derive_run *r) {
    const int64_t R = r->in[0].rows, S = r->in[1].rows, n = r->in[0].cols;
    for (int64_t i = 0; i < R; i++) {
        for (int64_t j = 0; j < S; j++) {
            const pf_real *a = r->in[0].data + i * n, *b = r->in[1].data + j * n;
            pf_real *z = r->out[0].data + (i * S + j) * n;
            for (int64_t c = 0; c < n; c++) z[c] = a[c] * b[c];
        }
    }
}

static void cols_backward(const pf_derive_run *r) {
    const int64_t R = r->in[0].rows, S = r->in[1].rows, n = r->in[0].cols;
    for (int64_t i = 0; r->d_out[0].data != NULL && i < R; i++) {
        for (int64_t j = 0; j < S; j++) {
            const pf_real *a = r->in[0].data + i * n, *b = r->in[1].data + j * n;
            const pf_real *dz = r->d_out[0].data + (i * S + j) * n;
            pf_real *da = r->d_in[0].data, *db = r->d_in[1].data;
            for (int64_t c = 0; da != NULL && c < n; c++) da[i * n + c] += dz[c] * b[c];
            for (int64_t c = 0; db != NULL && c < n; c++) db[j * n + c] += dz[c] * a[c];
        }
    }
}

const pf_derive pf_khatri_rao_cols = {.name = "Kronecker products of columns",
                                      .n_out = 1,
                                      .shape = cols_shape,
                                      .forward = cols_forward,
                                      .backward = cols_backward};
