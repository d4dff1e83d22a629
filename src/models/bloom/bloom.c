/* bloom.c - BLOOM and BLOOMZ.
 *
 *   h = norm(embed(ids))
 *   for each layer:  n = norm1(h);  h = h + attention(n);  n = norm2(h);  h = h + mlp(n)
 *   norm(h) -> head, which is the embedding
 *
 * (BigScience 2022, arXiv 2211.05100.) No positions: ALiBi's slopes on the distances (Press et al.
 * 2022, arXiv 2108.12409). One fused projection, [q | k | v] of head after head. With
 * apply_residual_connection_post_layernorm the stream goes on from n in place of h. Names and
 * defaults are those of transformers' configuration_bloom.py; the first files lack the
 * "transformer." of every name. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/activation/activation.h"
#include "ops/shape/split.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"BloomForCausalLM", NULL};
static const char *const model_types[] = {"bloom", NULL};
static const char *const default_targets[] = {"query_key_value", NULL};
static const char *const ia3[] = {"query_key_value", "mlp.dense_4h_to_h", NULL};
static const char *const ia3_feedforward[] = {"mlp.dense_4h_to_h", NULL};
static const char *const norms[] = {"input_layernorm", "post_attention_layernorm", "ln_f", NULL};
static const char *const old_names[] = {"transformer.", "", NULL};

typedef struct bloom_layer {
    pf_site *input_norm, *post_attention_norm, *qkv, *dense, *up, *down;
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} bloom_layer;

typedef struct bloom {
    double eps, attention_dropout, dropout;
    bool residual_of_norm;
    const float *slopes; // (H)
    bloom_layer *layers;
    pf_site *embedding_norm, *embedded, *norm;
} bloom;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, bloom *l, peft_error *err) {
    static const pf_size_keys keys = {{"n_embed", "hidden_size"},
                                      {"n_layer", "num_hidden_layers"},
                                      {"n_head", "num_attention_heads"},
                                      "seq_length",
                                      0};
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_model_read_sizes(m, &keys, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_epsilon", &l->eps, err));
    PF_TRY(pf_json_opt_bool(c, where, "apply_residual_connection_post_layernorm", false,
                            &l->residual_of_norm, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", true, &m->tie_word_embeddings, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "hidden_dropout", 0, &l->dropout, err));
    PF_TRY(pf_model_read_head_dropout(m, l->dropout, err));
    return pf_layer_alibi_slopes(&m->arena, m->n_heads, &l->slopes, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_layer(pf_model *m, bloom *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "transformer.h.%d", i);
    const pf_place p = {m, i, block};
    bloom_layer *y = &l->layers[i];
    const int64_t C = m->hidden;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".input_layernorm", C, C, true, &y->input_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".self_attention", C, C, false,
                        &y->attend.prefix, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attention.query_key_value", 3 * C, C, true,
                        &y->qkv, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attention.dense", C, C, true, &y->dense, err));
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".post_attention_layernorm", C, C, true,
                        &y->post_attention_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_h_to_4h", 4 * C, C, true, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.dense_4h_to_h", C, 4 * C, true, &y->down, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status bloom_open(pf_model *m, peft_error *err) {
    bloom *l = PF_NEW(&m->arena, bloom);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, bloom_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(
        pf_model_add_embedding_and_head(m, "transformer.word_embeddings", "lm_head", false, err));
    PF_TRY(pf_model_add_site(m, PF_SITE_NORM, -1, "transformer.word_embeddings_layernorm",
                             m->hidden, m->hidden, true, &l->embedding_norm, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "transformer.ln_f", m->hidden, m->hidden, true,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const bloom_layer *y, pf_value *x,
                             pf_value **out, peft_error *err) {
    const bloom *l = m->family_cfg;
    const int64_t D = m->head_dim;
    const pf_split_args heads = {.periods = m->n_heads, .n = 3, .width = {D, D, D}};
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_heads,
                              .head_dim = D,
                              .scale = 1 / sqrt((double)D),
                              .slopes = l->slopes};
    pf_value *qkv, *part[3], *o;
    PF_TRY(pf_site_linear(b, x, y->qkv, &qkv, err));
    PF_TRY(pf_split(b->graph, y->qkv->name, qkv, &heads, part, err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, part[0], part[1], part[2], &args, &o, err));
    return pf_site_linear(b, o, y->dense, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const bloom_layer *y, pf_value **h,
                               peft_error *err) {
    const bloom *l = m->family_cfg;
    pf_value *n, *branch; // (T,C)
    PF_TRY(pf_site_layer_norm(b, *h, y->input_norm, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->dropout, y->dense->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, l->residual_of_norm ? n : *h, branch, h, err));
    PF_TRY(pf_site_layer_norm(b, *h, y->post_attention_norm, l->eps, 0, &n, err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, &pf_op_gelu_tanh, n, &branch, err));
    PF_TRY(
        pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, l->residual_of_norm ? n : *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status bloom_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const bloom *l = m->family_cfg;
    pf_value *h; // (T,C)
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_layer_norm(b, h, l->embedding_norm, l->eps, 0, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_bloom = {
    .name = "bloom",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward, .norms = norms},
    .token_head = "classifier",
    .open = bloom_open,
    .build = bloom_build,
};
