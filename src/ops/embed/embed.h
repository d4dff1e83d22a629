/* embed.h - rows of a table picked by token id, or by position.
 *
 *   embed               y[i] = W[ids[i]], or W[pos[i] + offset] (learned positions)
 *   embed_grad          dW[ids[i]] += dy[i], rows in order (W a PARAM)
 *   embed_lowrank       y[i] = base[i] + scale · Aᵀ[ids[i]] Bᵀ   (LoRA on an embedding: A is (r,
 * V), B is (C, r); PEFT applies no dropout there) */
#ifndef PF_EMBED_H
#define PF_EMBED_H

#include "graph/graph.h"

typedef struct pf_embed_lowrank_args {
    double scale;
} pf_embed_lowrank_args;

typedef struct pf_embed_args {
    int space;        /* whose ids: PF_SPACE_TOKENS or PF_SPACE_SOURCE */
    bool by_position; /* pos[i] + offset in place of ids[i] */
    int32_t offset;
    bool by_type; /* type[i] */
} pf_embed_args;

/* w (V, C) -> (T, C) */
peft_status pf_embed(pf_graph *g, const char *name, pf_value *w, pf_value **y, peft_error *err);
/* The same for the rows of another space that has ids. */
peft_status pf_embed_rows(pf_graph *g, const char *name, pf_value *w, pf_space space, pf_value **y,
                          peft_error *err);
/* Learned positions: w (P, C); row pos[i] + offset of it. */
peft_status pf_embed_positions(pf_graph *g, const char *name, pf_value *w, pf_space space,
                               int32_t offset, pf_value **y, peft_error *err);
/* w (types, C): row type[i] of it. */
peft_status pf_embed_types(pf_graph *g, const char *name, pf_value *w, pf_value **y,
                           peft_error *err);
peft_status pf_embed_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *a,
                             pf_value *b, double scale, pf_value **y, peft_error *err);

#endif
