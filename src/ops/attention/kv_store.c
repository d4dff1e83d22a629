/* kv_store.c - the op that appends to a KV cache: new rows of keys and values go where the batch
 * says (kv_row; a negative one is not kept). It stands after the attention that still reads the
 * cache without them. */
#include "ops/attention/attention.h"
#include "ops/op_util.h"

#include <string.h>

peft_status pf_kv_store(pf_graph *g, const char *name, pf_value *k, pf_value *v, pf_value *state_k,
                        pf_value *state_v, peft_error *err) {
    pf_value *in[4] = {k, v, state_k, state_v};
    return pf_graph_emit(g, "kv_store", name, NULL, in, 4, NULL, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    for (int i = 0; i < 2; i++) {
        const pf_value *rows = n->in[i], *state = n->in[2 + i];
        if (state->kind != PF_VALUE_STATE ||
            (rows->space != PF_SPACE_TOKENS && rows->space != PF_SPACE_SOURCE) ||
            rows->cols != state->cols) {
            return PF_FAIL(err, PEFT_E_SHAPE, "rows of %lld columns do not go into a cache of %lld",
                           (long long)rows->cols, (long long)state->cols);
        }
    }
    return PEFT_OK;
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_batch *b = pf_batch_of_space(x->batch, n->in[0]->space);
    if (b == NULL) return PEFT_OK; /* no source in this pass */
    if (b->kv_row == NULL)
        return PF_FAIL(err, PEFT_E_STATE, "the batch has no rows of the cache to write to");
    for (int s = 0; s < 2; s++) {
        const pf_value *state = n->in[2 + s];
        const pf_real *from = pf_exec_data(x, n->in[s]);
        pf_real *to = pf_exec_data(x, state);
        for (int32_t i = 0; i < b->n_tokens; i++) {
            if (b->kv_row[i] < 0) continue;
            if (b->kv_row[i] >= state->rows) {
                return PF_FAIL(err, PEFT_E_STATE,
                               "token row %d goes to row %d of a cache that has %lld", (int)i,
                               (int)b->kv_row[i], (long long)state->rows);
            }
            memcpy(to + b->kv_row[i] * state->cols, from + (int64_t)i * state->cols,
                   (size_t)state->cols * sizeof *to);
        }
    }
    return PEFT_OK;
}

/* ---- prefix_store ---------------------------------------------------------------------------- */

peft_status pf_prefix_store(pf_graph *g, const char *name, pf_value *k, pf_value *v,
                            pf_value *state_k, pf_value *state_v, peft_error *err) {
    pf_value *in[4] = {k, v, state_k, state_v};
    return pf_graph_emit(g, "prefix_store", name, NULL, in, 4, NULL, err);
}

static peft_status prefix_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    for (int i = 0; i < 2; i++) {
        const pf_value *rows = n->in[i], *state = n->in[2 + i];
        if (state->kind == PF_VALUE_STATE && rows->space == PF_SPACE_NONE &&
            rows->cols == state->cols)
            continue;
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "a prefix of %lld columns does not go into a cache of %lld",
                       (long long)rows->cols, (long long)state->cols);
    }
    return PEFT_OK;
}

static peft_status run_prefix(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_batch *b = x->batch;
    if (!b->store_prefix) return PEFT_OK;
    for (int i = 0; i < 2; i++) {
        const pf_value *rows = n->in[i], *state = n->in[2 + i];
        if (b->prefix_row < 0 || b->prefix_row > state->rows - rows->rows) {
            return PF_FAIL(err, PEFT_E_STATE,
                           "a prefix of %lld rows goes to row %d of a cache that has %lld",
                           (long long)rows->rows, (int)b->prefix_row, (long long)state->rows);
        }
        pf_real *to = pf_exec_data(x, state) + b->prefix_row * state->cols;
        memcpy(to, pf_exec_data(x, rows), (size_t)(rows->rows * rows->cols) * sizeof *to);
    }
    return PEFT_OK;
}

static pf_cost prefix_cost(const pf_node *n, const int64_t *rows) {
    (void)rows; /* once per run of a generator, not per pass */
    (void)n;
    return (pf_cost){0};
}

static const pf_kernel_row prefix_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_prefix}, {0}};

const pf_op pf_op_prefix_store = {
    .name = "prefix_store",
    .what = "cache[prefix_row + i] = k[i], v[i] of a learned prefix, when the batch asks for it",
    .flags = PF_OP_SIDE_EFFECT,
    .shape = prefix_shape,
    .cost = prefix_cost,
    .kernels = prefix_kernels,
};

/* ---- kv_store -------------------------------------------------------------------------------- */

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.bytes = 4 * (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols *
                              sizeof(pf_real)};
}

const pf_op pf_op_kv_store = {
    .name = "kv_store",
    .what = "cache[kv_row[i]] = k[i], v[i]",
    .flags = PF_OP_SIDE_EFFECT,
    .shape = shape,
    .cost = cost,
    .kernels = kernels,
};
