/* scale.h - elementwise ops with one number that the model fixes:
 *
 *   scale    y = a x: embeddings times sqrt(hidden) (Gemma), the multipliers of Granite
 *   softcap  y = c tanh(x / c): logits that stay within (-c, c) (Gemma Team 2024, arXiv 2408.00118)
 *
 * In training the head caps its own tiles of logits (loss/head_ce.h), attention its scores
 * (attention/attention.h). */
#ifndef PF_SCALE_H
#define PF_SCALE_H

#include "graph/graph.h"

typedef struct pf_scale_args {
    double by; /* a, or c */
} pf_scale_args;

/* y is x where a is 1 */
peft_status pf_scale(pf_graph *g, const char *name, pf_value *x, double a, pf_value **y,
                     peft_error *err);
peft_status pf_softcap(pf_graph *g, const char *name, pf_value *x, double c, pf_value **y,
                       peft_error *err);

#endif
