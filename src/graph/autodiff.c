/* autodiff.c - the backward pass as nodes; see autodiff.h. Walks the forward nodes from the last to
 * the first and lets each op emit its own gradient. */
#include "graph/autodiff.h"

#include <string.h>

struct pf_autodiff {
    pf_graph *graph;
    pf_save_policy policy;
    int n_forward_values;
    pf_value **grad;  /* by id of the forward value: gradient gathered so far */
    pf_value **clone; /* by id of the forward value: recomputed stand-in */
    pf_node **packs;  /* nodes that round what is saved, to be moved behind its producers */
    int n_packs;
};

pf_graph *pf_grad_graph(pf_autodiff *ad) {
    return ad->graph;
}

bool pf_grad_wanted(const pf_value *v) {
    return v != NULL && v->needs_grad;
}

pf_value *pf_grad_of(pf_autodiff *ad, const pf_value *out) {
    return out->id < ad->n_forward_values ? ad->grad[out->id] : NULL;
}

static bool is_saved(const pf_autodiff *ad, const pf_value *v) {
    if (v->kind != PF_VALUE_ACT || v->keep) return true;
    const pf_op *op = v->producer->op;
    if (op->flags & PF_OP_ALWAYS_SAVED) return true;
    switch (ad->policy) {
    case PF_SAVE_ALL:
        return true;
    case PF_SAVE_CHECKPOINT:
        return v->producer->block < 0;
    case PF_SAVE_SELECTED:
        return v->producer->block < 0 || v->selected;
    case PF_SAVE_MINIMAL:
        break;
    }
    int k = 0;
    while (v->producer->out[k] != v) k++;
    return !(op->flags & PF_OP_CHEAP) || (op->saved_outs >> k & 1u) != 0;
}

enum { PACK_FROM = 64 /* columns; below, nothing is gained */ };

static bool is_packed(const pf_autodiff *ad, const pf_value *v) {
    if (!ad->graph->save_bf16 || v->kind != PF_VALUE_ACT || v->keep || v->result ||
        v->cols < PACK_FROM || v->space == PF_SPACE_NONE)
        return false;
    const pf_node *n = v->producer;
    if (n->block < 0 || (n->op->flags & PF_OP_ALWAYS_SAVED)) return false;
    int k = 0;
    while (n->out[k] != v) k++;
    return (n->op->exact_outs >> k & 1u) == 0;
}

/* Rounded in the forward pass, widened here. */
static pf_value *pack(pf_autodiff *ad, pf_value *v, peft_error *err) {
    pf_graph *g = ad->graph;
    const char *scope = g->scope;
    const int block = g->block;
    g->scope = NULL; /* v->name is full already */
    g->block = v->producer->block;
    g->phase = PF_PHASE_FORWARD;
    pf_node *in, *out;
    peft_status status = pf_graph_emit(g, "to_bf16", v->name, NULL, &v, 1, &in, err);
    g->phase = PF_PHASE_BACKWARD;
    g->block = block;
    if (status == PEFT_OK) {
        v->packed = in->out[0];
        ad->packs[ad->n_packs++] = in;
        status = pf_graph_emit(g, "from_bf16", v->name, &v->cols, in->out, 1, &out, err);
    }
    g->scope = scope;
    if (status != PEFT_OK) return NULL;
    out->is_recompute = true;
    return ad->clone[v->id] = out->out[0];
}

pf_value *pf_grad_need(pf_autodiff *ad, pf_value *v, peft_error *err) {
    if (v == NULL || v->id >= ad->n_forward_values) return v;
    const bool saved = is_saved(ad, v);
    if (saved && !is_packed(ad, v)) return v;
    if (saved && v->packed == NULL) return pack(ad, v, err);
    if (ad->clone[v->id] != NULL) return ad->clone[v->id];

    /* The depth of this recursion is that of one block of the model. */
    pf_graph *g = ad->graph;
    pf_node *n = v->producer;
    if (n->op->recompute != NULL) {
        int k = 0;
        while (n->out[k] != v) k++;
        pf_value *again = NULL;
        int first = g->n_nodes;
        if (n->op->recompute(ad, n, k, &again, err) != PEFT_OK) return NULL;
        if (again != NULL) { /* NULL: the op leaves this output to cloning */
            for (int i = first; i < g->n_nodes; i++) g->nodes[i]->is_recompute = true;
            return ad->clone[v->id] = again;
        }
    }
    pf_value **in = PF_NEW_ARRAY(&g->arena, pf_value *, n->n_in);
    if (in == NULL) {
        pf_fail(err, PEFT_E_NOMEM, "out of memory");
        return NULL;
    }
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == NULL) continue;
        in[i] = pf_grad_need(ad, n->in[i], err);
        if (in[i] == NULL) return NULL;
    }
    const char *scope = g->scope;
    g->scope = NULL; /* n->name is full already */
    pf_node *again;
    peft_status status = pf_graph_emit(g, n->op->name, n->name, n->args, in, n->n_in, &again, err);
    g->scope = scope;
    if (status != PEFT_OK) return NULL;
    again->is_recompute = true;
    again->block = n->block;
    n->again = true;
    for (int i = 0; i < n->n_out && i < again->n_out; i++) ad->clone[n->out[i]->id] = again->out[i];
    return ad->clone[v->id];
}

