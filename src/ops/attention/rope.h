/* rope.h - rotary position embedding (Su et al. 2021, arXiv 2104.09864), in Hugging Face's
 * half-split layout: pair (j, j + D/2) of a head is turned by pos · inv_freq[j].
 *
 * rope_table makes cos and sin once per batch, for all layers: row i holds D/2 cosines, then D/2
 * sines, times `attention_factor`. The frequencies of each RoPE type are the model's business
 * (nn/rope_types.h); a type that looks at the length takes that of the row's sample
 * (segment.rope_length), never of the batch. */
#ifndef PF_ROPE_H
#define PF_ROPE_H

#include "graph/graph.h"

typedef struct pf_rope_table_args {
    int64_t dim;           /* D, rotated columns of a head; even */
    const float *inv_freq; /* (D/2), in the graph's or model's lifetime */
    double attention_factor;
    /* dynamic NTK: for samples longer than `original`, frequencies are made anew from
     * base·(factor·L/original - (factor-1))^(D/(D-2)) */
    double dynamic_factor; /* 0: static */
    double base;
    /* LongRoPE: samples longer than `original` turn by other frequencies */
    const float *long_freq; /* (D/2) or NULL */
    int64_t original;
} pf_rope_table_args;

typedef struct pf_rope_args {
    int64_t head_dim; /* columns of a head; the first table-dim of them turn, the rest pass */
    bool inverse;     /* turn back: the gradient */
} pf_rope_args;

/* -> table (T, D) */
peft_status pf_rope_table(pf_graph *g, const char *name, const pf_rope_table_args *args,
                          pf_value **table, peft_error *err);
/* x (T, heads * head_dim), table (T, D) -> (T, heads * head_dim); x's room is taken over when it
 * can be */
peft_status pf_rope(pf_graph *g, const char *name, pf_value *x, pf_value *table, int64_t head_dim,
                    pf_value **y, peft_error *err);

#endif
