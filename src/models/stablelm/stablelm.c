/* stablelm.c - StableLM 2 and StableLM 3B 4E1T, Stable Code.
 *
 *   h = embed(ids)
 *   for each layer:  h = h + attention(norm1(h));  h = h + mlp(norm2(h))
 *              or:   n = norm(h);  h = h + attention(n) + mlp(n)             use_parallel_residual
 *   norm(h) -> head
 *
 * (Bellagente et al. 2024, arXiv 2402.17834.) LayerNorm, RoPE on a part of a head's columns, a
 * gated MLP. qk_layernorm gives every head of q and k a norm of its own. Names and defaults are
 * those of transformers' configuration_stablelm.py. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/attention/rope.h"
#include "ops/shape/split.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

#define MAX_HEAD_NORMS (1 << 16) /* of a model; the 12B has 1600 */

static const char *const architectures[] = {"StableLmForCausalLM", NULL};
static const char *const model_types[] = {"stablelm", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", NULL};

typedef struct stablelm_layer {
    pf_site *input_norm, *post_attention_norm; /* the latter NULL: parallel */
    pf_site *q, *k, *v, *o;
    pf_gated_mlp mlp;
    pf_site **q_norms, **k_norms; /* per head; NULL: none */
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} stablelm_layer;

typedef struct stablelm {
    int64_t intermediate;
    double eps, attention_dropout, dropout;
    bool parallel, qkv_bias, qk_norm;
    const pf_op *act;
    stablelm_layer *layers;
    pf_site *embedded, *norm;
} stablelm;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_config(pf_model *m, stablelm *l, peft_error *err) {
    static const pf_rope_defaults rope = {1e4, 0.25, "rope_theta", "partial_rotary_factor"};
    const json_t *c = m->config;
    const char *where = m->config_path;
    PF_TRY(pf_model_read_sizes(m, &pf_usual_size_keys, err));
    PF_TRY(pf_model_read_kv_heads(m, "num_key_value_heads", err));
    PF_TRY(pf_model_read_width(m, "intermediate_size", 0, &l->intermediate, err));
    PF_TRY(pf_model_read_eps(m, "layer_norm_eps", &l->eps, err));
    PF_TRY(pf_model_read_activation(m, "hidden_act", "silu", &l->act, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_parallel_residual", false, &l->parallel, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_qkv_bias", false, &l->qkv_bias, err));
    PF_TRY(pf_json_opt_bool(c, where, "qk_layernorm", false, &l->qk_norm, err));
    if (l->qk_norm && m->n_heads * m->n_layers > MAX_HEAD_NORMS) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: %d layers with a norm for each of %lld heads are more than this "
                       "program can hold",
                       where, m->n_layers, (long long)m->n_heads);
    }
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", false, &m->tie_word_embeddings, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "hidden_dropout", 0, &l->dropout, err));
    PF_TRY(pf_model_read_head_dropout(m, l->dropout, err));
    return pf_rope_spec_read_as(&m->rope, c, where, m->head_dim, m->max_positions, &rope, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_head_norms(const pf_place p, const char *part, int64_t n, pf_site ***out,
                                   peft_error *err) {
    const int64_t D = p.m->head_dim;
    pf_site **norms = PF_NEW_ARRAY(&p.m->arena, pf_site *, n);
    PF_CHECK_ALLOC(norms, err);
    for (int64_t h = 0; h < n; h++) {
        char name[64];
        snprintf(name, sizeof name, ".self_attn.%s.norms.%d", part, (int)h);
        PF_TRY(pf_place_add(p, PF_SITE_NORM, name, D, D, false, &norms[h], err));
    }
    *out = norms;
    return PEFT_OK;
}

static peft_status open_layer(pf_model *m, stablelm *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "model.layers.%d", i);
    const pf_place p = {m, i, block};
    stablelm_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate, KV = m->n_kv_heads * m->head_dim;
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".input_layernorm", C, C, true, &y->input_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".self_attn", KV, KV, false, &y->attend.prefix,
                        err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.q_proj", C, C, l->qkv_bias, &y->q, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.k_proj", KV, C, l->qkv_bias, &y->k, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.v_proj", KV, C, l->qkv_bias, &y->v, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".self_attn.o_proj", C, C, false, &y->o, err));
    if (l->qk_norm) {
        PF_TRY(open_head_norms(p, "q_layernorm", m->n_heads, &y->q_norms, err));
        PF_TRY(open_head_norms(p, "k_layernorm", m->n_kv_heads, &y->k_norms, err));
    }
    if (!l->parallel) {
        PF_TRY(pf_place_add(p, PF_SITE_NORM, ".post_attention_layernorm", C, C, true,
                            &y->post_attention_norm, err));
    }
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.gate_proj", F, C, false, &y->mlp.gate, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.up_proj", F, C, false, &y->mlp.up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".mlp.down_proj", C, F, false, &y->mlp.down, err));
    y->mlp.act = l->act;
    PF_TRY(pf_model_add_block_sites(m, i, block, l->parallel, &y->at, err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status stablelm_open(pf_model *m, peft_error *err) {
    stablelm *l = PF_NEW(&m->arena, stablelm);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, stablelm_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(pf_model_add_embedding_and_head(m, "model.embed_tokens", "lm_head", false, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "model.norm", m->hidden, m->hidden, true,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

/* A norm of its own for each of n heads: the columns are dealt out, PF_SPLIT_MAX parts at a time,
 * and joined again. */
static peft_status norm_heads(pf_build *b, pf_site *const *norms, int64_t n, int64_t D, double eps,
                              pf_value **x, peft_error *err) {
    pf_split_args parts = {.periods = 1};
    pf_value *part[PF_SPLIT_MAX];
    const char *name = norms[0]->name;
    if (n == 1) return pf_site_layer_norm(b, *x, norms[0], eps, 0, x, err);
    const int64_t each = (n + PF_SPLIT_MAX - 1) / PF_SPLIT_MAX; /* heads of a part */
    for (int64_t h = 0; h < n; h += each)
        parts.width[parts.n++] = (n - h < each ? n - h : each) * D;
    PF_TRY(pf_split(b->graph, name, *x, &parts, part, err));
    for (int i = 0; i < parts.n; i++)
        PF_TRY(norm_heads(b, norms + i * each, parts.width[i] / D, D, eps, &part[i], err));
    return pf_join(b->graph, name, part, &parts, x, err);
}

static peft_status attention(const pf_model *m, pf_build *b, const stablelm_layer *y, pf_value *x,
                             pf_value *table, pf_value **out, peft_error *err) {
    const stablelm *l = m->family_cfg;
    const int64_t D = m->head_dim;
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_kv_heads,
                              .head_dim = D,
                              .scale = 1 / sqrt((double)D)};
    pf_value *qkv[3], *o;
    PF_TRY(pf_site_linears(b, x, (pf_site *[]){y->q, y->k, y->v}, 3, qkv, err));
    if (l->qk_norm) {
        PF_TRY(norm_heads(b, y->q_norms, m->n_heads, D, l->eps, &qkv[0], err));
        PF_TRY(norm_heads(b, y->k_norms, m->n_kv_heads, D, l->eps, &qkv[1], err));
    }
    for (int i = 0; i < 2; i++)
        PF_TRY(pf_rope(b->graph, y->attend.name, qkv[i], table, D, &qkv[i], err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, y->o, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const stablelm_layer *y,
                               pf_value *table, pf_value **h, peft_error *err) {
    const stablelm *l = m->family_cfg;
    pf_value *n, *branch; // (T,C)
    PF_TRY(pf_site_layer_norm(b, *h, y->input_norm, l->eps, 0, &n, err));
    PF_TRY(attention(m, b, y, n, table, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    if (!l->parallel) PF_TRY(pf_site_layer_norm(b, *h, y->post_attention_norm, l->eps, 0, &n, err));
    PF_TRY(pf_layer_gated_mlp_of(b, &y->mlp, n, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->mlp.down->name, &branch,
                         err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status stablelm_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const stablelm *l = m->family_cfg;
    pf_value *h, *table; // (T,C), (T,D)
    PF_TRY(pf_layer_rope_table(b, &m->rope, &table, err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], table, &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_layer_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_stablelm = {
    .name = "stablelm",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = stablelm_open,
    .build = stablelm_build,
};
