/* bounded.c - the factors of DeLoRA's ranks; see delta_maps.h. */
#include "peft/delta/delta_maps.h"

#include <math.h>

enum { A, B, LAMBDA };
static const double least = 1e-4; /* peft's: norms are at least this */

static bool shape(const void *args, const pf_mat *in, pf_mat *out) {
    (void)args;
    out[0].rows = 1;
    out[0].cols = in[A].rows;
    return in[A].rows == in[B].cols && in[LAMBDA].rows == 1 && in[LAMBDA].cols == 1;
}

static double row_norm(const pf_mat *a, int64_t i) {
    double sum = 0;
    for (int64_t c = 0; c < a->cols; c++) {
        const double v = (double)a->data[i * a->cols + c];
        sum += v * v;
    }
    return sqrt(sum);
}

static double column_norm(const pf_mat *b, int64_t i) {
    double sum = 0;
    for (int64_t o = 0; o < b->rows; o++) {
        const double v = (double)b->data[o * b->cols + i];
        sum += v * v;
    }
    return sqrt(sum);
}

static void forward(const pf_derive_run *r) {
    const int64_t R = r->in[A].rows;
    const double each = (double)r->in[LAMBDA].data[0] / (double)R;
    for (int64_t i = 0; i < R; i++)
        r->out[0].data[i] = (pf_real)(each / fmax(row_norm(&r->in[A], i), least) /
                                      fmax(column_norm(&r->in[B], i), least));
}

/* s = lambda / r / (|a| |b|): ds/da = -s a / |a|^2 where |a| is not held at its least */
static void backward(const pf_derive_run *r) {
    const pf_mat *a = &r->in[A], *b = &r->in[B];
    const int64_t R = a->rows;
    if (r->d_out[0].data == NULL) return;
    for (int64_t i = 0; i < R; i++) {
        const double ds = (double)r->d_out[0].data[i], an = row_norm(a, i), bn = column_norm(b, i);
        const double unit = 1 / (double)R / fmax(an, least) / fmax(bn, least);
        const double s = unit * (double)r->in[LAMBDA].data[0];
        if (r->d_in[LAMBDA].data != NULL) r->d_in[LAMBDA].data[0] += (pf_real)(ds * unit);
        for (int64_t c = 0; r->d_in[A].data != NULL && an >= least && c < a->cols; c++)
            r->d_in[A].data[i * a->cols + c] -=
                (pf_real)(ds * s * (double)a->data[i * a->cols + c] / (an * an));
        for (int64_t o = 0; r->d_in[B].data != NULL && bn >= least && o < b->rows; o++)
            r->d_in[B].data[o * R + i] -=
                (pf_real)(ds * s * (double)b->data[o * R + i] / (bn * bn));
    }
}

const pf_derive pf_bounded_ranks = {.name = "factors of ranks of bounded size",
                                    .n_out = 1,
                                    .shape = shape,
                                    .forward = forward,
                                    .backward = backward};
