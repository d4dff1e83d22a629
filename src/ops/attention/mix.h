/* mix.h - attention of a row to n vectors of its own, as AdapterFusion has it (Pfeiffer et al.
 * 2020, arXiv 2005.00247, section 3.2.1):
 *
 *   mix_scores   s[i, k] = q[i] · K[i, k]
 *   mix_values   y[i] = sum over k of p[i, k] V[i, k],  p[i] = softmax(s[i])
 *
 * K and V hold the n vectors of a row side by side: (T, n · C). */
#ifndef PF_MIX_H
#define PF_MIX_H

#include "graph/graph.h"

enum { PF_MIX_MOST = 64 }; /* vectors of a row */

/* q (T, C), k (T, n C) -> s (T, n) */
peft_status pf_mix_scores(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value **s,
                          peft_error *err);
/* s (T, n), v (T, n C) -> y (T, C) */
peft_status pf_mix_values(pf_graph *g, const char *name, pf_value *s, pf_value *v, pf_value **y,
                          peft_error *err);

#endif
