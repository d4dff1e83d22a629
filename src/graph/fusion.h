/* fusion.h - rewrites runs of plain ops into fused ones; can be switched off, and is checked
 * against the plain graph.
 *
 * A rule looks at one node and, if it heads a pattern, replaces the nodes of the pattern by one.
 * Rules are rows in ops/fusions.def; the pass runs before autodiff, so a fused op brings its own
 * gradient. */
#ifndef PF_FUSION_H
#define PF_FUSION_H

#include "graph/graph.h"

typedef struct pf_fusion_rule {
    const char *name;
    /* Called for every node in order; of the others it finds those that read a value. Returns true
     * in *done if it rewrote something around node i (by pf_fusion_replace). A value may be fused
     * away only if pf_fusion_single_use says that nobody else reads it. */
    peft_status (*apply)(pf_graph *g, int i, bool *done, peft_error *err);
} pf_fusion_rule;

peft_status pf_fusion_run(pf_graph *g, const pf_fusion_rule *const *rules, int *n_fused,
                          peft_error *err);

/* --- for rules
 * -----------------------------------------------------------------------------------------------------
 */
/* The only node that reads v, or NULL (none or several, or v is kept as a block input). */
pf_node *pf_fusion_single_use(const pf_value *v);
/* The first node behind `n` in the list that reads v, or NULL. */
pf_node *pf_fusion_next_use(const pf_value *v, const pf_node *n);
/* Puts a new node of kind `op` at the place of `last` (the last node of the pattern), makes its
 * outputs stand for old_out[0..n_out-1] wherever those are read, and removes the `n_old` old nodes:
 * their places in the list stay empty until the rule has seen all of it. */
peft_status pf_fusion_replace(pf_graph *g, const char *op, const void *args, pf_value *const *in,
                              int n_in, pf_value *const *old_out, int n_out, pf_node *const *old,
                              int n_old, pf_node *last, peft_error *err);

#endif
