/* scaled_bases.c - one random matrix, many times, each with factors of its own; see delta_maps.h.
 */
#include "peft/delta/delta_maps.h"

enum { LAMBDA, GAMMA, BASE };

static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    const pf_scaled_bases_args *a = args;
    const int64_t n = in[LAMBDA].rows * in[LAMBDA].cols;
    out[0].rows = a->turned ? in[GAMMA].cols : n;
    out[0].cols = a->turned ? n : in[GAMMA].cols;
    return in[LAMBDA].cols == in[GAMMA].rows && in[BASE].rows >= in[LAMBDA].rows &&
           in[BASE].cols >= in[GAMMA].cols;
}

static pf_real *at(const pf_derive_run *r, const pf_mat *z, int64_t row, int64_t c) {
    const pf_scaled_bases_args *a = r->args;
    return z->data + (a->turned ? c * z->cols + row : row * z->cols + c);
}

static void forward(const pf_derive_run *r) {
    const int64_t n_bases = r->in[LAMBDA].cols, C = r->in[GAMMA].cols;
    for (int64_t k = 0; k < r->in[LAMBDA].rows; k++) {
        for (int64_t b = 0; b < n_bases; b++) {
            const pf_real l = r->in[LAMBDA].data[k * n_bases + b];
            const pf_real *g = r->in[GAMMA].data + b * C,
                          *base = r->in[BASE].data + k * r->in[BASE].cols;
            for (int64_t c = 0; c < C; c++)
                *at(r, &r->out[0], k * n_bases + b, c) = l * base[c] * g[c];
        }
    }
}

static void backward(const pf_derive_run *r) {
    const int64_t n_bases = r->in[LAMBDA].cols, C = r->in[GAMMA].cols;
    for (int64_t k = 0; r->d_out[0].data != NULL && k < r->in[LAMBDA].rows; k++) {
        for (int64_t b = 0; b < n_bases; b++) {
            const pf_real l = r->in[LAMBDA].data[k * n_bases + b];
            const pf_real *g = r->in[GAMMA].data + b * C,
                          *base = r->in[BASE].data + k * r->in[BASE].cols;
            double sum = 0;
            for (int64_t c = 0; c < C; c++) {
                const pf_real dz = *at(r, &r->d_out[0], k * n_bases + b, c) * base[c];
                sum += (double)dz * (double)g[c];
                if (r->d_in[GAMMA].data != NULL) r->d_in[GAMMA].data[b * C + c] += dz * l;
            }
            if (r->d_in[LAMBDA].data != NULL) r->d_in[LAMBDA].data[k * n_bases + b] += (pf_real)sum;
        }
    }
}

const pf_derive pf_scaled_bases = {.name = "random bases with factors",
                                   .n_out = 1,
                                   .shape = shape,
                                   .forward = forward,
                                   .backward = backward};
