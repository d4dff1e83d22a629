/* router_aux.h - the loss that keeps routers from sending all rows to a few experts (Fedus et al.
 * 2021, arXiv 2101.03961, eq. 4-6), as transformers' load_balancing_loss_func has it:
 *
 *   aux = n sum_e f_e P_e,  f_e = choices of e / (L T),  P_e = sum of p_e / (L T)
 *
 * over the rows of all L layers with experts together. f is counted, the gradient goes through P.
 * The loss of every label becomes nll + coef aux, so that a micro-batch adds its aux in proportion
 * to its labels: with one micro-batch a step that is loss + coef aux. It is a number of the whole
 * micro-batch, the one part of a loss that depends on how a step is cut. */
#ifndef PF_ROUTER_AUX_H
#define PF_ROUTER_AUX_H

#include "ops/moe/moe.h"

/* nll (E, 1), the routes of n_layers layers -> (E, 1) */
peft_status pf_router_aux(pf_graph *g, const char *name, pf_value *nll, const pf_routes *routes,
                          int n_layers, double coef, pf_value **y, peft_error *err);

#endif
