/* corner.c - the first rows and columns of a matrix (vera.c, whose matrices serve layers of all
 * sizes); see delta_maps.h. */
#include "peft/delta/delta_maps.h"

#include <string.h>

static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    const pf_corner_args *a = args;
    out[0] = (pf_mat){.rows = a->rows, .cols = a->cols};
    return a->rows <= in[0].rows && a->cols <= in[0].cols;
}

static void forward(const pf_derive_run *r) {
    const int64_t cols = r->out[0].cols;
    for (int64_t i = 0; i < r->out[0].rows; i++)
        memcpy(r->out[0].data + i * cols, r->in[0].data + i * r->in[0].cols,
               (size_t)cols * sizeof(pf_real));
}

static void backward(const pf_derive_run *r) {
    const pf_mat *d = &r->d_out[0];
    for (int64_t i = 0; r->d_in[0].data != NULL && d->data != NULL && i < d->rows; i++) {
        for (int64_t c = 0; c < d->cols; c++)
            r->d_in[0].data[i * r->d_in[0].cols + c] += d->data[i * d->cols + c];
    }
}

const pf_derive pf_corner = {.name = "corner of a matrix",
                             .n_out = 1,
                             .shape = shape,
                             .forward = forward,
                             .backward = backward};
