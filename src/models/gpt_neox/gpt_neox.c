/* gpt_neox.c - GPT-NeoX-20B, Pythia, Dolly 2, RedPajama-INCITE, StableLM alpha.
 *
 *   h = embed(ids)
 *   for each layer:  h = h + attention(norm1(h)) + mlp(norm2(h))          use_parallel_residual
 *              or:   h = h + attention(norm1(h));  h = h + mlp(norm2(h))
 *   norm(h) -> head
 *
 * (Black et al. 2022, arXiv 2204.06745.) LayerNorm, RoPE on the first rotary_pct of a head's
 * columns, one fused projection whose rows are [q | k | v] of the first head, then of the second,
 * ... Names and defaults are those of transformers' configuration_gpt_neox.py. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/attention/rope.h"
#include "ops/shape/split.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"GPTNeoXForCausalLM", NULL};
static const char *const model_types[] = {"gpt_neox", NULL};
static const char *const default_targets[] = {"query_key_value", NULL};
static const char *const ia3[] = {"query_key_value", "dense_4h_to_h", NULL};
static const char *const ia3_feedforward[] = {"dense_4h_to_h", NULL};
static const char *const old_names[] = {"lm_head.", "embed_out.", NULL};

typedef struct neox_layer {
    pf_site *input_norm, *post_attention_norm, *qkv, *dense, *up, *down;
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} neox_layer;

typedef struct neox {
    int64_t intermediate;
    double eps, attention_dropout, dropout;
    bool parallel, attention_bias;
    const pf_op *act;
    neox_layer *layers;
    pf_site *embedded, *norm;
} neox;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, neox *l, peft_error *err) {
    static const pf_rope_defaults rope = {1e4, 0.25, "rotary_emb_base", "rotary_pct"};
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_model_read_sizes(m, &pf_usual_size_keys, err));
    PF_TRY(pf_model_read_width(m, "intermediate_size", 0, &l->intermediate, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_eps", &l->eps, err));
    PF_TRY(pf_model_read_activation(m, "hidden_act", "gelu", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_parallel_residual", true, &l->parallel, err));
    PF_TRY(pf_json_opt_bool(c, where, "attention_bias", true, &l->attention_bias, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", false, &m->tie_word_embeddings, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "hidden_dropout", 0, &l->dropout, err));
    PF_TRY(pf_model_read_head_dropout(m, 0.1, err));
    return pf_rope_spec_read_as(&m->rope, c, where, m->head_dim, m->max_positions, &rope, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_layer(pf_model *m, neox *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "gpt_neox.layers.%d", i);
    const pf_place p = {m, i, block};
    neox_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate;
    const bool bias = l->attention_bias;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".input_layernorm", C, C, true, &y->input_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".post_attention_layernorm", C, C, true,
                        &y->post_attention_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".attention", C, C, false, &y->attend.prefix,
                        err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.query_key_value", 3 * C, C, bias, &y->qkv,
                        err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.dense", C, C, bias, &y->dense, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_h_to_4h", F, C, true, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_4h_to_h", C, F, true, &y->down, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, l->parallel, &y->at, err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status neox_open(pf_model *m, peft_error *err) {
    neox *l = PF_NEW(&m->arena, neox);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, neox_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(pf_model_add_embedding_and_head(m, "gpt_neox.embed_in", "lm_head", false, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "gpt_neox.final_layer_norm", m->hidden, m->hidden,
                             true, &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const neox_layer *y, pf_value *x,
                             pf_value *table, pf_value **out, peft_error *err) {
    const int64_t D = m->head_dim;
    const pf_split_args heads = {.periods = m->n_heads, .n = 3, .width = {D, D, D}};
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_heads,
                              .head_dim = D,
                              .scale = 1 / sqrt((double)D)};
    pf_value *qkv, *part[3], *o;
    PF_TRY(pf_site_linear(b, x, y->qkv, &qkv, err));
    PF_TRY(pf_split(b->graph, y->qkv->name, qkv, &heads, part, err));
    for (int i = 0; i < 2; i++)
        PF_TRY(pf_rope(b->graph, y->attend.name, part[i], table, D, &part[i], err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, part[0], part[1], part[2], &args, &o, err));
    return pf_site_linear(b, o, y->dense, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const neox_layer *y, pf_value *table,
                               pf_value **h, peft_error *err) {
    const neox *l = m->family_cfg;
    pf_value *n, *branch, *start = *h; // (T,C)
    PF_TRY(pf_site_layer_norm(b, start, y->input_norm, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, table, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->dropout, y->dense->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, start, branch, h, err));
    PF_TRY(pf_site_layer_norm(b, l->parallel ? start : *h, y->post_attention_norm, l->eps, 0, &n,
                              err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, n, &branch, err));
    PF_TRY(
        pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status neox_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const neox *l = m->family_cfg;
    pf_value *h, *table; // (T,C), (T,D)
    PF_TRY(pf_layer_rope_table(b, &m->rope, &table, err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_EMBEDDING, -1, l->dropout, m->embedding->name, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], table, &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_gpt_neox = {
    .name = "gpt_neox",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward},
    .token_head = "classifier",
    .open = neox_open,
    .build = neox_build,
};
