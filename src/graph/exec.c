/* exec.c - runs the nodes of a planned graph in order; see exec.h. */
#include "graph/exec.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>

peft_status pf_exec_new(pf_exec **out, pf_graph *g, pf_backend *be, const int64_t *capacity,
                        peft_error *err) {
    return pf_exec_new_in(out, g, be, capacity, NULL, err);
}

/* Room for what routers choose: one block. */
static peft_status make_routing(pf_exec *x, peft_error *err) {
    const pf_graph *g = x->graph;
    const int64_t T = x->plan.capacity[PF_SPACE_TOKENS];
    size_t bytes = (size_t)g->n_groups * sizeof(pf_routing) +
                   (size_t)g->n_routed * (sizeof(pf_batch) + sizeof(int64_t));
    for (int i = 0; i < g->n_groups; i++)
        bytes += ((size_t)g->groups[i].n + 1) * sizeof(int64_t) +
                 4 * (size_t)(g->groups[i].per_row * T) * sizeof(int32_t);
    unsigned char *room = x->routed_room = pf_calloc(1, bytes + 64);
    PF_CHECK_ALLOC(room, err);
    x->routing = (pf_routing *)(void *)room;
    room += (size_t)g->n_groups * sizeof(pf_routing);
    x->routed = (pf_batch *)(void *)room;
    room += (size_t)g->n_routed * sizeof(pf_batch);
    x->routed_row = (int64_t *)(void *)room;
    room += (size_t)g->n_routed * sizeof(int64_t);
    for (int i = 0; i < g->n_groups; i++) { /* first all that is wider */
        x->routing[i].offset = (int64_t *)(void *)room;
        room += ((size_t)g->groups[i].n + 1) * sizeof(int64_t);
    }
    for (int i = 0; i < g->n_groups; i++) {
        pf_routing *r = &x->routing[i];
        int32_t **lists[4] = {&r->token, &r->at, &r->sample, &r->pos};
        for (int k = 0; k < 4; k++) {
            *lists[k] = (int32_t *)(void *)room;
            room += (size_t)(g->groups[i].per_row * T) * sizeof(int32_t);
        }
    }
    return PEFT_OK;
}

static int group_at(const pf_exec *x, int first) {
    int i = 0;
    while (x->graph->groups[i].first != first) i++;
    return i;
}

const pf_routing *pf_exec_routing(const pf_exec *x, int first) {
    return &x->routing[group_at(x, first)];
}

/* A stable sort by expert: the rows of an expert are in the order of the tokens. */
void pf_exec_route(pf_exec *x, int first, const int32_t *expert) {
    const int i = group_at(x, first);
    const pf_routed_group *group = &x->graph->groups[i];
    pf_routing *r = &x->routing[i];
    const int64_t T = x->batch->n_tokens, k = group->per_row;
    memset(r->offset, 0, ((size_t)group->n + 1) * sizeof *r->offset);
    for (int64_t c = 0; c < T * k; c++) r->offset[expert[c] + 1]++;
    for (int e = 0; e < group->n; e++) {
        const int s = group->first - PF_SPACE_COUNT + e;
        pf_batch *b = &x->routed[s];
        b->n_tokens = (int32_t)r->offset[e + 1];
        r->offset[e + 1] += r->offset[e];
        x->routed_row[s] = r->offset[e];
        b->sample = r->sample + r->offset[e];
        b->pos = r->pos + r->offset[e];
    }
    for (int64_t c = 0; c < T * k; c++) {
        const int64_t row = r->offset[expert[c]]++;
        const int64_t t = c / k;
        r->at[c] = (int32_t)row;
        r->token[row] = (int32_t)t;
        r->sample[row] = x->batch->sample[t];
        r->pos[row] = x->batch->pos[t];
    }
    for (int e = group->n; e > 0; e--) r->offset[e] = r->offset[e - 1];
    r->offset[0] = 0;
}

