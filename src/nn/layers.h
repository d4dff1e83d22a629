/* layers.h - pieces that many families share: attention with RoPE over grouped heads, the gated MLP
 * and the plain one.
 *
 * A family fills a struct per layer when it opens and calls these while it builds. They emit plain
 * ops; what is attached to the sites acts in between. */
#ifndef PF_LAYERS_H
#define PF_LAYERS_H

#include "nn/model.h"
#include "ops/activation/row_mask.h"
#include "ops/attention/attention.h"

typedef struct pf_attention_layer {
    const char *name; /* "model.layers.3.self_attn" */
    int layer;        /* which KV state is ours */
    pf_site *q, *k, *v, *o;
    pf_site *qkv; /* in place of q, k and v: one projection, its columns in this order */
    pf_site *q_norm, *k_norm; /* RMS norm after the projection; NULL: none */
    bool norm_whole;          /* over all heads together (OLMo 2); else per head (Qwen3) */
    pf_site *prefix;
    int64_t n_heads, n_kv_heads, head_dim;
    double scale;         /* of the scores */
    double norm_eps;      /* of q_norm and k_norm */
    int64_t window;       /* 0: none */
    double softcap;       /* of the scores; 0: none */
    bool rope;            /* false: positions are not seen (NoPE) */
    pf_drop_args dropout; /* of the probabilities; zero: none (base_dropout.h) */
} pf_attention_layer;

/* Where an attention layer stands: its name, whose cache is its own, the site of its prefix, and
 * its table of biases (attention.h). */
typedef struct pf_attend {
    const char *name;
    int layer;       /* -1: none (an encoder's) */
    pf_site *prefix; /* NULL: there can be none */
    pf_value *bias;  /* NULL: none */
} pf_attend;

/* Attention over q, k, v as the scores see them (T, heads), and whatever comes before the rows of
 * the batch: a learned prefix, or in GENERATE mode the cache, which then takes the new rows. */
peft_status pf_layer_attend(pf_build *b, const pf_attend *at, pf_value *q, pf_value *k, pf_value *v,
                            const pf_attention_args *args, pf_value **o, peft_error *err);

/* x (T, C), table of rope_table (T, D) -> y (T, C) */
peft_status pf_layer_attention(pf_build *b, const pf_attention_layer *l, pf_value *x,
                               pf_value *table, pf_value **y, peft_error *err);

/* down(silu(gate(x)) * up(x)) */
peft_status pf_layer_gated_mlp(pf_build *b, pf_site *gate, pf_site *up, pf_site *down, pf_value *x,
                               pf_value **y, peft_error *err);

typedef struct pf_gated_mlp {
    pf_site *gate, *up, *down;
    pf_site *gate_up; /* in place of gate and up: one projection, its columns in this order */
    const pf_op *act; /* activation.h */
} pf_gated_mlp;

/* down(act(gate(x)) * up(x)) */
peft_status pf_layer_gated_mlp_of(pf_build *b, const pf_gated_mlp *l, pf_value *x, pf_value **y,
                                  peft_error *err);

/* A mixture of experts (ops/moe/moe.h), and the expert that every row has besides, where there is
 * one. */
typedef struct pf_moe_layer {
    pf_site *router;
    int n_experts, top_k;
    bool normalize; /* the weights of a row's experts sum to 1 */
    pf_gated_mlp *experts;
    const pf_gated_mlp *shared; /* NULL: none */
    pf_site *shared_gate;       /* one number per row, through a sigmoid */
} pf_moe_layer;

/* sum of weight · expert(x) over the experts that the router chose, + sigmoid(gate(x)) · shared(x);
 * *routes are the router's */
peft_status pf_layer_moe(pf_build *b, const pf_moe_layer *l, pf_value *x, pf_value **y,
                         pf_routes *routes, peft_error *err);

/* down(f(up(x))), f an activation function (activation.h) */
peft_status pf_layer_mlp(pf_build *b, pf_site *up, pf_site *down, const pf_op *f, pf_value *x,
                         pf_value **y, peft_error *err);

/* ALiBi's slopes (n_heads), as BLOOM and Falcon have them: powers of one number, and between them
 * those of its root where the heads are no power of two. */
peft_status pf_layer_alibi_slopes(pf_arena *a, int64_t n_heads, const float **out, peft_error *err);

/* cos and sin of a model's RoPE for the rows of a batch (T, D); the frequencies live in the graph.
 */
peft_status pf_layer_rope_table(pf_build *b, const pf_rope_spec *spec, pf_value **table,
                                peft_error *err);

#endif
