/* falcon.c - Falcon: 7B, 40B and 180B, RW-1B, Falcon 2 11B.
 *
 *   h = embed(ids)
 *   for each layer:  h = h + attention(norm(h)) + mlp(norm(h))               parallel_attn
 *              or:   h = h + attention(norm1(h));  h = h + mlp(norm2(h))
 *   norm(h) -> head, which is the embedding
 *
 * (Almazrouei et al. 2023, arXiv 2311.16867.) Three layouts of the fused projection: with
 * new_decoder_architecture groups of query heads, each before its key and value head; with
 * multi_query all query heads, then one key head and one value head; else [q | k | v] of head after
 * head. The new architecture has a norm for each branch unless num_ln_in_parallel_attn is 1. RoPE,
 * or ALiBi, whose bias is scaled with the scores and whose slopes are rounded to bf16, as in
 * training. (transformers rounds each product of slope and position to bf16 as well, beyond 8 bits
 * of position: here distances are exact.) Names and defaults are those of transformers'
 * configuration_falcon.py. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/attention/rope.h"
#include "ops/shape/split.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"FalconForCausalLM", NULL};
static const char *const model_types[] = {"falcon", NULL};
static const char *const default_targets[] = {"query_key_value", NULL};
static const char *const ia3[] = {"query_key_value", "dense_4h_to_h", NULL};
static const char *const ia3_feedforward[] = {"dense_4h_to_h", NULL};
static const char *const norms[] = {"input_layernorm", "post_attention_layernorm", "ln_f", NULL};
static const char *const old_names[] = {"transformer.", "", NULL};

typedef struct falcon_layer {
    pf_site *attention_norm, *mlp_norm; /* one and the same, when the branches share it */
    pf_site *qkv, *dense, *up, *down;
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} falcon_layer;

typedef struct falcon {
    int64_t intermediate, n_norms;
    double eps, attention_dropout, dropout;
    bool grouped, multi_query, parallel, bias, alibi;
    const float *slopes; /* (H), NULL: RoPE */
    const pf_op *act;
    falcon_layer *layers;
    pf_site *embedded, *norm;
} falcon;

/* ---- config.json ----------------------------------------------------------------------------- */

/* To the nearest bf16, ties to even. */
static float as_bf16(float a) {
    uint16_t narrow;
    pf_dtype_from_f32(PF_DTYPE_BF16, &a, 1, &narrow);
    pf_dtype_to_f32(PF_DTYPE_BF16, &narrow, 1, &a);
    return a;
}

static peft_status read_positions(pf_model *m, falcon *l, peft_error *err) {
    const float *slopes;
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "alibi", false, &l->alibi, err));
    if (!l->alibi) {
        return pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                                 1e4, err);
    }
    PF_TRY(pf_layer_alibi_slopes(&m->arena, m->n_heads, &slopes, err));
    float *scaled = PF_NEW_ARRAY(&m->arena, float, m->n_heads);
    PF_CHECK_ALLOC(scaled, err);
    for (int64_t h = 0; h < m->n_heads; h++)
        scaled[h] = (float)((double)as_bf16(slopes[h]) / sqrt((double)m->head_dim));
    l->slopes = scaled;
    return PEFT_OK;
}

static peft_status read_heads(pf_model *m, falcon *l, peft_error *err) {
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_json_opt_bool(c, where, "new_decoder_architecture", false, &l->grouped, err));
    PF_TRY(pf_json_opt_bool(c, where, "multi_query", true, &l->multi_query, err));
    if (l->grouped) return pf_model_read_kv_heads(m, "num_kv_heads", err);
    m->n_kv_heads = l->multi_query ? 1 : m->n_heads;
    return PEFT_OK;
}

