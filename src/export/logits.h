/* logits.h - the logits of every position of a text: what transformations are verified with. */
#ifndef PF_LOGITS_H
#define PF_LOGITS_H

#include "backend/backend.h"
#include "graph/exec.h"
#include "nn/model.h"

typedef struct pf_logits {
    pf_arena arena, behind; /* the latter of a run */
    pf_graph *graph;
    pf_exec *exec;
    pf_value *out;
    int32_t max_tokens;
    bool encoder_decoder;
    pf_lead lead;
    int32_t *ids, *pos, *zero, *end, *row;
    float *weight;
} pf_logits;

/* adapters: with what is attached to the model, or the bare base. */
peft_status pf_logits_init(pf_logits *l, pf_model *model, pf_backend *be, bool adapters,
                           int32_t max_tokens, peft_error *err);
void pf_logits_release(pf_logits *l);
/* *logits (n, V) is valid until the next run. With an encoder, the text is what both read. */
peft_status pf_logits_run(pf_logits *l, const int32_t *ids, int32_t n, const pf_real **logits,
                          peft_error *err);

#endif
