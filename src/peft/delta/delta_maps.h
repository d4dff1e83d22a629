/* delta_maps.h - the arithmetic of the methods of this folder, as tables for ops/derive: matrices
 * made of parameters (pf_derive) and maps of rows (pf_rowmap). */
#ifndef PF_DELTA_MAPS_H
#define PF_DELTA_MAPS_H

#include "ops/derive/derive.h"
#include "peft/delta/fft.h"

/* Kronecker products row by row and column by column (khatri_rao.c):
 *   rows:  A (m, r), B (m, s) -> Z (m, r s), Z[o, i s + j] = scale A[o, i] B[o, j]
 *   cols:  A (r, n), B (s, n) -> Z (r s, n), Z[i s + j, c] = A[i, c] B[j, c] */
extern const pf_derive pf_khatri_rao_rows; /* args: const double *scale */
extern const pf_derive pf_khatri_rao_cols; /* args: NULL */

/* Z (m, n) = scale (A1 B1) * (A2 B2), element by element (hadamard.c); inputs A1, B1, A2, B2 */
extern const pf_derive pf_hadamard; /* args: const double *scale */

/* Orthogonal blocks from skew-symmetric ones (cayley.c). Q is a block's skew-symmetric matrix:
 * the numbers above its diagonal, row by row, of a row of P (packed), or (P - Pᵀ) / 2 of a square
 * block of P. P (n, size (size - 1) / 2) or (n size, size) -> R (n size, size):
 *   terms 0:  R = (I - Q) (I + Q)^-1
 *   else:     R = I + 2 Q + 2 Q^2 + ... , cut off as peft's num_cayley_neumann_terms does
 * limit > 0: blocks of P whose matrix is larger (Frobenius norm) are scaled down to it, in place.
 */
typedef struct pf_cayley_args {
    int64_t size;
    bool packed;
    int64_t terms;
    double limit;
} pf_cayley_args;
extern const pf_derive pf_cayley;

/* y = x P blockdiag(R_1, R_2, ..) Pᵀ (rotate.c): R (n size, size), of its blocks those from `first`
 * on, or one for all; column j of x P is x[from[j]], column c of y z[to[c]] */
typedef struct pf_rotate_args {
    int64_t size, first;
    const int32_t *from, *to; /* NULL: as they stand */
} pf_rotate_args;
extern const pf_rowmap pf_rotate;
/* One row of pf_real, y = x blockdiag(R)ᵀ with the same permutations, for merging. */
void pf_rotate_back(const pf_rotate_args *a, const pf_mat *r, int64_t n, const double *x,
                    double *y);

/* Reflections (reflect.c): U (n, r) -> A (r, n), B (n, r) so that x + (x Aᵀ) Bᵀ is x reflected at
 * the planes of u_r, .., u_1 in this order; orthogonal: at the space of all of them, made
 * orthogonal by Gram and Schmidt. */
typedef struct pf_reflect_args {
    bool orthogonal;
} pf_reflect_args;
extern const pf_derive pf_reflect;

/* y = scale x (W1 kron W2)ᵀ (kron.c): W1 (l, m), W2 (k, n), x (R, m n) -> y (R, l k) */
extern const pf_rowmap pf_kron; /* args: const double *scale */

/* Z[i, c] = P[i, c], rows x cols of them (corner.c) */
typedef struct pf_corner_args {
    int64_t rows, cols;
} pf_corner_args;
extern const pf_derive pf_corner;

/* y = x Dᵀ, D the real part of the inverse transform of a matrix that has p[k] at (u[k], v[k]) and
 * zeros elsewhere, times alpha out in (fourier.c): P (1, n) */
typedef struct pf_fourier_args {
    const pf_fft *in, *out;
    const int32_t *u, *v;
    double alpha;
} pf_fourier_args;
extern const pf_rowmap pf_fourier;
/* Rows [row0, row0 + n) of D, added to `rows` (n, in); room: pf_fourier_room reals. */
int64_t pf_fourier_room(const pf_fourier_args *a);
void pf_fourier_add(const pf_fourier_args *a, const pf_mat *p, int64_t row0, int64_t n, float *rows,
                    pf_real *room);

/* y = s (x - b) + b (scale_about.c): s (out, 1) or (1, out), b (1, out) */
extern const pf_rowmap pf_scale_about;

/* s[c] = sum over g of x[g r + c], zeros beyond the end (fold.c) */
extern const pf_rowmap pf_fold; /* args: const int64_t *r */
/* P (r, n) -> Z (out, r), Z[o, i] = P[i, o mod n] */
extern const pf_derive pf_tile_turned; /* args: const int64_t *out */
/* D = update of W by blocks: W (out, in), P (out, r) as out / r blocks B_o of (r, r); of the block
 * W_og of W, D_og = W_og B_o + B_o */
extern const pf_derive pf_shard_update; /* inputs: P, W */

/* y = scale x Dᵀ, D (out, in) of circulant blocks (circulant.c): P (out / size in / size, size), of
 * block (m, n) with the row w = P[m in / size + n] element (u, t) is w[(t - u) mod size] */
typedef struct pf_circulant_args {
    int64_t size;
    double scale;
} pf_circulant_args;
extern const pf_rowmap pf_circulant;

/* S[i] = lambda / r / (|a_i| |b_i|) with norms of at least 1e-4 (bounded.c): A (r, in), B (out, r),
 * lambda (1, 1) -> S (1, r) */
extern const pf_derive pf_bounded_ranks;

/* Pairs of columns, one of the first half of a group and one of the second, turned and stretched
 * (pair_turn.c): y[c] = own x[c] -+ other x[partner], own = alpha cos(theta), other = alpha
 * sin(theta), - in the first half. theta, alpha (1, C kind / 2). kind 1: one of each for a pair; 2:
 * for a column; 4: for own and other of a column. */
typedef struct pf_pair_turn_args {
    int64_t kind, group;
} pf_pair_turn_args;
extern const pf_rowmap pf_pair_turn;
/* Which theta and alpha make `own` and which `other` of column c, and the column it stands with. */
void pf_pair_turn_places(const pf_pair_turn_args *a, int64_t c, int64_t *first, int64_t *second,
                         int64_t *partner);

/* Z[k n + b, c] = L[k, b] A[k, c] G[b, c] (scaled_bases.c): L (r, n), G (n, m), A (r or more, m or
 * more) -> Z (r n, m), or its transpose */
typedef struct pf_scaled_bases_args {
    bool turned;
} pf_scaled_bases_args;
extern const pf_derive pf_scaled_bases;

/* y = x (W * B A)ᵀ, * element by element (weighted_rows.c): A (r, in), B (out, r), W (out, in) */
extern const pf_rowmap pf_weighted_rows;

/* y = x Sᵀ, S (out, in) with n numbers (sparse.c): P (1, n), number k of row o, start[o] <= k <
 * start[o + 1], at column[k] */
typedef struct pf_sparse_args {
    int64_t in, out, n;
    const int64_t *start;  /* (out + 1) */
    const int32_t *column; /* (n) */
} pf_sparse_args;
extern const pf_rowmap pf_sparse;

/* y = scale x Dᵀ, D of n x n blocks of rank r / n each (granular.c): A (in, r), the rows of piece i
 * of the input, B (n r, out / n), r rows for each piece j of the output. Ranks i r / n .. of B_j
 * meet ranks j r / n .. of A_i. */
typedef struct pf_granular_args {
    int64_t n;
    double scale;
} pf_granular_args;
extern const pf_rowmap pf_granular;

#endif
