/* evaluator.h - how good a model is on held-out examples: loss and token accuracy over their
 * supervised tokens, and, by continuing each prompt, exact match, F1 and BLEU; of classes loss,
 * accuracy and F1 (class_metrics.h), of several classes at once and of numbers what
 * value_metrics.h has.
 *
 * Everything is allocated by new. A run depends on the weights alone, to the last bit: losses are
 * added per sample, then over the samples, so neither the batch size nor the token budget, shared
 * prefixes or the number of threads enter. */
#ifndef PF_EVALUATOR_H
#define PF_EVALUATOR_H

#include "backend/backend.h"
#include "base/file.h"
#include "data/batch_builder.h"
#include "data/dataset.h"
#include "infer/generator.h"
#include "token/tokenizer.h"
#include "track/tracker.h"
#include "train/class_metrics.h"
#include "train/value_metrics.h"

#include <signal.h>

typedef struct pf_evaluator pf_evaluator;

typedef struct pf_evaluator_options {
    pf_model *model;
    pf_backend *backend;
    const pf_tokenizer *tokenizer;
    const pf_data_view *view;
    int64_t max_samples; /* of the view, from its start; 0: all */
    bool adapters;       /* false: the bare base */
    bool fuse;
    double smoothing;   /* of the targets in the loss, where they are classes (loss_graph.h) */
    double threshold;   /* several classes: how likely one has to be to be told */
    int64_t max_tokens; /* rows of a batch; at least the longest example. Those of a learned prompt
                           come on top */
    pf_share share;     /* of what the samples of a batch begin with */
    bool generate;
    int batch_size; /* most sequences generated or scored at once */
    pf_sampling sampling;
    int32_t max_new_tokens;
    const int32_t *eos;
    int n_eos;
    const char *const *stop; /* texts that end an answer and are cut off */
    int n_stop;
    const volatile sig_atomic_t *stop_signal; /* not 0: give up with PEFT_E_INTERRUPTED; or NULL */
    const pf_exec *lender; /* whose arena may be used between steps (graph/exec.h), or NULL */
} pf_evaluator_options;

typedef struct pf_evaluation {
    int64_t n_samples, n_tokens;             /* tokens: supervised ones */
    double loss, perplexity, token_accuracy; /* accuracy 0..1 */
    bool generated;
    double exact_match, f1, bleu; /* percent */
    bool classes; /* tokens are those that have one; only loss is meant of the above */
    pf_class_scores scores;
    pf_problem problem; /* AUTO, or what the targets are in place of classes: only loss is meant */
    pf_value_scores values;
    double seconds;
} pf_evaluation;

peft_status pf_evaluator_new(pf_evaluator **out, const pf_evaluator_options *opt, peft_error *err);
void pf_evaluator_free(pf_evaluator *ev);
/* predictions: one JSON object per example is added (NULL: none). */
peft_status pf_evaluator_run(pf_evaluator *ev, pf_evaluation *out, pf_buf *predictions,
                             peft_error *err);
typedef struct pf_evaluator_bytes {
    int64_t loss_arena, generate_arena; /* needed; each is taken where one that rests is smaller */
    int64_t cache;                      /* KV cache of the generator */
    int64_t other;                      /* graphs and batches */
} pf_evaluator_bytes;
pf_evaluator_bytes pf_evaluator_memory(const pf_evaluator *ev);

/* eval_loss and what else there is; at most PF_MAX_FIGURES. Names are literals. */
enum { PF_MAX_FIGURES = 12 };
int pf_evaluation_figures(const pf_evaluation *e, pf_metric out[PF_MAX_FIGURES]);
/* One of them by its name, or NaN. */
double pf_evaluation_figure(const pf_evaluation *e, const char *name);

/* The answer's end: the length of text before the first stop text. */
size_t pf_cut_at_stop(const char *text, size_t n, const char *const *stop, int n_stop);

#endif