pf_value *pf_grad_take(pf_autodiff *ad, pf_value *v) {
    pf_value *so_far = ad->grad[v->id];
    ad->grad[v->id] = NULL;
    return so_far;
}

peft_status pf_grad_give(pf_autodiff *ad, pf_value *v, pf_value *contribution, peft_error *err) {
    if (!pf_grad_wanted(v)) return PEFT_OK;
    if (v->kind == PF_VALUE_PARAM) {
        pf_value *in[2] = {contribution, pf_grad_sink(ad, v)};
        return pf_graph_emit(ad->graph, "add_grad", v->name, NULL, in, 2, NULL, err);
    }
    PF_ASSERT(v->kind == PF_VALUE_ACT && v->id < ad->n_forward_values);
    if (ad->grad[v->id] == NULL) {
        ad->grad[v->id] = contribution;
        return PEFT_OK;
    }
    pf_value *in[2] = {ad->grad[v->id], contribution};
    pf_node *sum;
    PF_TRY(pf_graph_emit(ad->graph, "add", v->name, NULL, in, 2, &sum, err));
    ad->grad[v->id] = sum->out[0];
    return PEFT_OK;
}

pf_value *pf_grad_sink(pf_autodiff *ad, const pf_value *param) {
    PF_ASSERT(param->kind == PF_VALUE_PARAM);
    return pf_graph_grad(ad->graph, param->param);
}

/* The roundings were emitted when the backward pass first asked for them; their place is behind
 * what they round, so that its room is free again early. */
static peft_status place_packs(pf_autodiff *ad, int n_forward, peft_error *err) {
    pf_graph *g = ad->graph;
    if (ad->n_packs == 0) return PEFT_OK;
    pf_node **nodes = PF_NEW_ARRAY(&g->arena, pf_node *, g->n_nodes);
    PF_CHECK_ALLOC(nodes, err);
    int n = 0;
    for (int i = 0; i < n_forward; i++) {
        const pf_node *from = nodes[n++] = g->nodes[i];
        for (int k = 0; k < from->n_out; k++) {
            const pf_value *packed = from->out[k]->packed;
            if (packed != NULL) nodes[n++] = packed->producer;
        }
    }
    for (int i = n_forward; i < g->n_nodes; i++) {
        if (g->nodes[i]->phase == PF_PHASE_BACKWARD) nodes[n++] = g->nodes[i];
    }
    PF_ASSERT(n == g->n_nodes);
    memcpy(g->nodes, nodes, (size_t)n * sizeof(pf_node *));
    return PEFT_OK;
}

peft_status pf_autodiff_run(pf_graph *g, pf_value *root, pf_value *seed, pf_save_policy policy,
                            peft_error *err) {
    if (!root->needs_grad) {
        return PF_FAIL(err, PEFT_E_STATE, "the loss depends on nothing that is trained");
    }
    if (root->space != seed->space || root->cols != seed->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "the seed of the backward pass has another shape than %s",
                       root->name);
    }
    pf_autodiff ad = {.graph = g, .policy = policy, .n_forward_values = g->n_values};
    ad.grad = PF_NEW_ARRAY(&g->arena, pf_value *, g->n_values);
    ad.clone = PF_NEW_ARRAY(&g->arena, pf_value *, g->n_values);
    ad.packs = PF_NEW_ARRAY(&g->arena, pf_node *, g->n_values);
    if (ad.grad == NULL || ad.clone == NULL || ad.packs == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    ad.grad[root->id] = seed;

    int n_forward = g->n_nodes;
    int block = g->block;
    g->phase = PF_PHASE_BACKWARD;
    for (int i = n_forward - 1; i >= 0; i--) {
        pf_node *n = g->nodes[i];
        bool wanted = false;
        for (int k = 0; k < n->n_out; k++) {
            wanted |= n->out[k]->needs_grad && ad.grad[n->out[k]->id] != NULL;
        }
        if (!wanted) continue;
        g->block = n->block;
        peft_status status = n->op->vjp(&ad, n, err);
        if (status != PEFT_OK)
            return pf_fail_prefix(err, status, "gradient of %s (%s)", n->name, n->op->name);
    }
    g->block = block;
    return place_packs(&ad, n_forward, err);
}
