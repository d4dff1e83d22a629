/* khatri_rao.h - Kronecker products row by row and column by column (loha.c).
 *
 *   rows:  A (m, r), B (m, s) -> Z (m, r s), Z[o, i s + j] = scale A[o, i] B[o, j]
 *   cols:  A (r, n), B (s, n) -> Z (r s, n), Z[i s + j, c] = A[i, c] B[j, c]
 */
#ifndef PF_KHATRI_RAO_H
#define PF_KHATRI_RAO_H

#include "ops/derive/derive.h"

extern const pf_derive pf_khatri_rao_rows; /* args: const double *scale */
extern const pf_derive pf_khatri_rao_cols; /* args: NULL */

#endif
