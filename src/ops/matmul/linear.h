/* linear.h - products with a weight matrix. W is (out, in) as torch has it, in any storage type.
 *
 *   linear         y = x Wᵀ (+ bias)
 *   linear_grad_x  dx = dy W (+ acc)            acc: gradient gathered so far, folded in
 *   linear_grad_w  dW += dyᵀ x                   when W is a PARAM
 *   linear_dw      dW = dyᵀ x (+ acc)            when nodes make W of something trained
 *   add_bias, bias_grad                          y = x + b;  db += column sums of dy, rows in order
 *
 * With a frozen weight the first two are computed in graph->compute (narrow.h), with a trained one
 * always in f32.
 *
 * A row of y depends on that row of x alone and is computed by the same operations in the same
 * order wherever it stands: how a step is cut into batches cannot change a bit of the forward pass.
 */
#ifndef PF_LINEAR_H
#define PF_LINEAR_H

#include "base/pool.h"
#include "graph/graph.h"

/* x (R, in), w (out, in), bias (1, out) or NULL -> y (R, out) */
peft_status pf_linear(pf_graph *g, const char *name, pf_value *x, pf_value *w, pf_value *bias,
                      pf_value **y, peft_error *err);
/* Computes what products in int8 need of their weights (narrow.h); once, before the graph runs. */
peft_status pf_linear_prepare(pf_graph *g, pf_pool *pool, peft_error *err);
peft_status pf_add_bias(pf_graph *g, const char *name, pf_value *x, pf_value *bias, pf_value **y,
                        peft_error *err);
/* y = x + scale · bias */
peft_status pf_add_scaled_bias(pf_graph *g, const char *name, pf_value *x, pf_value *bias,
                               double scale, pf_value **y, peft_error *err);

#endif
