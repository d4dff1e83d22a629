/* logits_ce.h - cross-entropy of logits that stand there as a whole: for heads that an adapter
 * changes by more than a low-rank term, which ops/loss/head_ce.h makes on the way.
 *
 * nll[e] = logsumexp(z[e]) - z[e, target], correct[e] is 1 when the target has the largest logit
 * (first one wins). dz = dnll (softmax(z) - onehot(target)). Rows are independent. */
#ifndef PF_LOGITS_CE_H
#define PF_LOGITS_CE_H

#include "graph/graph.h"

/* z (E, V) -> nll (E, 1), correct (E, 1) */
peft_status pf_logits_ce(pf_graph *g, const char *name, pf_value *z, pf_value **nll,
                         pf_value **correct, peft_error *err);

#endif
