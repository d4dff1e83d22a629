/* base_dropout.c - see base_dropout.h. */
#include "nn/base_dropout.h"

#include "text/json.h"

static peft_status note(pf_model *m, const char *key, double p, peft_error *err) {
    const char *text = pf_arena_printf(&m->arena, "%s %g", key, p);
    PF_CHECK_ALLOC(text, err);
    return pf_strlist_has(&m->dropout.found, text)
               ? PEFT_OK
               : pf_strlist_add(&m->dropout.found, &m->arena, text, err);
}

peft_status pf_model_read_dropout(pf_model *m, const json_t *config, const char *key, double def,
                                  double *p, peft_error *err) {
    PF_TRY(pf_json_opt_real(config, m->config_path, key, def, p, err));
    if (!(*p >= 0 && *p < 1))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be at least 0 and below 1",
                       m->config_path, key, *p);
    if (*p > 0) PF_TRY(note(m, key, *p, err));
    if (m->dropout.use == PF_DROPOUT_OFF) *p = 0;
    if (m->dropout.use == PF_DROPOUT_FIXED) *p = m->dropout.p;
    m->dropout.active |= *p > 0;
    return PEFT_OK;
}

peft_status pf_model_read_head_dropout(pf_model *m, double def, peft_error *err) {
    m->head_dropout = 0;
    if (m->task != PF_TASK_TOKEN_CLS && (m->task != PF_TASK_SEQ_CLS || m->family->pool == NULL))
        return PEFT_OK;
    return pf_model_read_dropout(m, m->config, "classifier_dropout", def, &m->head_dropout, err);
}

/* transformers' generic head for words looks for hidden_dropout next, and has 0.1 else. */
peft_status pf_model_settle_head_dropout(pf_model *m, peft_error *err) {
    double def;
    if (m->head_dropout >= 0) return PEFT_OK;
    PF_TRY(pf_json_opt_real(m->config, m->config_path, "hidden_dropout", 0.1, &def, err));
    return pf_model_read_head_dropout(m, def, err);
}

pf_drop_args pf_model_attention_drop(const pf_model *m, pf_drop_kind kind, int layer, double p) {
    return (pf_drop_args){
        .p = p, .seed = m->dropout.seed, .mask_key = (uint32_t)kind << 30 | (uint32_t)layer << 16};
}

void pf_attention_drop(const pf_build *b, const pf_drop_args *drop, pf_attention_args *args) {
    if (b->mode != PF_BUILD_TRAIN || drop->p == 0) return;
    args->dropout = drop->p;
    args->seed = drop->seed;
    args->mask_key = drop->mask_key;
}

peft_status pf_model_drop(const pf_model *m, pf_build *b, int place, int layer, double p,
                          const char *name, pf_value **x, peft_error *err) {
    const pf_drop_args args = {.p = b->mode == PF_BUILD_TRAIN ? p : 0,
                               .seed = m->dropout.seed,
                               .mask_key = 1u << 31 | (uint32_t)(layer + 1) << 8 | (uint32_t)place};
    return pf_drop(b->graph, name, *x, &args, x, err);
}
