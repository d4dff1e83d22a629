/* svd.h - leading singular vectors and QR factors of a matrix that is read row by row, in double
 * and on one thread: the same bits each time.
 *
 *   pf_svd_leading      the r largest singular triplets, by Lanczos bidiagonalization with full
 *                       reorthogonalization (Golub & Kahan 1965; Larsen 1998), until the residual
 *                       of each is 1e-8 of the largest value
 *   pf_svd_randomized   those of a random r-dimensional range refined `iterations` times (Halko,
 *                       Martinsson & Tropp 2011, arXiv 0909.4061, algorithms 4.4 and 5.1, as
 *                       torch.svd_lowrank has them): fewer passes, approximate
 *   pf_qr_leading       the first r columns of Q and rows of R, the diagonal of R not negative
 *
 * Vectors are rows of the results. Signs of singular vectors are those that come out. */
#ifndef PF_SVD_H
#define PF_SVD_H

#include "base/status.h"

#include <stdint.h>

typedef struct pf_svd_matrix {
    int64_t m, n;
    const void *ctx;
    /* rows [row0, row0 + count) into out (count, n) */
    void (*read)(const void *ctx, int64_t row0, int64_t count, double *out);
    const double *rows; /* (m, n) where all of it stands in memory already: nothing is read */
} pf_svd_matrix;

/* u (r,m), s (r) descending, v (r,n); r <= min(m,n). Where s is 0, u or v may be 0 too. */
peft_status pf_svd_leading(const pf_svd_matrix *a, int64_t r, uint64_t seed, double *u, double *s,
                           double *v, peft_error *err);
peft_status pf_svd_randomized(const pf_svd_matrix *a, int64_t r, int iterations, uint64_t seed,
                              double *u, double *s, double *v, peft_error *err);
/* q (r,m): orthonormal rows; rr (r,n): rows of R */
peft_status pf_qr_leading(const pf_svd_matrix *a, int64_t r, double *q, double *rr,
                          peft_error *err);

/* Makes the rows of q (r,n) orthonormal, in order; a row that depends on those before it becomes
 * a random one. */
void pf_orthonormalize(double *q, int64_t r, int64_t n, uint64_t seed);

#endif
