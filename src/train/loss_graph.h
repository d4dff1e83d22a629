/* loss_graph.h - one build of a model with a loss over label entries on top: hidden rows, head in
 * chunks, nll and correctness per entry, and (for training) the backward pass.
 *
 * A recipe binds a batch, runs forward, looks at nll, says by backward what each entry's loss is
 * worth (dL/dnll), and gradients are added to the blocks of the model's parameters. */
#ifndef PF_LOSS_GRAPH_H
#define PF_LOSS_GRAPH_H

#include "graph/autodiff.h"
#include "graph/exec.h"
#include "nn/model.h"
#include "train/saved_set.h"

typedef struct pf_loss_graph_options {
    bool training;             /* with a backward pass and active masks */
    bool adapters;             /* false: the bare base */
    pf_save_policy policy;     /* what is saved for the backward pass */
    const pf_saved_set *saved; /* for PF_SAVE_SELECTED */
    bool fuse;
    bool logits;      /* of the head, in place of the loss: classes, without training */
    double smoothing; /* of the targets, where they are classes; 0: none */
    int64_t max_tokens, max_labels;
    int64_t max_source;    /* rows of the encoder; 0: the model has none */
    pf_compute compute;    /* of products with frozen weights */
    bool save_bf16;        /* activations wait for the backward pass in bf16 */
    const pf_exec *lender; /* whose arena may be used (exec.h), or NULL */
} pf_loss_graph_options;

typedef struct pf_loss_graph {
    pf_graph *graph;
    pf_exec *exec;
    pf_value *nll, *correct; /* (E, 1) */
    pf_value *logits;        /* (E, V), in place of both */
    pf_value *coef;          /* (E, 1), the seed of the backward pass; NULL without training */
    pf_value *targets; /* (E, V) of losses over numbers (target_loss.h); NULL: ids of the batch */
    double smoothing;
    pf_buffer coef_buffer, target_buffer;
    int n_fused;
} pf_loss_graph;

peft_status pf_loss_graph_init(pf_loss_graph *lg, pf_model *model, pf_backend *be,
                               const pf_loss_graph_options *opt, peft_error *err);
/* Bytes of what a training graph keeps beside its arena, for so many entries. */
int64_t pf_loss_graph_label_bytes(const pf_model *model, double smoothing, int64_t max_labels);
void pf_loss_graph_release(pf_loss_graph *lg);

typedef struct pf_loss_sums {
    double nll;     /* sum of weight * nll over entries, in entry order */
    double weight;  /* sum of weights */
    double correct; /* sum of weights of entries predicted right */
} pf_loss_sums;

/* Forward over one batch; adds to *sums (with logits: nothing). */
peft_status pf_loss_graph_forward(pf_loss_graph *lg, const pf_batch *batch, pf_loss_sums *sums,
                                  peft_error *err);
/* Backward of sum(weight * nll) / denominator over the batch of the last forward. */
peft_status pf_loss_graph_backward(pf_loss_graph *lg, double denominator, peft_error *err);
/* The batch of the last forward once more, looking at every tensor: fails naming the first that is
 * not finite, or with a general sentence when all are. */
peft_status pf_loss_graph_explain_nonfinite(pf_loss_graph *lg, bool backward, peft_error *err);

#endif
