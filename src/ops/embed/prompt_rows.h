/* prompt_rows.h - the rows of a learned prompt in place of what was looked up for them. */
#ifndef PF_PROMPT_ROWS_H
#define PF_PROMPT_ROWS_H

#include "graph/graph.h"

/* y[i] = prompt[i] for the first batch->n_prompt rows, x[i] for the others. x (T, C), prompt (P, C)
 * a PARAM; a batch has all P rows of it or none. */
peft_status pf_prompt_rows(pf_graph *g, const char *name, pf_value *x, pf_value *prompt,
                           pf_value **y, peft_error *err);

#endif
