/* first_weights.h - the numbers that a new parameter begins with. They depend on the seed and the
 * parameter's name alone, not on what else is trained. */
#ifndef PF_FIRST_WEIGHTS_H
#define PF_FIRST_WEIGHTS_H

#include "graph/param.h"

void pf_fill_constant(pf_param *p, double value);
void pf_fill_uniform(pf_param *p, uint64_t seed, double bound); /* in +-bound */
void pf_fill_normal(pf_param *p, uint64_t seed, double std);

#endif
