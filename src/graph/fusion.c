/* fusion.c - the driver of the fusion rules; see fusion.h. Rules themselves stand beside the fused
 * ops. */
#include "graph/fusion.h"

#include <string.h>

pf_node *pf_fusion_single_use(const pf_value *v) {
    if (v->keep || v->result || v->kind != PF_VALUE_ACT) return NULL;
    pf_node *user = NULL;
    for (const pf_use *u = v->uses; u != NULL; u = u->next) {
        if (u->node->removed) continue;
        if (user != NULL) return NULL;
        user = u->node;
    }
    return user;
}

pf_node *pf_fusion_next_use(const pf_value *v, const pf_node *n) {
    pf_node *next = NULL;
    for (const pf_use *u = v->uses; u != NULL; u = u->next) {
        if (u->node->removed || u->node->id <= n->id) continue;
        if (next == NULL || u->node->id < next->id) next = u->node;
    }
    return next;
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
    g->n_nodes--; /* it was appended; its place is elsewhere */
    for (int k = 0; k < n_old; k++) {
        old[k]->removed = true;
        g->nodes[old[k]->id] = NULL;
    }
    fused->id = last->id;
    g->nodes[fused->id] = fused;
    return PEFT_OK;
}

/* Closes the gaps. */
static void number(pf_graph *g) {
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i] == NULL) continue;
        g->nodes[n] = g->nodes[i];
        g->nodes[n]->id = n;
        n++;
    }
    g->n_nodes = n;
}

peft_status pf_fusion_run(pf_graph *g, const pf_fusion_rule *const *rules, int *n_fused,
                          peft_error *err) {
    int count = 0;
    for (const pf_fusion_rule *const *rule = rules; *rule != NULL; rule++) {
        number(g);
        for (int i = 0; i < g->n_nodes;) {
            bool done = false;
            if (g->nodes[i] != NULL) PF_TRY((*rule)->apply(g, i, &done, err));
            count += done;
            if (!done) i++; /* else there may be more of it */
        }
    }
    number(g);
    if (n_fused != NULL) *n_fused = count;
    return PEFT_OK;
}
