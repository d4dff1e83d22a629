/* memory_plan.h - what a run will need, before it starts: the token budget of a micro-batch, what
 * is recomputed, and every class of memory in bytes.
 *
 * Without a limit the budget is what keeps products efficient (PF_AUTO_TOKENS rows), and the save
 * policy is what gradient_checkpointing says. Memory is planned for the largest micro-batch that
 * the run's steps really fill (data/step_cut.h). Under training.memory_limit more is recomputed
 * first, the cheapest per byte first (saved_set.h), then the budget shrinks to the longest sample;
 * what was chosen is said, and recorded with the checkpoint.
 *
 * The evaluation works in the arena that training leaves idle; it adds what does not fit there, and
 * its KV cache. Base weights that are mapped are the file's pages: shared, and given back under
 * pressure; they are named, not added. */
#ifndef PF_MEMORY_PLAN_H
#define PF_MEMORY_PLAN_H

#include "base/buf.h"
#include "data/step_cut.h"
#include "train/evaluator.h"
#include "train/saved_set.h"

enum { PF_AUTO_TOKENS = 1024 };
#define PF_CUT_TOKENS ((int64_t)8 << 20) /* tokens of steps that are cut before the run */

typedef struct pf_memory_request {
    pf_model *model;    /* with its adapter attached */
    int n_workers;      /* threads that will compute */
    bool checkpointing; /* training.gradient_checkpointing */
    bool fuse;
    pf_compute compute;       /* of products with frozen weights */
    double smoothing;         /* training.label_smoothing_factor */
    bool save_bf16;           /* activations wait for the backward pass in bf16 */
    int64_t tokens_per_batch; /* asked for; 0: automatic */
    int64_t limit;            /* bytes; 0: none */
    /* what is trained on; max_tokens and max_labels of the builder are the plan's to choose */
    pf_step_plan *steps;
    const pf_dataset *set;
    pf_batch_builder_options builder;
    int64_t total_steps;
    int64_t longest, most_labels; /* rows and labels that a sample has at most */
    int64_t step_tokens; /* most tokens of a step; both with the rows of a learned prompt */
    bool assumed;        /* there are no data: rows of the longest kind stand for them */
    const pf_evaluator_options *evaluation; /* NULL: none */
    int64_t trained;                        /* numbers in one block of the adapter */
    int64_t data_bytes;                     /* token ids and texts */
    int64_t program_bytes;                  /* tokenizer and whatever else is open already */
    int64_t
        first_look; /* bytes that first weights from the data take before the first step; 0: none */
    int64_t first_look_peak; /* with all that is there at that time */
} pf_memory_request;

typedef struct pf_memory_plan {
    int64_t max_tokens, max_labels; /* of a micro-batch */
    int64_t max_target, max_source; /* of its rows those that are tokens, and those of an encoder */
    pf_save_policy policy;
    pf_saved_set saved; /* for PF_SAVE_SELECTED */
    pf_plan graph;
    pf_step_cut cut;
    double step_flops;  /* of an average step: its own rows, samples as long as they are */
    int64_t head_bytes; /* of the graph's peak: the head's gradient and chunk */
    int64_t mapped_bytes, unread_bytes; /* base weights in the file's pages; of them those that a
                                           trained copy stands in for */
    int64_t converted_bytes;            /* base weights that had to be converted or copied */
    int64_t eval_arena, eval_cache, program_bytes;
    int64_t first_look; /* of the request's what training does not take anyway */
    int64_t total;      /* anonymous memory at the peak, without mapped_bytes */
    char note[512];     /* what the limit made necessary; "" */
} pf_memory_plan;

/* Plans only: nothing is allocated for the run. */
peft_status pf_memory_plan_make(pf_memory_plan *out, const pf_memory_request *rq, peft_error *err);
void pf_memory_plan_text(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out);
void pf_memory_plan_json(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out);
const char *pf_save_policy_name(pf_save_policy policy);

#endif
