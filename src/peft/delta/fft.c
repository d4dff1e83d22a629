/* fft.c - tables of a transform; see fft.h. It runs in fft_loops.h. */
#include "peft/delta/fft.h"

#include <math.h>

peft_status pf_fft_init(pf_fft *f, pf_arena *a, int64_t n, peft_error *err) {
    const double step = 8 * atan(1.0) / (double)n;
    pf_real *root = PF_NEW_ARRAY(a, pf_real, 2 * n);
    PF_CHECK_ALLOC(root, err);
    *f = (pf_fft){.n = n, .root = root};
    for (int64_t k = 0; k < n; k++) {
        root[2 * k] = (pf_real)cos(step * (double)k);
        root[2 * k + 1] = (pf_real)sin(step * (double)k);
    }
    int64_t left = n;
    for (; left % 4 == 0; left /= 4) f->factor[f->n_factors++] = 4;
    for (int64_t p = 2; left > 1; p++) {
        if (p * p > left) p = left;
        for (; left % p == 0; left /= p) f->factor[f->n_factors++] = p;
    }
    for (int i = 0; i < f->n_factors; i++)
        f->largest = f->largest > f->factor[i] ? f->largest : f->factor[i];
    return PEFT_OK;
}
