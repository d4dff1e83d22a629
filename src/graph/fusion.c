/* fusion.c - the driver of the fusion rules; see fusion.h. Rules themselves stand beside the fused
 * ops. */
#include "graph/fusion.h"

#include <string.h>

pf_node *pf_fusion_single_use(const pf_graph *g, const pf_value *v) {
    if (v->keep || v->result || v->kind != PF_VALUE_ACT) return NULL;
    pf_node *user = NULL;
    for (int i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->nodes[i]->n_in; k++) {
            if (g->nodes[i]->in[k] != v) continue;
            if (user != NULL) return NULL;
            user = g->nodes[i];
        }
    }
    return user;
}

peft_status pf_fusion_replace(pf_graph *g, const char *op, const void *args, pf_value *const *in,
                              int n_in, pf_value *const *old_out, int n_out, pf_node *const *old,
                              int n_old, pf_node *last, peft_error *err) {
    const char *scope = g->scope;
    int block = g->block;
    g->scope = NULL;
    g->block = last->block;
    pf_node *fused;
    peft_status status = pf_graph_emit(g, op, last->name, args, in, n_in, &fused, err);
    g->scope = scope;
    g->block = block;
    PF_TRY(status);
    PF_ASSERT(fused->n_out >= n_out);

    /* Readers hold pointers to the old values, so those values live on and only change their
     * producer. */
    for (int k = 0; k < n_out; k++) {
        fused->out[k] = old_out[k];
        old_out[k]->producer = fused;
    }
    int at = 0; /* compact the list: drop the old nodes, put the new one where `last` stood */
    for (int i = 0; i < g->n_nodes - 1; i++) {
        pf_node *n = g->nodes[i];
        bool is_old = false;
        for (int k = 0; k < n_old; k++) is_old |= n == old[k];
        if (n == last) {
            g->nodes[at++] = fused;
        } else if (!is_old) {
            g->nodes[at++] = n;
        }
    }
    /* Compaction cannot overtake the reader: the fused node's slot comes from `last`, which is
     * dropped. */
    g->n_nodes = at;
    for (int i = 0; i < g->n_nodes; i++) g->nodes[i]->id = i;
    return PEFT_OK;
}

peft_status pf_fusion_run(pf_graph *g, const pf_fusion_rule *const *rules, int *n_fused,
                          peft_error *err) {
    int count = 0;
    for (const pf_fusion_rule *const *rule = rules; *rule != NULL; rule++) {
        for (int i = 0; i < g->n_nodes;) {
            bool done = false;
            int before = g->n_nodes;
            PF_TRY((*rule)->apply(g, i, &done, err));
            if (done) {
                count++;
                i -= before - g->n_nodes; /* look again from the start of the pattern */
                if (i < 0) i = 0;
            } else {
                i++;
            }
        }
    }
    if (n_fused != NULL) *n_fused = count;
    return PEFT_OK;
}