peft_status pf_exec_new_in(pf_exec **out, pf_graph *g, pf_backend *be, const int64_t *capacity,
                           const pf_exec *lender, peft_error *err) {
    *out = NULL;
    pf_exec *x = pf_calloc(1, sizeof *x);
    PF_CHECK_ALLOC(x, err);
    x->graph = g;
    x->backend = be;
    peft_status status = pf_plan_make(&x->plan, g, be, capacity, err);
    if (status == PEFT_OK && lender != NULL && x->plan.arena_bytes <= (int64_t)lender->arena.size) {
        x->arena = lender->arena;
        x->arena_is_lent = true;
    } else if (status == PEFT_OK) {
        status = be->alloc(be, &x->arena, (size_t)x->plan.arena_bytes, "activations", err);
    }
    if (status == PEFT_OK && g->n_groups > 0) status = make_routing(x, err);
    if (status != PEFT_OK) {
        pf_exec_free(x);
        return status;
    }
    *out = x;
    return PEFT_OK;
}

void pf_exec_free(pf_exec *x) {
    if (x == NULL) return;
    if (!x->arena_is_lent) x->backend->free(x->backend, &x->arena);
    pf_free(x->profile);
    pf_free(x->routed_room);
    pf_free(x);
}

peft_status pf_exec_bind(pf_exec *x, const pf_batch *batch, peft_error *err) {
    const int64_t rows[PF_SPACE_COUNT] = {
        [PF_SPACE_TOKENS] = batch->n_tokens,
        [PF_SPACE_LABELS] = batch->n_labels,
        [PF_SPACE_SOURCE] = batch->source != NULL ? batch->source->n_tokens : 0,
    };
    static const char *const names[PF_SPACE_COUNT] = {"tokens", "labels", "source tokens"};
    for (int s = 0; s < PF_SPACE_COUNT; s++) {
        if (rows[s] > x->plan.capacity[s]) {
            return PF_FAIL(err, PEFT_E_STATE, "a batch of %lld %s does not fit the plan for %lld",
                           (long long)rows[s], names[s], (long long)x->plan.capacity[s]);
        }
        x->rows[s] = rows[s];
    }
    x->batch = batch;
    if (x->routed != NULL) {
        x->with_routed = *batch;
        x->with_routed.routed = x->routed;
        x->batch = &x->with_routed;
        for (int s = 0; s < x->graph->n_routed; s++) x->routed[s].step = batch->step;
    }
    return PEFT_OK;
}

pf_real *pf_exec_data(const pf_exec *x, const pf_value *v) {
    if (v == NULL) return NULL;
    switch (v->kind) {
    case PF_VALUE_ACT: {
        pf_real *data = (pf_real *)(void *)((unsigned char *)x->arena.data + v->offset);
        if (!pf_space_is_routed(v->space)) return data;
        return data + x->routed_row[v->space - PF_SPACE_COUNT] * v->cols;
    }
    case PF_VALUE_PARAM:
        return v->param->data;
    case PF_VALUE_GRAD:
        return v->param->grad;
    case PF_VALUE_STATE:
    case PF_VALUE_INPUT:
        return v->external;
    case PF_VALUE_WEIGHT:
        return NULL;
    }
    return NULL;
}

int64_t pf_exec_rows(const pf_exec *x, const pf_value *v) {
    if (pf_space_is_routed(v->space)) return x->routed[v->space - PF_SPACE_COUNT].n_tokens;
    return pf_value_rows(v, x->rows);
}

static peft_status check_outputs(const pf_exec *x, const pf_node *n, peft_error *err) {
    for (int k = 0; k < n->n_out; k++) {
        const pf_value *v = n->out[k];
        const pf_real *data = pf_exec_data(x, v);
        int64_t count = pf_exec_rows(x, v) * v->cols;
        for (int64_t i = 0; i < count; i++) {
            if (isfinite(data[i])) continue;
            return PF_FAIL(err, PEFT_E_DIVERGED, "%s (%s, %s pass): %s in row %lld, column %lld",
                           n->name, n->op->name,
                           n->phase == PF_PHASE_FORWARD ? "forward" : "backward",
                           isnan(data[i]) ? "NaN" : "infinity", (long long)(i / v->cols),
                           (long long)(i % v->cols));
        }
    }
    return PEFT_OK;
}

