/* prompt_rows.h - the rows of a learned prompt in place of what was looked up for them. */
#ifndef PF_PROMPT_ROWS_H
#define PF_PROMPT_ROWS_H

#include "graph/graph.h"

typedef struct pf_prompt_rows_args {
    int32_t n; /* rows of the prompt that stand in batches */
} pf_prompt_rows_args;

/* y[i] = prompt[k] for row k < n of a learned prompt (batch.h: of the first segment, or of every
 * root), x[i] for the others. x: tokens or rows of the source, of C columns; prompt (P, C) a PARAM,
 * P >= n: rows behind the n-th are not read. A batch has all n or none. */
peft_status pf_prompt_rows(pf_graph *g, const char *name, pf_value *x, pf_value *prompt, int32_t n,
                           pf_value **y, peft_error *err);

#endif
