/* spread.h - one trained number for many columns: y[c] = s. */
#ifndef PF_SPREAD_H
#define PF_SPREAD_H

#include "graph/graph.h"

/* s (1, 1) -> y (1, cols) */
peft_status pf_spread(pf_graph *g, const char *name, pf_value *s, int64_t cols, pf_value **y,
                      peft_error *err);

#endif
