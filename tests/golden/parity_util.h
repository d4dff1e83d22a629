/* parity_util.h - what the tests against transformers and peft share: fixtures, batches of whole
 * samples, logits. */
#ifndef PARITY_UTIL_H
#define PARITY_UTIL_H

#include "data/batch_spec.h"
#include "base/mem.h"
#include "formats/safetensors.h"
#include "models/model_open.h"
#include "ops/op_table.h"
#include "peft/method.h"
#include "text/json.h"
#include "train/loss_graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden"

/* Stops the test with the error's sentence. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != PEFT_OK) fail_msg("%s", err.message);                                        \
    } while (0)

static inline json_t *read_json(const char *path) {
    peft_error err = {0};
    json_t *v;
    OK(pf_json_load(&v, path, 16 << 20, &err));
    return v;
}

static inline const char *text_of(const json_t *v, const char *key) {
    return json_string_value(json_object_get(v, key));
}

static inline double number_of(const json_t *v, const char *key) {
    const json_t *n = json_object_get(v, key);
    assert_true(json_is_number(n));
    return json_number_value(n);
}

static inline const float *tensor_of(const pf_safetensors *file, const char *name, int64_t count) {
    const pf_stored_tensor *t = pf_safetensors_find(file, name);
    if (t == NULL) fail_msg("%s: no tensor %s", file->path, name);
    assert_int_equal(t->dtype, PF_DTYPE_F32);
    if (count >= 0) assert_int_equal(pf_stored_tensor_count(t), count);
    return t->data;
}

/* ---- whole samples as one batch -------------------------------------------------------------- */

/* Every row is a label entry: all logits. Samples one after the other. */
static inline pf_batch whole_samples(pf_arena *a, const int32_t *const *ids, const int32_t *lengths,
                                     int n) {
    int32_t rows = 0;
    for (int i = 0; i < n; i++) rows += lengths[i];
    int32_t *all[7];
    for (int k = 0; k < 7; k++) all[k] = PF_NEW_ARRAY(a, int32_t, rows);
    float *weight = PF_NEW_ARRAY(a, float, rows);
    pf_segment *segments = PF_NEW_ARRAY(a, pf_segment, n);
    int32_t r = 0;
    for (int i = 0; i < n; i++) {
        segments[i] = (pf_segment){.start = r,
                                   .length = lengths[i],
                                   .parent = -1,
                                   .subtree_end = r + lengths[i],
                                   .rope_length = lengths[i]};
        for (int32_t p = 0; p < lengths[i]; p++, r++) {
            all[0][r] = ids[i][p];
            all[1][r] = p;
            all[2][r] = i;
            all[3][r] = segments[i].subtree_end;
            all[4][r] = i;
            all[5][r] = r;
            all[6][r] = ids[i][p];
            weight[r] = 1;
        }
    }
    return (pf_batch){.n_tokens = rows,
                      .ids = all[0],
                      .pos = all[1],
                      .seg = all[2],
                      .end = all[3],
                      .sample = all[4],
                      .segments = segments,
                      .n_segments = n,
                      .n_labels = rows,
                      .label_row = all[5],
                      .label_target = all[6],
                      .label_weight = weight,
                      .label_sample = all[4]};
}

/* The sources of the samples, where they have some, in the batch of their tokens. */
static inline void add_sources(pf_arena *a, pf_batch *b, const int32_t *const *ids,
                               const int32_t *lengths, int n) {
    if (lengths[0] == 0) return;
    pf_batch *source = PF_NEW(a, pf_batch);
    pf_ext_run *runs = PF_NEW_ARRAY(a, pf_ext_run, n);
    *source = whole_samples(a, ids, lengths, n);
    source->n_labels = 0;
    for (int i = 0; i < n; i++) {
        const pf_segment *s = &b->segments[i];
        runs[i] = (pf_ext_run){.ext = source->segments[i].start,
                               .length = lengths[i],
                               .row_begin = s->start,
                               .row_end = s->start + s->length};
    }
    b->source = source;
    b->source_runs = runs;
    b->n_source_runs = n;
}

/* Logits of all rows. */
static inline void compute_logits(pf_model *m, pf_backend *be, const pf_batch *batch, bool adapters,
                                  bool fuse, float *out) {
    peft_error err = {0};
    const pf_lead lead = pf_model_lead(m, adapters);
    pf_arena lead_arena;
    pf_batch behind, each;
    pf_arena_init(&lead_arena, "behind the learned rows");
    OK(pf_batch_behind(&behind, &lead_arena, batch, lead.prompt, lead.prefix, lead.apart, &err));
    OK(pf_batch_each_behind(&each, &lead_arena, &behind, lead.each, &err));
    batch = &each;
    pf_graph *g;
    pf_exec *x;
    pf_value *hidden, *logits;
    OK(pf_graph_new(&g, pf_op_table, &err));
    pf_build b = {.graph = g, .mode = PF_BUILD_EVAL, .adapters = adapters};
    OK(m->family->build(m, &b, &hidden, &err));
    OK(pf_site_head_logits(&b, m->head, hidden, &logits, &err));
    logits->result = true;
    if (fuse) OK(pf_fusion_run(g, pf_fusion_table, NULL, &err));
    const int64_t capacity[PF_SPACE_COUNT] = {
        [PF_SPACE_TOKENS] = batch->n_tokens,
        [PF_SPACE_LABELS] = batch->n_labels,
        [PF_SPACE_SOURCE] = batch->source != NULL ? batch->source->n_tokens : 0};
    OK(pf_exec_new(&x, g, be, capacity, &err));
    OK(pf_exec_bind(x, batch, &err));
    OK(pf_exec_forward(x, &err));
    const pf_real *z = pf_exec_data(x, logits);
    for (int64_t i = 0; i < batch->n_labels * m->vocab; i++) out[i] = (float)z[i];
    pf_exec_free(x);
    pf_graph_free(g);
    pf_arena_release(&lead_arena);
}

/* Largest difference between the logits of all rows and the expected ones. */
static inline double logits_differ(pf_model *m, pf_backend *be, const pf_batch *batch,
                                   bool adapters, bool fuse, const float *expected) {
    pf_arena a;
    double worst = 0;
    const int64_t n = batch->n_labels * m->vocab;
    pf_arena_init(&a, "logits");
    float *z = PF_NEW_ARRAY(&a, float, n);
    compute_logits(m, be, batch, adapters, fuse, z);
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)z[i] - (double)expected[i]);
        if (!(d <= worst)) worst = d;
    }
    pf_arena_release(&a);
    return worst;
}

#endif
