/* logits.c - see logits.h. */
#include "export/logits.h"

#include "data/batch_spec.h"
#include "nn/class_head.h"
#include "ops/op_table.h"

#include <string.h>

static peft_status init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                        peft_error *err) {
    l->lead = pf_model_lead(model, adapters);
    const int64_t rows = (int64_t)l->max_tokens + l->lead.prompt + l->lead.each;
    size_t n = (size_t)l->max_tokens;
    int32_t **arrays[] = {&l->ids, &l->pos, &l->zero, &l->end, &l->row};
    for (size_t i = 0; i < PF_COUNT(arrays); i++) {
        *arrays[i] = PF_NEW_ARRAY(&l->arena, int32_t, n);
        PF_CHECK_ALLOC(*arrays[i], err);
    }
    l->weight = PF_NEW_ARRAY(&l->arena, float, n);
    PF_CHECK_ALLOC(l->weight, err);
    PF_TRY(pf_graph_new(&l->graph, pf_op_table, err));
    pf_build b = {.graph = l->graph, .mode = PF_BUILD_EVAL, .adapters = adapters};
    pf_value *hidden;
    PF_TRY(model->family->build(model, &b, &hidden, err));
    PF_TRY(pf_model_pool(model, &b, &hidden, err));
    PF_TRY(pf_site_head_logits(&b, model->head, hidden, &l->out, err));
    l->out->result = true;
    PF_TRY(pf_fusion_run(l->graph, pf_fusion_table, NULL, err));
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = rows,
                                              [PF_SPACE_LABELS] = l->max_tokens,
                                              [PF_SPACE_SOURCE] =
                                                  model->encoder_decoder ? rows : 0};
    l->encoder_decoder = model->encoder_decoder;
    return pf_exec_new(&l->exec, l->graph, be, capacity, err);
}

peft_status pf_logits_init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                           int32_t max_tokens, peft_error *err) {
    memset(l, 0, sizeof *l);
    pf_arena_init(&l->arena, "logits");
    pf_arena_init(&l->behind, "a text behind learned rows");
    l->max_tokens = max_tokens;
    peft_status status = init(l, model, be, adapters, err);
    if (status != PEFT_OK) pf_logits_release(l);
    return status;
}

void pf_logits_release(pf_logits *l) {
    if (l == NULL) return;
    pf_exec_free(l->exec);
    pf_graph_free(l->graph);
    pf_arena_release(&l->behind);
    pf_arena_release(&l->arena);
    memset(l, 0, sizeof *l);
}

peft_status pf_logits_run(pf_logits *l, const int32_t *ids, int32_t n, const pf_real **logits,
                          peft_error *err) {
    pf_batch one, behind, batch;
    if (n > l->max_tokens) n = l->max_tokens;
    for (int32_t i = 0; i < n; i++) {
        l->ids[i] = ids[i];
        l->pos[i] = l->row[i] = i;
        l->end[i] = n;
        l->weight[i] = 1;
    }
    const pf_segment text = {.length = n, .parent = -1, .subtree_end = n, .rope_length = n};
    const pf_ext_run whole = {.length = n, .row_end = n};
    pf_batch source = {.n_tokens = n,
                       .ids = l->ids,
                       .pos = l->pos,
                       .seg = l->zero,
                       .end = l->end,
                       .sample = l->zero,
                       .segments = &text,
                       .n_segments = 1};
    one = source;
    one.n_labels = n;
    one.label_row = l->row;
    one.label_target = one.label_sample = l->zero;
    one.label_weight = l->weight;
    one.source = l->encoder_decoder ? &source : NULL;
    one.source_runs = &whole;
    one.n_source_runs = l->encoder_decoder;
    pf_arena_reset(&l->behind);
    PF_TRY(pf_batch_behind(&behind, &l->behind, &one, l->lead.prompt, l->lead.prefix, l->lead.apart,
                           err));
    PF_TRY(pf_batch_each_behind(&batch, &l->behind, &behind, l->lead.each, err));
    PF_TRY(pf_exec_bind(l->exec, &batch, err));
    PF_TRY(pf_exec_forward(l->exec, err));
    *logits = pf_exec_data(l->exec, l->out);
    return PEFT_OK;
}