static peft_status read_config(pf_model *m, falcon *l, peft_error *err) {
    static const pf_size_keys keys = {{"n_embed", "hidden_size"},
                                      {"num_hidden_layers", "n_layer"},
                                      {"num_attention_heads", "n_head"},
                                      "max_position_embeddings",
                                      0};
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_model_read_sizes(m, &keys, err));
    PF_TRY(read_heads(m, l, err));
    PF_TRY(pf_model_read_width(m, "ffn_hidden_size", 4 * m->hidden, &l->intermediate, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_epsilon", &l->eps, err));
    PF_TRY(pf_model_read_activation(m, "activation", "gelu", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "parallel_attn", true, &l->parallel, err));
    PF_TRY(pf_json_opt_int(c, where, "num_ln_in_parallel_attn", l->grouped ? 2 : 1, 1, 2,
                           &l->n_norms, err));
    PF_TRY(pf_json_opt_bool(c, where, "bias", false, &l->bias, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", true, &m->tie_word_embeddings, err));
    if (l->grouped) l->parallel = true;
    if (!l->grouped) l->n_norms = l->parallel ? 1 : 2;
    PF_TRY(read_positions(m, l, err));
    PF_TRY(pf_model_read_dropout(m, c, "hidden_dropout", 0, &l->dropout, err));
    if (l->alibi || !l->parallel) /* elsewhere nothing reads it */
        PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    return pf_model_read_head_dropout(m, l->dropout, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_norms(const pf_place p, const falcon *l, falcon_layer *y, peft_error *err) {
    const int64_t C = p.m->hidden;
    const bool named_by_branch = l->grouped && l->n_norms == 2;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, named_by_branch ? ".ln_attn" : ".input_layernorm", C, C,
                        true, &y->attention_norm, err));
    y->mlp_norm = y->attention_norm;
    if (l->n_norms == 1) return PEFT_OK;
    return pf_place_add(p, PF_SITE_NORM, named_by_branch ? ".ln_mlp" : ".post_attention_layernorm",
                        C, C, true, &y->mlp_norm, err);
}

static peft_status open_layer(pf_model *m, falcon *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "transformer.h.%d", i);
    const pf_place p = {m, i, block};
    falcon_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate, KV = m->n_kv_heads * m->head_dim;
    PF_TRY(open_norms(p, l, y, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".self_attention", KV, KV, false,
                        &y->attend.prefix, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attention.query_key_value", C + 2 * KV, C,
                        l->bias, &y->qkv, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attention.dense", C, C, l->bias, &y->dense, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_h_to_4h", F, C, l->bias, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_4h_to_h", C, F, l->bias, &y->down, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, l->parallel, &y->at, err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    if (l->alibi) y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status falcon_open(pf_model *m, peft_error *err) {
    falcon *l = PF_NEW(&m->arena, falcon);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, falcon_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(
        pf_model_add_embedding_and_head(m, "transformer.word_embeddings", "lm_head", false, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "transformer.ln_f", m->hidden, m->hidden, true,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const falcon_layer *y, pf_value *x,
                             pf_value *table, pf_value **out, peft_error *err) {
    const falcon *l = m->family_cfg;
    const int64_t D = m->head_dim, G = m->n_heads / m->n_kv_heads;
    /* one period for each key head, behind the query heads that read it */
    const pf_split_args heads = {.periods = m->n_kv_heads, .n = 3, .width = {G * D, D, D}};
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_kv_heads,
                              .head_dim = D,
                              .scale = 1 / sqrt((double)D),
                              .slopes = l->slopes};
    pf_value *qkv, *part[3], *o;
    PF_TRY(pf_site_linear(b, x, y->qkv, &qkv, err));
    PF_TRY(pf_split(b->graph, y->qkv->name, qkv, &heads, part, err));
    for (int i = 0; i < 2 && table != NULL; i++)
        PF_TRY(pf_rope(b->graph, y->attend.name, part[i], table, D, &part[i], err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, part[0], part[1], part[2], &args, &o, err));
    return pf_site_linear(b, o, y->dense, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const falcon_layer *y,
                               pf_value *table, pf_value **h, peft_error *err) {
    const falcon *l = m->family_cfg;
    pf_value *n, *branch, *start = *h; // (T,C)
    /* where the branches are parallel their sum is dropped, so both have the mask of one */
    const int place = l->parallel ? PF_DROP_MLP : PF_DROP_ATTENTION;
    const double p = l->parallel ? l->dropout : l->attention_dropout;
    PF_TRY(pf_site_layer_norm(b, start, y->attention_norm, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, table, &branch, err));
    PF_TRY(pf_model_drop(m, b, place, y->attend.layer, p, y->dense->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, start, branch, h, err));
    if (l->n_norms == 2) {
        PF_TRY(pf_site_layer_norm(b, l->parallel ? start : *h, y->mlp_norm, l->eps, 0, &n, err));
    }
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, n, &branch, err));
    PF_TRY(
        pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status falcon_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const falcon *l = m->family_cfg;
    pf_value *h, *table = NULL; // (T,C), (T,D)
    if (!l->alibi) PF_TRY(pf_layer_rope_table(b, &m->rope, &table, err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], table, &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_falcon = {
    .name = "falcon",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward, .norms = norms},
    .token_head = "classifier",
    .open = falcon_open,
    .build = falcon_build,
};
