/* compute.h - the type in which products with frozen weights are computed. Storage is another
 * matter (dtype.h): bf16 weights are multiplied in f32 unless a run asks for something else, and
 * sums are f32 (of integers: exact) in any case. */
#ifndef PF_COMPUTE_H
#define PF_COMPUTE_H

#include <stdbool.h>

typedef enum pf_compute {
    PF_COMPUTE_F32,
    PF_COMPUTE_BF16, /* operands rounded to bfloat16 */
    PF_COMPUTE_INT8  /* operands rounded to 8-bit integers, with a scale per row */
} pf_compute;

const char *pf_compute_name(pf_compute c); /* "f32", "bf16", "int8": as training.compute has it */
bool pf_compute_by_name(const char *name, pf_compute *c);

#endif
