/* gpt2.c - GPT-2, DistilGPT2, DialoGPT, Cerebras-GPT.
 *
 *   h = embed(ids) + positions
 *   for each layer:  h = h + attention(norm1(h));  h = h + mlp(norm2(h))
 *   norm(h) -> head, which is the embedding
 *
 * (Radford et al. 2019.) Linear layers are stored as (in, out), transformers' Conv1D: the weight is
 * a transposed view, so methods and merges see rows of outputs as everywhere. c_attn is one
 * projection, [q | k | v]. Names and defaults are those of transformers' configuration_gpt2.py; the
 * first files lack the "transformer." of every name and keep the causal mask as attn.bias. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/activation/activation.h"
#include "ops/shape/split.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"GPT2LMHeadModel", NULL};
static const char *const model_types[] = {"gpt2", NULL};
static const char *const default_targets[] = {"c_attn", NULL};
static const char *const ia3[] = {"c_attn", "mlp.c_proj", NULL};
static const char *const ia3_feedforward[] = {"mlp.c_proj", NULL};
static const char *const norms[] = {"ln_1", "ln_2", "ln_f", NULL};
static const char *const old_names[] = {"transformer.", "", NULL};

typedef struct gpt2_layer {
    pf_site *norm1, *qkv, *out, *norm2, *up, *down;
    double scale;
    pf_drop_args dropout; /* of its scores */
    pf_attend attend;
    pf_block_sites at;
} gpt2_layer;

typedef struct gpt2 {
    int64_t intermediate;
    double eps, embedding_dropout, residual_dropout, attention_dropout;
    bool scaled, by_layer; /* scores: by the head's width, by the layer */
    const pf_op *act;
    gpt2_layer *layers;
    pf_site *positions, *embedded, *norm;
} gpt2;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, gpt2 *l, peft_error *err) {
    static const pf_size_keys keys = {{"n_embd"}, {"n_layer"}, {"n_head"}, "n_positions", 1024};
    const json_t *c = m->config;
    const char *where = m->config_path;
    bool cross;
    PF_TRY(pf_model_read_sizes(m, &keys, err));
    PF_TRY(pf_model_read_width(m, "n_inner", 4 * m->hidden, &l->intermediate, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_epsilon", &l->eps, err));
    PF_TRY(pf_model_read_activation(m, "activation_function", "gelu_new", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "scale_attn_weights", true, &l->scaled, err));
    PF_TRY(pf_json_opt_bool(c, where, "scale_attn_by_inverse_layer_idx", false, &l->by_layer, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", true, &m->tie_word_embeddings, err));
    PF_TRY(pf_json_opt_bool(c, where, "add_cross_attention", false, &cross, err));
    if (cross) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: add_cross_attention is true: a GPT-2 that reads an encoder is not "
                       "supported",
                       where);
    }
    PF_TRY(pf_model_read_dropout(m, c, "embd_pdrop", 0.1, &l->embedding_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "attn_pdrop", 0.1, &l->attention_dropout, err));
    return pf_model_read_dropout(m, c, "resid_pdrop", 0.1, &l->residual_dropout, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_layer(pf_model *m, gpt2 *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "transformer.h.%d", i);
    const pf_place p = {m, i, block};
    gpt2_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".ln_1", C, C, true, &y->norm1, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".attn", C, C, false, &y->attend.prefix, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attn.c_attn", 3 * C, C, true, &y->qkv, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attn.c_proj", C, C, true, &y->out, err));
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".ln_2", C, C, true, &y->norm2, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.c_fc", F, C, true, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.c_proj", C, F, true, &y->down, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));
    y->scale = (l->scaled ? 1 / sqrt((double)m->head_dim) : 1) / (l->by_layer ? i + 1 : 1);
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status gpt2_open(pf_model *m, peft_error *err) {
    gpt2 *l = PF_NEW(&m->arena, gpt2);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, gpt2_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(pf_model_add_embedding_and_head(m, "transformer.wte", "lm_head", false, err));
    PF_TRY(pf_model_add_site(m, PF_SITE_POSITIONS, -1, "transformer.wpe", m->max_positions,
                             m->hidden, false, &l->positions, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "transformer.ln_f", m->hidden, m->hidden, true,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const gpt2_layer *y, pf_value *x,
                             pf_value **out, peft_error *err) {
    const int64_t C = m->hidden;
    const pf_split_args thirds = {.periods = 1, .n = 3, .width = {C, C, C}};
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_heads,
                              .head_dim = m->head_dim,
                              .scale = y->scale};
    pf_value *qkv, *part[3], *o;
    PF_TRY(pf_site_linear(b, x, y->qkv, &qkv, err));
    PF_TRY(pf_split(b->graph, y->qkv->name, qkv, &thirds, part, err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, part[0], part[1], part[2], &args, &o, err));
    return pf_site_linear(b, o, y->out, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const gpt2_layer *y, pf_value **h,
                               peft_error *err) {
    const gpt2 *l = m->family_cfg;
    pf_value *n, *branch; // (T,C)
    PF_TRY(pf_site_layer_norm(b, *h, y->norm1, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->residual_dropout,
                         y->out->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    PF_TRY(pf_site_layer_norm(b, *h, y->norm2, l->eps, 0, &n, err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->residual_dropout, y->down->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status gpt2_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const gpt2 *l = m->family_cfg;
    pf_value *h, *positions; // (T,C)
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_positions(b, l->positions, PF_SPACE_TOKENS, 0, &positions, err));
    PF_TRY(pf_add(b->graph, l->positions->name, h, positions, &h, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_EMBEDDING, -1, l->embedding_dropout, m->embedding->name, &h,
                         err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_gpt2 = {
    .name = "gpt2",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .transposed_linears = true,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward, .norms = norms},
    .token_head = "classifier",
    .open = gpt2_open,
    .build = gpt2_build,
};
