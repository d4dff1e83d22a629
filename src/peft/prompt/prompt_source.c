/* prompt_source.c - see prompt_source.h. An encoder is a graph of its own whose tokens are the
 * virtual ones: row i has id i. It runs on one thread; its rows are few. */
#include "peft/prompt/prompt_source.h"

#include "backend/backend.h"
#include "graph/autodiff.h"
#include "graph/exec.h"
#include "ops/embed/embed.h"
#include "ops/matmul/linear.h"
#include "ops/op_table.h"
#include "peft/first_weights.h"
#include "peft/prompt/prompt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct pf_prompt_source {
    pf_adapter *ad;
    pf_param *flat; // (n, n_parts * width)
    int n_parts;
    int64_t width;
    pf_params made;
    pf_param **parts;          // (n, width) each
    pf_prompt_encoder encoder; /* build is NULL: flat is trained itself */
    /* of the encoder, from the first time that it runs */
    pf_backend *backend;
    pf_graph *graph;
    pf_exec *exec;
    pf_value *out;
    pf_real *d_flat; /* gradient of the tensor: the seed of the encoder's backward pass */
    pf_batch batch;
    bool fresh; /* its forward pass has not met its backward pass, which works in place */
    pf_segment segment;
};

pf_param *pf_prompt_source_flat(const pf_prompt_source *s) {
    return s->flat;
}

pf_param *pf_prompt_source_part(const pf_prompt_source *s, int i) {
    return s->parts[i];
}

/* ---- the encoder's graph --------------------------------------------------------------------- */

static peft_status make_batch(pf_prompt_source *s, peft_error *err) {
    const int32_t n = (int32_t)s->flat->rows;
    int32_t *ids = PF_NEW_ARRAY(&s->ad->arena, int32_t, n);
    int32_t *zero = PF_NEW_ARRAY(&s->ad->arena, int32_t, n);
    int32_t *end = PF_NEW_ARRAY(&s->ad->arena, int32_t, n);
    if (ids == NULL || zero == NULL || end == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int32_t i = 0; i < n; i++) ids[i] = i, end[i] = n;
    s->segment = (pf_segment){.length = n, .parent = -1, .subtree_end = n, .rope_length = n};
    s->batch = (pf_batch){.n_tokens = n,
                          .ids = ids,
                          .pos = ids,
                          .seg = zero,
                          .end = end,
                          .sample = zero,
                          .segments = &s->segment,
                          .n_segments = 1};
    return PEFT_OK;
}

static peft_status open_encoder(pf_prompt_source *s, peft_error *err) {
    const int64_t n = s->flat->rows, D = s->flat->cols;
    const bool training = s->flat->grad != NULL;
    pf_value *x, *table;
    if (s->exec != NULL) return PEFT_OK;
    PF_TRY(make_batch(s, err));
    PF_TRY(pf_backend_open_cpu(&s->backend, 1, err));
    PF_TRY(pf_graph_new(&s->graph, pf_op_table, err));
    if (training) s->graph->params = &s->ad->params;
    table = pf_graph_param(s->graph, s->encoder.embedding);
    PF_CHECK_ALLOC(table, err);
    PF_TRY(pf_embed(s->graph, "prompt_encoder.embedding", table, &x, err));
    PF_TRY(s->encoder.build(s->encoder.ctx, s->graph, x, &s->out, err));
    s->out->result = true;
    if (training) {
        s->d_flat = PF_NEW_ARRAY(&s->ad->arena, pf_real, n * D);
        PF_CHECK_ALLOC(s->d_flat, err);
        pf_value *seed = pf_graph_input(s->graph, "d_prompt", PF_SPACE_TOKENS, D, s->d_flat);
        PF_CHECK_ALLOC(seed, err);
        PF_TRY(pf_autodiff_run(s->graph, s->out, seed, PF_SAVE_ALL, err));
    }
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = n};
    return pf_exec_new(&s->exec, s->graph, s->backend, capacity, err);
}

static peft_status encode(pf_prompt_source *s, int64_t step, peft_error *err) {
    PF_TRY(open_encoder(s, err));
    s->batch.step = step < 0 ? 0 : (uint64_t)step;
    s->exec->training = step >= 0;
    PF_TRY(pf_exec_bind(s->exec, &s->batch, err));
    PF_TRY(pf_exec_forward(s->exec, err));
    s->fresh = true;
    memcpy(s->flat->data, pf_exec_data(s->exec, s->out),
           (size_t)(s->flat->rows * s->flat->cols) * sizeof *s->flat->data);
    return PEFT_OK;
}

/* ---- once per step --------------------------------------------------------------------------- */

static peft_status make(void *ctx, int64_t step, peft_error *err) {
    pf_prompt_source *s = ctx;
    const int64_t D = s->flat->cols;
    if (s->encoder.build != NULL) PF_TRY(encode(s, step, err));
    for (int k = 0; k < s->n_parts; k++) {
        for (int64_t i = 0; i < s->flat->rows; i++)
            memcpy(s->parts[k]->data + i * s->width, s->flat->data + i * D + k * s->width,
                   (size_t)s->width * sizeof *s->flat->data);
    }
    return PEFT_OK;
}

