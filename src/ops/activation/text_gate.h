/* text_gate.h - one gate for a whole text, the mean of what its rows say:
 *
 *   y[i, c] = x[i, c] · g_h,   g_h = mean over the rows j of i's text of sigmoid(z[j, h])
 *
 * with the columns of x in as many equal blocks h as z has columns. A text is a segment without
 * parent: texts that share rows have none of their own, and are refused when the op runs. A row
 * sees those behind it by way of the gate; whoever attaches it says so to the model
 * (pf_model.whole_texts). While a text is generated the rows are those of one pass. */
#ifndef PF_TEXT_GATE_H
#define PF_TEXT_GATE_H

#include "graph/graph.h"

enum { PF_TEXT_GATES = 8 }; /* most columns of z */

/* x (T, C), z (T, H), H divides C -> y (T, C) */
peft_status pf_text_gate(pf_graph *g, const char *name, pf_value *x, pf_value *z, pf_value **y,
                         peft_error *err);

#endif
