/* lstm.h - the recurrence of a long short-term memory over token rows (Hochreiter & Schmidhuber
 * 1997; gates and their order as torch.nn.LSTM has them):
 *
 *   i, f, g, o = the four quarters of x_t W_ihᵀ + b + h_{t-1} W_hhᵀ
 *   c_t = s(f) c_{t-1} + s(i) tanh(g),   h_t = s(o) tanh(c_t),   s the logistic function
 *
 * The part of x is a product over all rows and comes as it is; what is left runs row by row. All
 * rows of the batch are one sequence. For the few rows of a prompt encoder: plain C, one thread. */
#ifndef PF_LSTM_H
#define PF_LSTM_H

#include "graph/graph.h"

typedef struct pf_lstm_args {
    bool reverse; /* from the last row to the first */
} pf_lstm_args;

/* gates (T, 4H): x W_ihᵀ + b, w (4H, H): W_hh, a PARAM -> h (T, H) */
peft_status pf_lstm(pf_graph *g, const char *name, pf_value *gates, pf_value *w,
                    const pf_lstm_args *args, pf_value **h, peft_error *err);

#endif
