/* real.h - the type of every activation, gradient and trainable weight.
 *
 * float in the product. The tests build the engine a second time with PF_DOUBLE, reference kernels
 * only: gradients are then checked against finite differences where rounding cannot hide a mistake.
 */
#ifndef PF_REAL_H
#define PF_REAL_H

#include <math.h>

/* exp, log ... of a pf_real in its own precision */
#ifdef PF_DOUBLE
typedef double pf_real;
#define pf_rexp  exp
#define pf_rlog  log
#define pf_rsqrt sqrt
#define pf_rcos  cos
#define pf_rsin  sin
#define pf_rabs  fabs
#define pf_rtanh tanh
#else
typedef float pf_real;
#define pf_rexp  expf
#define pf_rlog  logf
#define pf_rsqrt sqrtf
#define pf_rcos  cosf
#define pf_rsin  sinf
#define pf_rabs  fabsf
#define pf_rtanh tanhf
#endif

#endif
