/* graph.c - building the list of nodes; see graph.h. */
#include "graph/graph.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

peft_status pf_graph_new(pf_graph **out, const pf_op *const *ops, peft_error *err) {
    *out = NULL;
    pf_graph *g = pf_calloc(1, sizeof *g);
    PF_CHECK_ALLOC(g, err);
    pf_arena_init(&g->arena, "graph");
    g->ops = ops;
    g->block = -1;
    *out = g;
    return PEFT_OK;
}

void pf_graph_free(pf_graph *g) {
    if (g == NULL) return;
    pf_arena_release(&g->arena);
    pf_free(g);
}

const pf_op *pf_graph_find_op(const pf_graph *g, const char *name) {
    for (const pf_op *const *op = g->ops; *op != NULL; op++) {
        if (pf_streq((*op)->name, name)) return *op;
    }
    return NULL;
}

/* The same, for names that come again and again. */
static const pf_op *find_op(pf_graph *g, const char *name) {
    const pf_op **recent = &g->recent_ops[((uintptr_t)name >> 2) % PF_COUNT(g->recent_ops)];
    if (*recent == NULL || !pf_streq((*recent)->name, name)) *recent = pf_graph_find_op(g, name);
    return *recent;
}

/* Doubles an array that lives in the graph's arena; the old half stays behind until the graph ends.
 */
static void *grown(pf_graph *g, void *items, int n, int *cap, size_t size) {
    if (n < *cap) return items;
    int new_cap = *cap == 0 ? 64 : 2 * *cap;
    void *bigger = pf_arena_array(&g->arena, (size_t)new_cap, size);
    if (bigger == NULL) return NULL;
    if (n > 0) memcpy(bigger, items, (size_t)n * size);
    *cap = new_cap;
    return bigger;
}

static pf_value *new_value(pf_graph *g, pf_value_kind kind, const char *name, int space,
                           int64_t rows, int64_t cols) {
    pf_value **values = grown(g, g->values, g->n_values, &g->cap_values, sizeof *values);
    if (values == NULL) return NULL;
    g->values = values;
    pf_value *v = PF_NEW(&g->arena, pf_value);
    if (v == NULL) return NULL;
    v->id = g->n_values;
    v->kind = kind;
    v->name = name;
    v->space = space;
    v->rows = rows;
    v->cols = cols;
    v->offset = -1;
    v->home = v;
    g->values[g->n_values++] = v;
    return v;
}

/* ---- values from outside ----------------------------------------------------------------------
 */

static const void *stands_for(const pf_value *v) {
    return v->kind == PF_VALUE_WEIGHT ? (const void *)v->weight : (const void *)v->param;
}

/* The slot of what stands for `what`, or the free one where it would go. */
static pf_value **slot_of(pf_value **slots, int n_slots, pf_value_kind kind, const void *what) {
    uint64_t h = ((uint64_t)(uintptr_t)what + (uint64_t)kind) * 0x9E3779B97F4A7C15u;
    int at = (int)(h >> 32) & (n_slots - 1);
    while (slots[at] != NULL && (slots[at]->kind != kind || stands_for(slots[at]) != what))
        at = (at + 1) & (n_slots - 1);
    return &slots[at];
}

static bool grow_outside(pf_graph *g) {
    if (2 * (g->n_outside + 1) <= g->n_slots) return true;
    const int n_slots = g->n_slots == 0 ? 256 : 2 * g->n_slots;
    pf_value **slots = PF_NEW_ARRAY(&g->arena, pf_value *, n_slots);
    if (slots == NULL) return false;
    for (int i = 0; i < g->n_slots; i++) {
        pf_value *v = g->outside[i];
        if (v != NULL) *slot_of(slots, n_slots, v->kind, stands_for(v)) = v;
    }
    g->outside = slots;
    g->n_slots = n_slots;
    return true;
}

/* The value of this kind that stands for a weight or a parameter; *is_new: made just now. */
static pf_value *outside_value(pf_graph *g, pf_value_kind kind, const pf_weight *w, pf_param *p,
                               bool *is_new) {
    *is_new = false;
    if (!grow_outside(g)) return NULL;
    pf_value **slot =
        slot_of(g->outside, g->n_slots, kind, w != NULL ? (const void *)w : (const void *)p);
    if (*slot != NULL) return *slot;
    pf_value *v = w != NULL ? new_value(g, kind, w->name, PF_SPACE_NONE, w->rows, w->cols)
                            : new_value(g, kind, p->name, PF_SPACE_NONE, p->rows, p->cols);
    if (v == NULL) return NULL;
    v->weight = w;
    v->param = p;
    *is_new = true;
    g->n_outside++;
    return *slot = v;
}

pf_value *pf_graph_weight(pf_graph *g, const pf_weight *w) {
    bool is_new;
    return outside_value(g, PF_VALUE_WEIGHT, w, NULL, &is_new);
}

static pf_value *param_value(pf_graph *g, pf_param *p, pf_value_kind kind) {
    bool is_new;
    pf_value *v = outside_value(g, kind, NULL, p, &is_new);
    if (is_new) v->needs_grad = kind == PF_VALUE_PARAM && g->params != NULL && !p->frozen;
    return v;
}

