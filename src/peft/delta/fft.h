/* fft.h - discrete Fourier transforms of any length, several rows side by side.
 *
 *   X[k] = sum over j of x[j] e^(2 pi i j k / n)        (the sign of an inverse; no factor)
 *
 * Decimation in time (Cooley and Tukey 1965) with the factors of n (4 and primes): n times
 * their sum in operations. A buffer holds n complex numbers of PF_FFT_LANES rows: number k of row l
 * has its real part at [k 2 LANES + l], its imaginary part LANES further. Rows do not meet: each
 * has the same operations whatever stands beside it. */
#ifndef PF_FFT_H
#define PF_FFT_H

#include "base/arena.h"
#include "tensor/real.h"

enum { PF_FFT_LANES = 8, PF_FFT_FACTORS = 32 };

typedef struct pf_fft {
    int64_t n;
    int n_factors;
    int64_t factor[PF_FFT_FACTORS], largest;
    const pf_real *root; /* e^(2 pi i k / n), real and imaginary part side by side */
} pf_fft;

/* The tables live in the arena. */
peft_status pf_fft_init(pf_fft *f, pf_arena *a, int64_t n, peft_error *err);
static inline int64_t pf_fft_reals(int64_t n) { /* of a buffer */
    return 2 * PF_FFT_LANES * n;
}
/* Room for what runs it (delta_loops.h): as many numbers as the largest factor. */
static inline int64_t pf_fft_part(const pf_fft *f) {
    return pf_fft_reals(f->largest);
}

#endif
