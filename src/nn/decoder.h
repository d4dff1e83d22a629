/* decoder.h - the body that the families with RMS norms share:
 *
 *   h = embed(ids)
 *   for each layer:  h = h + m post(attention(pre(h)));  h = h + m post(mlp(pre(h)))
 *   norm(h) -> head
 *
 * Any of the four norms of a layer may be missing; m is a number. A family fills a pf_decoder_shape
 * from its config.json, opens the body with it, says what differs from layer to layer (windows,
 * which RoPE) and builds. What is no part of the body (a scale of the embedding, a cap of the
 * logits) are properties of sites (site.h). */
#ifndef PF_DECODER_H
#define PF_DECODER_H

#include "nn/layers.h"

struct json_t;

/* What a missing key of config.json means for an architecture. */
typedef struct pf_decoder_defaults {
    int64_t n_kv_heads; /* 0: n_heads */
    int64_t head_dim;   /* 0: hidden / n_heads */
    int64_t max_positions;
    double eps;
    bool tie;
    const char *act_key, *act; /* "hidden_act", "silu" */
} pf_decoder_defaults;

typedef enum pf_qk_norm {
    PF_QK_NORM_NONE,
    PF_QK_NORM_HEADS, /* of each head */
    PF_QK_NORM_WHOLE  /* of all heads together */
} pf_qk_norm;

/* Mixtures of experts in place of a layer's MLP. */
typedef struct pf_moe_shape {
    const char *path;             /* "mlp": router at .gate, experts at .experts.N */
    const char *gate, *up, *down; /* names of an expert's projections */
    int n_experts, top_k;
    bool normalize;
    int64_t width; /* of an expert */
    int64_t
        shared_width;   /* of the shared expert, at .shared_expert and .shared_expert_gate; 0: none
                         */
    double aux_coef;    /* of the routers' own loss; 0: none */
    const bool *sparse; /* by layer: has experts; NULL: every one */
} pf_moe_shape;

typedef struct pf_decoder_shape {
    const char *root; /* module path of the body: "model" */
    int64_t intermediate;
    double eps;
    const pf_op *act;
    bool qkv_bias, o_bias, mlp_bias;
    bool fused_qkv, fused_gate_up; /* qkv_proj, gate_up_proj: one linear layer each */
    pf_qk_norm qk_norm;
    /* names of a layer's norms; NULL: none */
    const char *attention_norm, *attention_post_norm, *mlp_norm, *mlp_post_norm;
    double norm_offset;                       /* norms multiply by offset + w */
    double scale, softcap;                    /* of the scores; 0: 1 / sqrt(head_dim), none */
    const pf_moe_shape *moe;                  /* NULL: no experts */
    double residual;                          /* what branches are multiplied by; 0: 1 */
    double attention_dropout, branch_dropout; /* base_dropout.h; the latter of both branches */
} pf_decoder_shape;

typedef struct pf_decoder_layer {
    pf_site *attention_norm, *attention_post_norm, *mlp_norm, *mlp_post_norm; /* NULL: none */
    pf_attention_layer attention;
    pf_gated_mlp mlp;
    pf_moe_layer moe; /* in place of mlp where it has experts */
    pf_block_sites at;
    int rope; /* which of the body's RoPEs */
} pf_decoder_layer;

typedef struct pf_decoder {
    pf_decoder_shape shape;
    pf_decoder_layer *layers;
    pf_site *embedded, *norm;
    pf_rope_spec rope[2];
    int n_ropes;
} pf_decoder;

/* --- for families, while they open --- */
/* The sizes that every config.json has, into the model and the shape: hidden, vocabulary, layers,
 * heads, positions, tie, intermediate size, eps, activation. `config` may be a part of m->config.
 */
peft_status pf_decoder_read_sizes(pf_model *m, const struct json_t *config,
                                  const pf_decoder_defaults *def, pf_decoder_shape *shape,
                                  peft_error *err);
/* Is layer i of `layer_types` a sliding_attention one? `def` where the list is missing. */
peft_status pf_decoder_is_sliding(const pf_model *m, const struct json_t *config, int i, bool def,
                                  bool *sliding, peft_error *err);
/* sliding_window; a missing key is `def`, null is 0: none */
peft_status pf_decoder_read_window(const pf_model *m, const struct json_t *config, int64_t def,
                                   int64_t *window, peft_error *err);
/* output_router_logits, router_aux_loss_coef (`def` where it is missing): the routers' own loss, as
 * transformers adds it to that of a causal LM */
peft_status pf_decoder_read_router_loss(const pf_model *m, const struct json_t *config, double def,
                                        pf_moe_shape *shape, peft_error *err);
/* Sites of everything, with their weights. Takes the shape and m->rope as the RoPE of all layers.
 */
peft_status pf_decoder_open(pf_model *m, pf_decoder *d, const pf_decoder_shape *shape,
                            const char *head, peft_error *err);

/* --- while they build --- */
peft_status pf_decoder_build(pf_model *m, pf_build *b, const pf_decoder *d, pf_value **hidden,
                             peft_error *err);

#endif
