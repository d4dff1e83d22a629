/* prompt_source.h - where virtual tokens come from: the one tensor that a file has for them,
 * `prompt_embeddings` (n, D), trained as it is or written by an encoder that is trained, and what
 * graphs read of it.
 *
 * Graphs read `parts`: columns of it, side by side and equally wide. They are made (graph/param.h)
 * once per optimizer step, and their gradients go back once per step, however many micro-batches it
 * has. So an encoder runs once per step, and never in evaluation or generation. */
#ifndef PF_PROMPT_SOURCE_H
#define PF_PROMPT_SOURCE_H

#include "graph/graph.h"
#include "peft/method.h"

typedef struct pf_prompt_source pf_prompt_source;

/* Emits the encoder's graph: x (T, C) are the rows of its own embedding, *y (T, D). A parameter of
 * the adapter becomes a value by pf_graph_param. */
typedef struct pf_prompt_encoder {
    pf_param *embedding; /* (n, C) */
    peft_status (*build)(void *ctx, pf_graph *g, pf_value *x, pf_value **y, peft_error *err);
    void *ctx;
    bool random; /* it draws masks in training */
} pf_prompt_encoder;

/* A tensor of n rows in n_parts parts of `width` columns each. encoder: NULL where the tensor is
 * trained itself. */
peft_status pf_prompt_source_new(pf_prompt_source **out, pf_adapter *ad, int64_t n, int n_parts,
                                 int64_t width, const pf_prompt_encoder *encoder, peft_error *err);
pf_param *pf_prompt_source_flat(const pf_prompt_source *s); /* the tensor */
pf_param *pf_prompt_source_part(const pf_prompt_source *s, int i);

/* --- for encoders --- */
/* A layer of torch's: its weight (out, in) and bias as parameters of the adapter that no file has,
 * "prompt_encoder.<name>.weight" and ".bias". */
typedef struct pf_dense {
    pf_param *w, *b;
} pf_dense;
peft_status pf_dense_add(pf_adapter *ad, const char *name, int64_t out_dim, int64_t in_dim,
                         pf_dense *out, peft_error *err);
peft_status pf_encoder_param(pf_adapter *ad, const char *name, int64_t rows, int64_t cols,
                             pf_param **out, peft_error *err);
void pf_dense_init(const pf_dense *d, uint64_t seed); /* torch's: uniform in +-1/sqrt(in) */
peft_status pf_dense_build(pf_graph *g, const pf_dense *d, pf_value *x, pf_value **y,
                           peft_error *err);

#endif
