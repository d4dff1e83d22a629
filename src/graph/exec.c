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
    return PEFT_OK;
}

pf_real *pf_exec_data(const pf_exec *x, const pf_value *v) {
    if (v == NULL) return NULL;
    switch (v->kind) {
    case PF_VALUE_ACT:
        return (pf_real *)(void *)((unsigned char *)x->arena.data + v->offset);
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

/* The rows of an encoder in a pass where no sequence begins: nothing to do. */
static bool has_no_rows(const pf_exec *x, const pf_node *n) {
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k]->space != PF_SPACE_SOURCE) return false;
    }
    return n->n_out > 0 && x->rows[PF_SPACE_SOURCE] == 0;
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
            pf_cost cost = n->op->cost(n, x->rows);
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

peft_status pf_exec_forward(pf_exec *x, peft_error *err) {
    return run_range(x, 0, x->plan.first_backward, err);
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