pf_value *pf_graph_param(pf_graph *g, pf_param *p) {
    return param_value(g, p, PF_VALUE_PARAM);
}

pf_value *pf_graph_grad(pf_graph *g, pf_param *p) {
    return param_value(g, p, PF_VALUE_GRAD);
}

pf_value *pf_graph_state(pf_graph *g, const char *name, int64_t rows, int64_t cols, pf_real *data) {
    pf_value *v =
        new_value(g, PF_VALUE_STATE, pf_arena_strdup(&g->arena, name), PF_SPACE_NONE, rows, cols);
    if (v != NULL) v->external = data;
    return v;
}

pf_value *pf_graph_input(pf_graph *g, const char *name, int space, int64_t cols, pf_real *data) {
    pf_value *v = new_value(g, PF_VALUE_INPUT, pf_arena_strdup(&g->arena, name), space, 1, cols);
    if (v != NULL) v->external = data;
    return v;
}

pf_value *pf_graph_out(pf_graph *g, pf_node *n, int space, int64_t rows, int64_t cols) {
    pf_value *v = new_value(g, PF_VALUE_ACT, n->name, space, rows, cols);
    if (v == NULL) return NULL;
    pf_value **outs = PF_NEW_ARRAY(&g->arena, pf_value *, n->n_out + 1);
    if (outs == NULL) return NULL;
    if (n->n_out > 0) memcpy(outs, n->out, (size_t)n->n_out * sizeof *outs);
    outs[n->n_out++] = v;
    n->out = outs;
    v->producer = n;
    /* Only the forward pass is differentiated. */
    if (g->phase == PF_PHASE_FORWARD && n->op->vjp != NULL) {
        for (int i = 0; i < n->n_in; i++) v->needs_grad |= n->in[i] != NULL && n->in[i]->needs_grad;
    }
    return v;
}

peft_status pf_graph_emit(pf_graph *g, const char *op, const char *name, const void *args,
                          pf_value *const *in, int n_in, pf_node **out, peft_error *err) {
    const pf_op *kind = find_op(g, op);
    if (kind == NULL) return PF_FAIL(err, PEFT_E_UNSUPPORTED, "no op is named '%s'", op);

    pf_node **nodes = grown(g, g->nodes, g->n_nodes, &g->cap_nodes, sizeof *nodes);
    PF_CHECK_ALLOC(nodes, err);
    g->nodes = nodes;
    pf_node *n = PF_NEW(&g->arena, pf_node);
    PF_CHECK_ALLOC(n, err);
    n->op = kind;
    n->name = g->scope != NULL ? pf_arena_printf(&g->arena, "%s.%s", g->scope, name)
                               : pf_arena_strdup(&g->arena, name);
    n->in = PF_NEW_ARRAY(&g->arena, pf_value *, n_in);
    if (n->name == NULL || n->in == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (n_in > 0) memcpy(n->in, in, (size_t)n_in * sizeof *in);
    n->n_in = n_in;
    if (kind->args_size > 0) {
        void *copy = pf_arena_alloc(&g->arena, kind->args_size);
        PF_CHECK_ALLOC(copy, err);
        memcpy(copy, args, kind->args_size);
        n->args = copy;
    }
    n->block = g->block;
    n->phase = g->phase;
    n->id = g->n_nodes;
    peft_status status = kind->shape(g, n, err);
    if (status != PEFT_OK) return pf_fail_prefix(err, status, "%s (%s)", n->name, kind->name);
    for (int i = 0; i < n->n_out; i++) PF_CHECK_ALLOC(n->out[i], err);
    for (int i = 0; i < n_in && g->phase == PF_PHASE_FORWARD; i++) {
        if (in[i] == NULL) continue;
        pf_use *use = PF_NEW(&g->arena, pf_use);
        PF_CHECK_ALLOC(use, err);
        *use = (pf_use){n, n->in[i]->uses};
        n->in[i]->uses = use;
    }
    g->nodes[g->n_nodes++] = n;
    if (out != NULL) *out = n;
    return PEFT_OK;
}

void pf_graph_block_begin(pf_graph *g, int index, pf_value *x) {
    g->block = index;
    x->keep = true;
}

void pf_graph_block_end(pf_graph *g) {
    g->block = -1;
}

int64_t pf_value_rows(const pf_value *v, const int64_t *rows_of_space) {
    if (pf_space_is_routed(v->space)) return rows_of_space[PF_SPACE_TOKENS];
    return v->space == PF_SPACE_NONE ? v->rows : rows_of_space[v->space];
}

int pf_graph_add_routed(pf_graph *g, int n, int64_t per_row) {
    pf_routed_group *groups = grown(g, g->groups, g->n_groups, &g->cap_groups, sizeof *groups);
    if (groups == NULL) return -1;
    g->groups = groups;
    const int first = PF_SPACE_COUNT + g->n_routed;
    groups[g->n_groups++] = (pf_routed_group){.first = first, .n = n, .per_row = per_row};
    g->n_routed += n;
    return first;
}
