/* logits.c - see logits.h. */
#include "export/logits.h"

#include "nn/class_head.h"
#include "ops/op_table.h"

#include <string.h>

static peft_status init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                        peft_error *err) {
    l->lead = pf_model_lead(model, adapters);
    size_t n = (size_t)(l->max_tokens + l->lead.prompt);
    int32_t **arrays[] = {&l->ids, &l->pos, &l->zero, &l->seg, &l->end, &l->row};
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
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = l->max_tokens + l->lead.prompt,
                                              [PF_SPACE_LABELS] = l->max_tokens,
                                              [PF_SPACE_SOURCE] =
                                                  model->encoder_decoder ? l->max_tokens : 0};
    l->encoder_decoder = model->encoder_decoder;
    return pf_exec_new(&l->exec, l->graph, be, capacity, err);
}

peft_status pf_logits_init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                           int32_t max_tokens, peft_error *err) {
    memset(l, 0, sizeof *l);
    pf_arena_init(&l->arena, "logits");
    l->max_tokens = max_tokens;
    peft_status status = init(l, model, be, adapters, err);
    if (status != PEFT_OK) pf_logits_release(l);
    return status;
}

void pf_logits_release(pf_logits *l) {
    if (l == NULL) return;
    pf_exec_free(l->exec);
    pf_graph_free(l->graph);
    pf_arena_release(&l->arena);
    memset(l, 0, sizeof *l);
}

peft_status pf_logits_run(pf_logits *l, const int32_t *ids, int32_t n, const pf_real **logits,
                          peft_error *err) {
    if (n > l->max_tokens) n = l->max_tokens;
    const int32_t P = l->lead.prompt, X = l->lead.prefix, all = P + n;
    for (int32_t i = 0; i < all; i++) {
        l->ids[i] = i < P ? 0 : ids[i - P];
        l->seg[i] = P > 0 && i >= P;
        l->pos[i] = X + i;
        l->end[i] = all;
        if (i >= P) l->row[i - P] = i;
        l->weight[i] = 1;
    }
    const pf_segment text = {.start = P,
                             .length = n,
                             .parent = P > 0 ? 0 : -1,
                             .subtree_end = all,
                             .rope_length = X + all};
    const pf_segment segments[] = {
        {.length = P, .parent = -1, .subtree_end = all, .rope_length = X + P}, text};
    const pf_ext_run prefix = {.length = X, .row_end = all};
    const pf_ext_run whole = {.length = n, .row_end = all};
    const pf_batch source = {.n_tokens = n,
                             .ids = l->ids,
                             .pos = l->pos,
                             .seg = l->zero,
                             .end = l->end,
                             .sample = l->zero,
                             .segments = &text,
                             .n_segments = 1};
    const pf_batch batch = {.source = l->encoder_decoder ? &source : NULL,
                            .source_runs = &whole,
                            .n_source_runs = l->encoder_decoder,
                            .n_tokens = all,
                            .n_prompt = P,
                            .ext_runs = &prefix,
                            .n_ext_runs = X > 0,
                            .ids = l->ids,
                            .pos = l->pos,
                            .seg = l->seg,
                            .end = l->end,
                            .sample = l->zero,
                            .segments = P > 0 ? segments : &text,
                            .n_segments = P > 0 ? 2 : 1,
                            .n_labels = n,
                            .label_row = l->row,
                            .label_target = l->zero,
                            .label_weight = l->weight,
                            .label_sample = l->zero};
    PF_TRY(pf_exec_bind(l->exec, &batch, err));
    PF_TRY(pf_exec_forward(l->exec, err));
    *logits = pf_exec_data(l->exec, l->out);
    return PEFT_OK;
}