static peft_status hand_on(void *ctx, peft_error *err) {
    pf_prompt_source *s = ctx;
    const int64_t D = s->flat->cols;
    const bool encoded = s->encoder.build != NULL;
    pf_real *to = encoded ? s->d_flat : s->flat->grad;
    if (encoded) memset(to, 0, (size_t)(s->flat->rows * D) * sizeof *to);
    for (int k = 0; k < s->n_parts; k++) {
        for (int64_t i = 0; i < s->flat->rows; i++) {
            const pf_real *from = s->parts[k]->grad + i * s->width;
            pf_real *row = to + i * D + k * s->width;
            for (int64_t c = 0; c < s->width; c++) row[c] += from[c];
        }
    }
    if (!encoded) return PEFT_OK;
    if (!s->fresh) PF_TRY(pf_exec_forward(s->exec, err));
    s->fresh = false;
    return pf_exec_backward(s->exec, err);
}

static void release(void *ctx) {
    pf_prompt_source *s = ctx;
    pf_exec_free(s->exec);
    pf_graph_free(s->graph);
    pf_backend_close(s->backend);
    pf_params_release(&s->made);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_parts(pf_prompt_source *s, int64_t n, peft_error *err) {
    char name[64];
    s->parts = PF_NEW_ARRAY(&s->ad->arena, pf_param *, s->n_parts);
    PF_CHECK_ALLOC(s->parts, err);
    for (int i = 0; i < s->n_parts; i++) {
        snprintf(name, sizeof name, PF_PROMPT_TENSOR ".%d", i);
        PF_TRY(pf_params_add(&s->made, name, n, s->width, &s->parts[i], err));
    }
    return PEFT_OK;
}

peft_status pf_prompt_source_new(pf_prompt_source **out, pf_adapter *ad, int64_t n, int n_parts,
                                 int64_t width, const pf_prompt_encoder *encoder, peft_error *err) {
    pf_prompt_source *s = PF_NEW(&ad->arena, pf_prompt_source);
    PF_CHECK_ALLOC(s, err);
    *out = s;
    s->ad = ad;
    s->n_parts = n_parts;
    s->width = width;
    pf_params_init(&s->made);
    ad->params.made = (pf_made_params){.params = &s->made,
                                       .ctx = s,
                                       .make = make,
                                       .random = encoder != NULL && encoder->random,
                                       .hand_on = hand_on,
                                       .release = release};
    PF_TRY(add_parts(s, n, err));
    if (encoder == NULL)
        return pf_adapter_add_param(ad, PF_PROMPT_TENSOR, n, n_parts * width, &s->flat, err);
    s->encoder = *encoder;
    PF_TRY(pf_params_add(&ad->params, PF_PROMPT_TENSOR, n, n_parts * width, &s->flat, err));
    pf_params_freeze(&ad->params, s->flat); /* the encoder's output: saved, not trained */
    return PEFT_OK;
}

/* ---- for encoders ---------------------------------------------------------------------------- */

peft_status pf_encoder_param(pf_adapter *ad, const char *name, int64_t rows, int64_t cols,
                             pf_param **out, peft_error *err) {
    const char *full = pf_arena_printf(&ad->arena, "prompt_encoder.%s", name);
    PF_CHECK_ALLOC(full, err);
    PF_TRY(pf_adapter_add_param(ad, full, rows, cols, out, err));
    (*out)->unsaved = true;
    return PEFT_OK;
}

peft_status pf_dense_add(pf_adapter *ad, const char *name, int64_t out_dim, int64_t in_dim,
                         pf_dense *out, peft_error *err) {
    char part[64];
    snprintf(part, sizeof part, "%s.weight", name);
    PF_TRY(pf_encoder_param(ad, part, out_dim, in_dim, &out->w, err));
    snprintf(part, sizeof part, "%s.bias", name);
    PF_TRY(pf_encoder_param(ad, part, 1, out_dim, &out->b, err));
    out->b->is_vector = true;
    out->b->decay = false; /* as transformers' Trainer */
    return PEFT_OK;
}

void pf_dense_init(const pf_dense *d, uint64_t seed) {
    const double bound = 1 / sqrt((double)d->w->cols);
    pf_fill_uniform(d->w, seed, bound);
    pf_fill_uniform(d->b, seed, bound);
}

peft_status pf_dense_build(pf_graph *g, const pf_dense *d, pf_value *x, pf_value **y,
                           peft_error *err) {
    pf_value *w = pf_graph_param(g, d->w), *b = pf_graph_param(g, d->b);
    PF_CHECK_ALLOC(w, err);
    PF_CHECK_ALLOC(b, err);
    PF_TRY(pf_linear(g, d->w->name, x, w, NULL, y, err));
    return pf_add_bias(g, d->b->name, *y, b, y, err);
}