static bool is_empty(const pf_exec *x, const pf_value *v) {
    if (v == NULL || (v->space != PF_SPACE_SOURCE && !pf_space_is_routed(v->space))) return false;
    return pf_exec_rows(x, v) == 0;
}

/* The rows of an encoder in a pass where no sequence begins, or of an expert that nobody chose:
 * nothing to do. A node without outputs adds to a gradient. */
static bool has_no_rows(const pf_exec *x, const pf_node *n) {
    for (int k = 0; k < n->n_out; k++) {
        if (!is_empty(x, n->out[k])) return false;
    }
    for (int k = 0; n->n_out == 0 && k < n->n_in; k++) {
        if (n->in[k] != NULL && pf_space_is_routed(n->in[k]->space)) return is_empty(x, n->in[k]);
    }
    return n->n_out > 0;
}

static peft_status run_node(pf_exec *x, const pf_node *n, peft_error *err) {
    if (has_no_rows(x, n)) return PEFT_OK;
    x->workspace = (unsigned char *)x->arena.data + n->workspace_offset;
    const bool timed = x->profile != NULL;
    const double start = timed ? pf_now() : 0, busy = timed ? pf_pool_busy(x->backend->pool) : 0;
    peft_status status = n->kernel->run(x, n, err);
    if (status != PEFT_OK) return pf_fail_prefix(err, status, "%s (%s)", n->name, n->op->name);
    if (timed) {
        pf_profile_row *row = &x->profile[n->id];
        row->calls++;
        row->seconds += pf_now() - start;
        row->busy += pf_pool_busy(x->backend->pool) - busy;
        if (n->op->cost != NULL) {
            int64_t rows[PF_SPACE_COUNT];
            memcpy(rows, x->rows, sizeof rows);
            const pf_value *v = n->n_out > 0 ? n->out[0] : n->n_in > 0 ? n->in[0] : NULL;
            if (v != NULL && pf_space_is_routed(v->space))
                rows[PF_SPACE_TOKENS] = pf_exec_rows(x, v);
            pf_cost cost = n->op->cost(n, rows);
            if (n->op->share_of_cost != NULL) cost.flops *= n->op->share_of_cost(n, x->batch);
            row->flops += cost.flops;
            row->bytes += cost.bytes;
        }
    }
    return x->check_finite ? check_outputs(x, n, err) : PEFT_OK;
}

static peft_status run_range(pf_exec *x, int from, int to, peft_error *err) {
    if (x->batch == NULL) return PF_FAIL(err, PEFT_E_STATE, "no batch is bound");
    if (pf_streq(x->backend->name, "null")) {
        return PF_FAIL(err, PEFT_E_STATE, "the null backend plans, it does not compute");
    }
    for (int i = from; i < to; i++) PF_TRY(run_node(x, x->graph->nodes[i], err));
    return PEFT_OK;
}

void pf_exec_weights_stay(pf_exec *x, bool stay) {
    x->weights_stay = stay;
    x->made = false;
}

peft_status pf_exec_forward(pf_exec *x, peft_error *err) {
    const bool is_made = x->weights_stay && x->made && !x->check_finite;
    PF_TRY(run_range(x, is_made ? x->plan.n_of_weights : 0, x->plan.first_backward, err));
    x->made = true;
    return PEFT_OK;
}

peft_status pf_exec_backward(pf_exec *x, peft_error *err) {
    return run_range(x, x->plan.first_backward, x->graph->n_nodes, err);
}

peft_status pf_exec_profile(pf_exec *x, bool on, peft_error *err) {
    pf_free(x->profile);
    x->profile = NULL;
    if (!on) return PEFT_OK;
    x->profile = pf_calloc((size_t)x->graph->n_nodes + 1, sizeof *x->profile);
    PF_CHECK_ALLOC(x->profile, err);
    return PEFT_OK;
}
