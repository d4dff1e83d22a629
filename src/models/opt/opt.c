/* opt.c - OPT and Galactica.
 *
 *   h = project_in(embed(ids)) + positions
 *   for each layer:  h = h + attention(norm1(h));  h = h + mlp(norm2(h))       do_layer_norm_before
 *              or:   h = norm1(h + attention(h));  h = norm2(h + mlp(h))       (350m)
 *   project_out(norm(h)) -> head, which is the embedding
 *
 * (Zhang et al. 2022, arXiv 2205.01068.) Learned positions, whose table has two unused rows in
 * front. The projections are there where the embedding is narrower than the stream; the last norm
 * is not there in models that norm behind the branches, or with _remove_final_layer_norm. Names and
 * defaults are those of transformers' configuration_opt.py. */
#include "base/log.h"
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/activation/activation.h"
#include "ops/norm/layer_norm.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

#define POSITION_OFFSET 2
#define NORM_EPS        1e-5 /* torch's; the config has none */

static const char *const architectures[] = {"OPTForCausalLM", NULL};
static const char *const model_types[] = {"opt", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", NULL};
static const char *const ia3[] = {"q_proj", "k_proj", "fc2", NULL};
static const char *const ia3_feedforward[] = {"fc2", NULL};

typedef struct opt_layer {
    pf_site *q, *k, *v, *out, *up, *down;
    pf_site *attention_norm, *mlp_norm; /* NULL: without weights */
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} opt_layer;

typedef struct opt {
    int64_t intermediate, embedding_dim;
    bool norm_before, final_norm, bias, norm_weights;
    double dropout, attention_dropout;
    const pf_op *act;
    opt_layer *layers;
    pf_site *positions, *embedded, *norm;
    pf_site *project_in, *project_out; /* NULL: none */
} opt;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, opt *l, peft_error *err) {
    const json_t *c = m->config;
    const char *where = m->config_path;
    bool removed;
    double layerdrop;
    PF_TRY(pf_model_read_sizes(m, &pf_usual_size_keys, err));
    PF_TRY(pf_model_read_width(m, "ffn_dim", 0, &l->intermediate, err));
    PF_TRY(pf_model_read_width(m, "word_embed_proj_dim", m->hidden, &l->embedding_dim, err));
    PF_TRY(pf_model_read_activation(m, "activation_function", "relu", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "do_layer_norm_before", true, &l->norm_before, err));
    PF_TRY(pf_json_opt_bool(c, where, "_remove_final_layer_norm", false, &removed, err));
    PF_TRY(pf_json_opt_bool(c, where, "enable_bias", true, &l->bias, err));
    PF_TRY(
        pf_json_opt_bool(c, where, "layer_norm_elementwise_affine", true, &l->norm_weights, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", true, &m->tie_word_embeddings, err));
    l->final_norm = l->norm_before && !removed;
    PF_TRY(pf_model_read_dropout(m, c, "dropout", 0.1, &l->dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    PF_TRY(pf_json_opt_real(c, where, "layerdrop", 0, &layerdrop, err));
    if (layerdrop > 0 && m->dropout.use == PF_DROPOUT_CONFIG)
        PF_WARN("%s: layerdrop %g is not applied: no layer is left out while training", where,
                layerdrop);
    return PEFT_OK;
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_layer(pf_model *m, opt *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "model.decoder.layers.%d", i);
    const pf_place p = {m, i, block};
    opt_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate;
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".self_attn", C, C, false, &y->attend.prefix,
                        err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.k_proj", C, C, l->bias, &y->k, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.v_proj", C, C, l->bias, &y->v, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.q_proj", C, C, l->bias, &y->q, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.out_proj", C, C, l->bias, &y->out, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".fc1", F, C, l->bias, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".fc2", C, F, l->bias, &y->down, err));
    if (l->norm_weights) {
        PF_TRY(pf_place_add(p, PF_SITE_NORM, ".self_attn_layer_norm", C, C, true,
                            &y->attention_norm, err));
        PF_TRY(pf_place_add(p, PF_SITE_NORM, ".final_layer_norm", C, C, true, &y->mlp_norm, err));
    }
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));
    if (!l->norm_before) {
        pf_join_norm norm = {.site = y->attention_norm, .of_sum = true, .eps = NORM_EPS};
        PF_TRY(pf_model_set_join_norm(m, y->at.attention, norm, err));
        norm.site = y->mlp_norm;
        PF_TRY(pf_model_set_join_norm(m, y->at.mlp, norm, err));
    }
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

/* The embedding, and a head as wide as it is. */
static peft_status add_embedding_and_head(pf_model *m, const opt *l, peft_error *err) {
    const int64_t hidden = m->hidden;
    m->hidden = l->embedding_dim;
    peft_status status =
        pf_model_add_embedding_and_head(m, "model.decoder.embed_tokens", "lm_head", false, err);
    m->hidden = hidden;
    return status;
}

static peft_status opt_open(pf_model *m, peft_error *err) {
    opt *l = PF_NEW(&m->arena, opt);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    const int64_t C = m->hidden, E = l->embedding_dim;
    l->layers = PF_NEW_ARRAY(&m->arena, opt_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(add_embedding_and_head(m, l, err));
    PF_TRY(pf_model_add_site(m, PF_SITE_POSITIONS, -1, "model.decoder.embed_positions",
                             m->max_positions + POSITION_OFFSET, C, false, &l->positions, err));
    if (E != C) {
        PF_TRY(pf_model_add_site(m, PF_SITE_LINEAR, -1, "model.decoder.project_out", E, C, false,
                                 &l->project_out, err));
        PF_TRY(pf_model_add_site(m, PF_SITE_LINEAR, -1, "model.decoder.project_in", C, E, false,
                                 &l->project_in, err));
    }
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    if (!l->final_norm || !l->norm_weights) return PEFT_OK;
    return pf_model_add_site(m, PF_SITE_NORM, -1, "model.decoder.final_layer_norm", C, C, true,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status normed(pf_build *b, pf_site *site, const char *name, pf_value *x, pf_value **y,
                          peft_error *err) {
    if (site != NULL) return pf_site_layer_norm(b, x, site, NORM_EPS, 0, y, err);
    return pf_layer_norm(b->graph, name, x, NULL, NULL, NORM_EPS, 0, y, err);
}

static peft_status attention(const pf_model *m, pf_build *b, const opt_layer *y, pf_value *x,
                             pf_value **out, peft_error *err) {
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_heads,
                              .head_dim = m->head_dim,
                              .scale = 1 / sqrt((double)m->head_dim)};
    pf_value *qkv[3], *o;
    PF_TRY(pf_site_linears(b, x, (pf_site *[]){y->q, y->k, y->v}, 3, qkv, err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, y->out, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const opt_layer *y, pf_value **h,
                               peft_error *err) {
    const opt *l = m->family_cfg;
    const char *name = y->at.output->name;
    pf_value *n = *h, *branch; // (T,C)
    if (l->norm_before) PF_TRY(normed(b, y->attention_norm, name, *h, &n, err));
    PF_TRY(attention(m, b, y, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->dropout, y->out->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    n = *h;
    if (l->norm_before) PF_TRY(normed(b, y->mlp_norm, name, *h, &n, err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, n, &branch, err));
    PF_TRY(
        pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status opt_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const opt *l = m->family_cfg;
    pf_value *h, *positions; // (T,C)
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    if (l->project_in != NULL) PF_TRY(pf_site_linear(b, h, l->project_in, &h, err));
    PF_TRY(pf_site_positions(b, l->positions, PF_SPACE_TOKENS, POSITION_OFFSET, &positions, err));
    PF_TRY(pf_add(b->graph, l->positions->name, h, positions, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], &h, err));
        pf_graph_block_end(b->graph);
    }
    if (l->final_norm) PF_TRY(normed(b, l->norm, "model.decoder.final_layer_norm", h, &h, err));
    if (l->project_out != NULL) PF_TRY(pf_site_linear(b, h, l->project_out, &h, err));
    *hidden = h;
    return PEFT_OK;
}

const pf_model_family pf_model_family_opt = {
    .name = "opt",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward},
    .tasks = 1u << PF_TASK_CAUSAL_LM | 1u << PF_TASK_SEQ_CLS,
    .open = opt_open,
    .build = opt_build,
};
