/* plan.c - lifetimes and places of all buffers of a graph; see plan.h.
 *
 * Placement is greedy (placement.c): the largest buffer first, each at the lowest offset where it
 * meets nobody who lives at the same time. Two orders are tried and the smaller arena is taken;
 * both are deterministic. */
#include "graph/plan.h"

#include "base/mem.h"
#include "base/str.h"
#include "graph/placement.h"

#include <stdlib.h>
#include <string.h>

#define ALIGN 64

const char *pf_mem_class_name(pf_mem_class c) {
    static const char *const names[PF_MEM_CLASS_COUNT] = {
        "saved activations", "forward activations", "gradients of activations", "workspace"};
    return names[c];
}

static int64_t round_up(int64_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static const pf_routed_group *group_of(const pf_graph *g, const pf_value *v) {
    const pf_routed_group *group = g->groups;
    while (v->space >= group->first + group->n) group++;
    return group;
}

/* Of a routed value: of all experts. */
static int64_t value_bytes(const pf_graph *g, const pf_value *v, const int64_t *capacity) {
    int64_t rows = pf_value_rows(v, capacity);
    if (pf_space_is_routed(v->space)) rows *= group_of(g, v)->per_row;
    return round_up(rows * v->cols * (int64_t)sizeof(pf_real));
}

/* The same in every pass while the weights stay as they are. */
static bool is_of_weights(const pf_node *n) {
    if (n->phase != PF_PHASE_FORWARD || n->again || n->n_in == 0 || n->n_out == 0) return false;
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k]->space != PF_SPACE_NONE) return false;
    }
    for (int k = 0; k < n->n_in; k++) {
        const pf_value *v = n->in[k];
        if (v == NULL || v->kind == PF_VALUE_WEIGHT || v->kind == PF_VALUE_PARAM) continue;
        if (v->kind != PF_VALUE_ACT || !v->producer->of_weights) return false;
    }
    return true;
}

/* Without a backward pass, which would hold them anyhow, what is made is kept while all of it is no
 * larger than the frozen weights. */
static bool worth_keeping(const pf_graph *g) {
    int64_t made = 0, weights = 0;
    for (int i = 0; i < g->n_values; i++) {
        const pf_value *v = g->values[i];
        if (v->kind == PF_VALUE_WEIGHT)
            weights += (int64_t)pf_weight_bytes(v->weight);
        else if (v->kind == PF_VALUE_ACT && v->producer->of_weights)
            made += v->rows * v->cols * (int64_t)sizeof(pf_real);
    }
    return made <= weights || g->params != NULL;
}

/* They come first, in the order they had. */
static peft_status order(pf_graph *g, int *n_of_weights, peft_error *err) {
    int n = 0, rest = 0;
    pf_node **others = pf_calloc((size_t)g->n_nodes + 1, sizeof *others);
    PF_CHECK_ALLOC(others, err);
    for (int i = 0; i < g->n_nodes; i++) g->nodes[i]->of_weights = is_of_weights(g->nodes[i]);
    const bool keep = worth_keeping(g);
    for (int i = 0; i < g->n_nodes; i++) {
        pf_node *node = g->nodes[i];
        node->of_weights &= keep;
        if (node->of_weights)
            g->nodes[n++] = node;
        else
            others[rest++] = node;
    }
    memcpy(g->nodes + n, others, (size_t)rest * sizeof *others);
    pf_free(others);
    *n_of_weights = n;
    return PEFT_OK;
}

static void find_lifetimes(pf_graph *g) {
    for (int i = 0; i < g->n_values; i++) {
        pf_value *v = g->values[i];
        v->first = v->last = -1;
        v->home = v;
        v->offset = -1;
    }
    for (int i = 0; i < g->n_nodes; i++) {
        pf_node *n = g->nodes[i];
        n->id = i;
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] != NULL) n->in[k]->last = i;
        }
        for (int k = 0; k < n->n_out; k++) {
            n->out[k]->first = i;
            if (n->out[k]->last < i) n->out[k]->last = i;
        }
    }
    for (int i = 0; i < g->n_nodes; i++) { /* kept from pass to pass */
        const pf_node *n = g->nodes[i];
        for (int k = 0; k < n->n_in && !n->of_weights; k++) {
            pf_value *v = n->in[k];
            if (v != NULL && v->kind == PF_VALUE_ACT && v->producer->of_weights)
                v->last = g->n_nodes;
        }
    }
    for (int i = 0; i < g->n_values; i++) { /* whoever else reads it before */
        pf_value *v = g->values[i];
        if (v->result && v->first >= 0) v->last = g->n_nodes;
    }
}

