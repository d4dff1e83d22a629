/* logits.c - see logits.h. */
#include "export/logits.h"

#include "nn/class_head.h"
#include "ops/op_table.h"

#include <string.h>

static peft_status init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                        peft_error *err) {
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
    const int64_t capacity[PF_SPACE_COUNT] = {
        [PF_SPACE_TOKENS] = l->max_tokens, [PF_SPACE_LABELS] = l->max_tokens};
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
    for (int32_t i = 0; i < n && i < l->max_tokens; i++) {
        l->ids[i] = ids[i];
        l->pos[i] = l->row[i] = i;
        l->end[i] = n;
        l->weight[i] = 1;
    }
    const pf_segment root = {
        .start = 0, .length = n, .parent = -1, .subtree_end = n, .rope_length = n};
    const pf_batch batch = {.n_tokens = n,
                            .ids = l->ids,
                            .pos = l->pos,
                            .seg = l->zero,
                            .end = l->end,
                            .sample = l->zero,
                            .segments = &root,
                            .n_segments = 1,
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
