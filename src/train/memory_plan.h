/* memory_plan.h - what a run will need, before it starts: the token budget of a micro-batch, what
 * is recomputed, and every class of memory in bytes.
 *
 * Without a limit the budget is what keeps products efficient (PF_AUTO_TOKENS rows, less when no
 * step has as many), and the save policy is what gradient_checkpointing says. Under
 * training.memory_limit more is recomputed first, then the budget shrinks to the longest sample;
 * what was chosen is said, and recorded with the checkpoint. */
#ifndef PF_MEMORY_PLAN_H
#define PF_MEMORY_PLAN_H

#include "base/buf.h"
#include "graph/autodiff.h"
#include "graph/plan.h"
#include "nn/model.h"

enum { PF_AUTO_TOKENS = 1024 };

typedef struct pf_memory_request {
    pf_model *model;    /* with its adapter attached */
    int n_workers;      /* threads that will compute */
    bool checkpointing; /* training.gradient_checkpointing */
    bool fuse;
    pf_compute compute;       /* of products with frozen weights */
    int64_t longest;          /* tokens of the longest sample */
    int64_t step_tokens;      /* most tokens of a step */
    int64_t tokens_per_batch; /* asked for; 0: automatic */
    int64_t limit;            /* bytes; 0: none */
    int64_t params_bytes;     /* weights, gradients, moments of what is trained */
    int64_t data_bytes;       /* token ids and texts */
    int64_t eval_bytes;       /* arena and cache of the evaluation */
} pf_memory_request;

typedef struct pf_memory_plan {
    int64_t max_tokens, max_labels;
    pf_save_policy policy;
    pf_plan graph;
    int64_t
        mapped_bytes; /* base weights in the file's pages: shared, and given back under pressure */
    int64_t converted_bytes; /* base weights that had to be converted */
    int64_t total;           /* anonymous memory at the peak, without mapped_bytes */
    char note[256];          /* what the limit made necessary; "" */
} pf_memory_plan;

/* Plans only: nothing is allocated for the run. */
peft_status pf_memory_plan_make(pf_memory_plan *out, const pf_memory_request *rq, peft_error *err);
void pf_memory_plan_text(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out);
void pf_memory_plan_json(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out);
const char *pf_save_policy_name(pf_save_policy policy);

#endif