/* An in-place op takes over the room of an input that nobody reads afterwards. */
static void share_rooms(pf_graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        pf_node *n = g->nodes[i];
        if (n->op->in_place == 0 || n->op->in_place > n->n_in || n->n_out == 0) continue;
        pf_value *in = n->in[n->op->in_place - 1];
        pf_value *out = n->out[0];
        if (pf_space_is_routed(out->space)) continue; /* share_routed puts them together */
        if (in == NULL || in->kind != PF_VALUE_ACT || in->last != i || in->result) continue;
        if (in->space != out->space || in->rows != out->rows || in->cols != out->cols) continue;
        int uses = 0;
        for (int k = 0; k < n->n_in; k++) uses += n->in[k] == in;
        if (uses != 1) continue;
        out->home = in->home;
        if (out->home->last < out->last) out->home->last = out->last;
    }
}

/* The k-th value of a width in one space of a group shares its room with the k-th in the others:
 * whatever is what, they are rows of different experts. */
enum { WIDTHS = 32 };

typedef struct width {
    int64_t cols;
    int n, cap; /* rooms so far */
    pf_value **rooms;
} width;

static peft_status share_routed_group(pf_graph *g, const pf_routed_group *group, peft_error *err) {
    width widths[WIDTHS] = {0};
    int n_widths = 0;
    peft_status status = PEFT_OK;
    int *seen = pf_calloc((size_t)group->n * WIDTHS, sizeof *seen); /* of a space and a width */
    PF_CHECK_ALLOC(seen, err);
    for (int i = 0; i < g->n_values && status == PEFT_OK; i++) {
        pf_value *v = g->values[i];
        if (v->kind != PF_VALUE_ACT || v->space < group->first ||
            v->space >= group->first + group->n || v->first < 0)
            continue;
        int w = 0;
        while (w < n_widths && widths[w].cols != v->cols) w++;
        if (w == WIDTHS) continue; /* a room of its own */
        if (w == n_widths) widths[n_widths++].cols = v->cols;
        width *of = &widths[w];
        const int k = seen[(v->space - group->first) * WIDTHS + w]++;
        if (k == of->cap) {
            const int cap = of->cap == 0 ? 16 : 2 * of->cap;
            pf_value **rooms = pf_realloc(of->rooms, (size_t)cap * sizeof(pf_value *));
            if (rooms == NULL) {
                status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
                break;
            }
            of->rooms = rooms;
            of->cap = cap;
        }
        if (k == of->n) {
            of->rooms[of->n++] = v;
            continue;
        }
        pf_value *home = v->home = of->rooms[k];
        if (v->first < home->first) home->first = v->first;
        if (v->last > home->last) home->last = v->last;
    }
    for (int w = 0; w < n_widths; w++) pf_free(widths[w].rooms);
    pf_free(seen);
    return status;
}

static peft_status choose_kernels(pf_graph *g, const pf_backend *be, const int64_t *capacity,
                                  peft_error *err) {
    /* The null backend plans for the CPU. */
    const char *backend = pf_streq(be->name, "null") ? "cpu" : be->name;
    for (int i = 0; i < g->n_nodes; i++) {
        pf_node *n = g->nodes[i];
        n->kernel = NULL;
        for (const pf_kernel_row *row = n->op->kernels; row->backend != NULL; row++) {
            if (pf_streq(row->backend, backend) && (row->can == NULL || row->can(n))) {
                n->kernel = row;
                break;
            }
        }
        if (n->kernel == NULL) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: the %s backend has no kernel for the op '%s'", n->name, be->name,
                           n->op->name);
        }
        n->workspace = n->kernel->workspace != NULL
                           ? n->kernel->workspace(n, capacity, be->n_workers)
                       : n->op->workspace != NULL ? n->op->workspace(n, capacity, be->n_workers)
                                                  : 0;
        n->workspace = round_up(n->workspace);
    }
    return PEFT_OK;
}

static int larger_first(const void *a, const void *b) {
    const pf_room *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return (x->value != NULL ? x->value->id : -1) - (y->value != NULL ? y->value->id : -1);
}

static int longer_first(const void *a, const void *b) {
    const pf_room *x = a, *y = b;
    int lx = x->last - x->first, ly = y->last - y->first;
    if (lx != ly) return lx < ly ? 1 : -1;
    return larger_first(a, b);
}

