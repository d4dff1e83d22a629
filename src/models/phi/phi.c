/* phi.c - Phi-1, Phi-1.5 and Phi-2.
 *
 *   h = embed(ids)
 *   for each layer:  n = norm(h);  h = h + attention(n) + mlp(n)
 *   norm(h) -> head, which has a bias
 *
 * (Li et al. 2023, arXiv 2309.05463.) One LayerNorm for both branches, RoPE on the first
 * partial_rotary_factor of a head's columns, biases everywhere, and with qk_layernorm a LayerNorm
 * of q and k that all heads share. Names and defaults are those of transformers'
 * configuration_phi.py. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/attention/rope.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"PhiForCausalLM", NULL};
static const char *const model_types[] = {"phi", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", "fc1", "fc2", NULL};
static const char *const ia3[] = {"q_proj", "v_proj", "fc2", NULL};
static const char *const ia3_feedforward[] = {"fc2", NULL};
static const char *const norms[] = {"input_layernorm", "final_layernorm", NULL};

typedef struct phi_layer {
    pf_site *norm, *q, *k, *v, *dense, *up, *down;
    pf_site *q_norm, *k_norm; /* NULL: none */
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} phi_layer;

typedef struct phi {
    int64_t intermediate;
    double eps, embedding_dropout, residual_dropout, attention_dropout;
    bool qk_norm;
    const pf_op *act;
    phi_layer *layers;
    pf_site *embedded, *norm;
} phi;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, phi *l, peft_error *err) {
    static const pf_rope_defaults rope = {1e4, 0.5, "rope_theta", "partial_rotary_factor"};
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_model_read_sizes(m, &pf_usual_size_keys, err));
    PF_TRY(pf_model_read_kv_heads(m, "num_key_value_heads", err));
    PF_TRY(pf_model_read_width(m, "intermediate_size", 0, &l->intermediate, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_eps", &l->eps, err));
    PF_TRY(pf_model_read_activation(m, "hidden_act", "gelu_new", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "qk_layernorm", false, &l->qk_norm, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", false, &m->tie_word_embeddings, err));
    PF_TRY(pf_model_read_dropout(m, c, "embd_pdrop", 0, &l->embedding_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "resid_pdrop", 0, &l->residual_dropout, err));
    return pf_rope_spec_read_as(&m->rope, c, where, m->head_dim, m->max_positions, &rope, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_layer(pf_model *m, phi *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "model.layers.%d", i);
    const pf_place p = {m, i, block};
    phi_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate, D = m->head_dim, KV = m->n_kv_heads * D;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".input_layernorm", C, C, true, &y->norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".self_attn", KV, KV, false, &y->attend.prefix,
                        err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.q_proj", C, C, true, &y->q, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.k_proj", KV, C, true, &y->k, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.v_proj", KV, C, true, &y->v, err));
    if (l->qk_norm) {
        PF_TRY(
            pf_place_add(p, PF_SITE_NORM, ".self_attn.q_layernorm", D, D, true, &y->q_norm, err));
        PF_TRY(
            pf_place_add(p, PF_SITE_NORM, ".self_attn.k_layernorm", D, D, true, &y->k_norm, err));
    }
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.dense", C, C, true, &y->dense, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.fc1", F, C, true, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.fc2", C, F, true, &y->down, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, true, &y->at, err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status phi_open(pf_model *m, peft_error *err) {
    phi *l = PF_NEW(&m->arena, phi);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, phi_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(pf_model_add_embedding_and_head(m, "model.embed_tokens", "lm_head", true, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "model.final_layernorm", m->hidden, m->hidden,
                             true, &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const phi_layer *y, pf_value *x,
                             pf_value *table, pf_value **out, peft_error *err) {
    const phi *l = m->family_cfg;
    const int64_t D = m->head_dim;
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_kv_heads,
                              .head_dim = D,
                              .scale = 1 / sqrt((double)D)};
    pf_site *head_norms[2] = {y->q_norm, y->k_norm};
    pf_value *qkv[3], *o;
    PF_TRY(pf_site_linears(b, x, (pf_site *[]){y->q, y->k, y->v}, 3, qkv, err));
    for (int i = 0; i < 2; i++) {
        if (head_norms[i] != NULL)
            PF_TRY(pf_site_layer_norm(b, qkv[i], head_norms[i], l->eps, D, &qkv[i], err));
        PF_TRY(pf_rope(b->graph, y->attend.name, qkv[i], table, D, &qkv[i], err));
    }
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, y->dense, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const phi_layer *y, pf_value *table,
                               pf_value **h, peft_error *err) {
    const phi *l = m->family_cfg;
    pf_value *n, *branch; // (T,C)
    PF_TRY(pf_site_layer_norm(b, *h, y->norm, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, table, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->residual_dropout,
                         y->dense->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->residual_dropout, y->down->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status phi_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const phi *l = m->family_cfg;
    pf_value *h, *table; // (T,C), (T,D)
    PF_TRY(pf_layer_rope_table(b, &m->rope, &table, err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_EMBEDDING, -1, l->embedding_dropout, m->embedding->name, &h,
                         err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], table, &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_phi = {
    .name = "phi",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward, .norms = norms},
    .open = phi_open,
    .build = phi_build,
};