static int collect(const pf_graph *g, const pf_plan *plan, pf_room *items) {
    int n = 0;
    for (int i = 0; i < g->n_values; i++) {
        pf_value *v = g->values[i];
        if (v->kind != PF_VALUE_ACT || v->home != v || v->first < 0) continue;
        bool forward = v->first < plan->first_backward;
        items[n++] = (pf_room){.value = v,
                               .bytes = value_bytes(g, v, plan->capacity),
                               .first = v->first,
                               .last = v->last,
                               .class = !forward                          ? PF_MEM_BACKWARD
                                        : v->last >= plan->first_backward ? PF_MEM_SAVED
                                                                          : PF_MEM_FORWARD};
    }
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i]->workspace == 0) continue;
        items[n++] = (pf_room){
            .bytes = g->nodes[i]->workspace, .first = i, .last = i, .class = PF_MEM_WORKSPACE};
    }
    return n;
}

/* What lives at each node, from what begins and what has ended there. */
static peft_status find_peak(pf_plan *plan, const pf_room *items, int n, int n_nodes,
                             peft_error *err) {
    enum { N = PF_MEM_CLASS_COUNT };
    int64_t *change = pf_calloc(((size_t)n_nodes + 2) * N, sizeof *change);
    PF_CHECK_ALLOC(change, err);
    for (int i = 0; i < n; i++) {
        const int end = items[i].last < n_nodes ? items[i].last + 1 : n_nodes;
        change[items[i].first * N + (int)items[i].class] += items[i].bytes;
        change[end * N + (int)items[i].class] -= items[i].bytes;
        plan->sum[items[i].class] += items[i].bytes;
    }
    int64_t best = -1, live[N] = {0};
    for (int t = 0; t < n_nodes; t++) {
        int64_t sum = 0;
        for (int c = 0; c < N; c++) sum += live[c] += change[t * N + c];
        if (sum > best) {
            best = sum;
            plan->peak_node = t;
            memcpy(plan->at_peak, live, sizeof live);
        }
    }
    pf_free(change);
    return PEFT_OK;
}

static void sum_costs(pf_plan *plan, const pf_graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        if (n->op->cost == NULL) continue;
        int64_t rows[PF_SPACE_COUNT];
        memcpy(rows, plan->capacity, sizeof rows);
        const pf_value *v = n->n_out > 0 ? n->out[0] : n->n_in > 0 ? n->in[0] : NULL;
        if (v != NULL && pf_space_is_routed(v->space)) { /* an expert's share */
            const pf_routed_group *group = group_of(g, v);
            rows[PF_SPACE_TOKENS] = rows[PF_SPACE_TOKENS] * group->per_row / group->n;
        }
        double flops = n->op->cost(n, rows).flops;
        if (n->is_recompute)
            plan->recompute_flops += flops;
        else if (n->phase == PF_PHASE_FORWARD)
            plan->forward_flops += flops;
        else
            plan->backward_flops += flops;
    }
}

peft_status pf_plan_make(pf_plan *plan, pf_graph *g, const pf_backend *be, const int64_t *capacity,
                         peft_error *err) {
    memset(plan, 0, sizeof *plan);
    memcpy(plan->capacity, capacity, sizeof plan->capacity);
    PF_TRY(order(g, &plan->n_of_weights, err));
    find_lifetimes(g);
    share_rooms(g);
    for (int i = 0; i < g->n_groups; i++) PF_TRY(share_routed_group(g, &g->groups[i], err));
    PF_TRY(choose_kernels(g, be, capacity, err));
    plan->first_backward = g->n_nodes;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        if (g->nodes[i]->phase == PF_PHASE_BACKWARD) plan->first_backward = i;
    }

    size_t most = (size_t)(g->n_values + g->n_nodes + 1);
    pf_room *items = pf_calloc(most, sizeof *items);
    pf_room *second = pf_calloc(most, sizeof *second);
    int64_t by_size, by_life;
    peft_status status = PEFT_OK;
    if (items == NULL || second == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    int n = collect(g, plan, items);
    memcpy(second, items, (size_t)n * sizeof *items);
    qsort(items, (size_t)n, sizeof *items, larger_first);
    qsort(second, (size_t)n, sizeof *second, longer_first);
    status = pf_placement_make(items, n, &by_size, err);
    if (status == PEFT_OK) status = pf_placement_make(second, n, &by_life, err);
    if (status != PEFT_OK) goto out;
    const pf_room *best = by_size <= by_life ? items : second;
    plan->arena_bytes = by_size <= by_life ? by_size : by_life;
    for (int i = 0; i < n; i++) {
        if (best[i].value != NULL)
            best[i].value->offset = best[i].offset;
        else
            g->nodes[best[i].first]->workspace_offset = best[i].offset;
    }
    for (int i = 0; i < g->n_values; i++) g->values[i]->offset = g->values[i]->home->offset;
    status = find_peak(plan, best, n, g->n_nodes, err);
    sum_costs(plan, g);
out:
    pf_free(items);
    pf_free(second);
    return status;
}
