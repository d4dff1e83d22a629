/* decoder.c - reading, opening and building the body of RMS-norm families; see decoder.h. */
#include "nn/decoder.h"

#include "nn/base_dropout.h"
#include "ops/activation/activation.h"
#include "ops/activation/scale.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

#define MAX_WIDTH (1 << 20) /* far beyond any model; keeps products of sizes inside 64 bits */

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_heads(pf_model *m, const json_t *c, const pf_decoder_defaults *def,
                              peft_error *err) {
    const char *where = m->config_path;
    int64_t kv = def->n_kv_heads, n;
    PF_TRY(pf_json_get_int(c, where, "num_attention_heads", 1, 65536, &m->n_heads, err));
    /* null means as many as heads; a missing key the class default */
    if (kv == 0 || json_is_null(json_object_get(c, "num_key_value_heads"))) kv = m->n_heads;
    PF_TRY(pf_json_opt_int(c, where, "num_key_value_heads", kv, 1, 65536, &m->n_kv_heads, err));
    if (m->n_heads % m->n_kv_heads != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld",
                       where, (long long)m->n_heads, (long long)m->n_kv_heads);
    }
    n = def->head_dim != 0 ? def->head_dim : m->hidden / m->n_heads;
    if (n == 0) n = 1;
    PF_TRY(pf_json_opt_int(c, where, "head_dim", n, 1, 65536, &m->head_dim, err));
    if (!json_is_number(json_object_get(c, "head_dim")) && def->head_dim == 0 &&
        m->hidden % m->n_heads != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: hidden_size %lld is no multiple of num_attention_heads %lld, and there "
                       "is no head_dim",
                       where, (long long)m->hidden, (long long)m->n_heads);
    }
    if (m->n_heads * m->head_dim > 4 * MAX_WIDTH) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: %lld heads of head_dim %lld are more than this program can index",
                       where, (long long)m->n_heads, (long long)m->head_dim);
    }
    return PEFT_OK;
}

static peft_status read_activation(const pf_model *m, const json_t *c,
                                   const pf_decoder_defaults *def, pf_decoder_shape *s,
                                   peft_error *err) {
    const char *act;
    PF_TRY(pf_json_opt_str(c, m->config_path, def->act_key, def->act, &act, err));
    s->act = pf_activation_find(act);
    if (s->act != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: %s '%s' is not supported for %s; %s is",
                   m->config_path, def->act_key, act, m->architecture, def->act);
}

peft_status pf_decoder_read_sizes(pf_model *m, const json_t *c, const pf_decoder_defaults *def,
                                  pf_decoder_shape *s, peft_error *err) {
    const char *where = m->config_path;
    int64_t n_layers;
    PF_TRY(pf_json_get_int(c, where, "hidden_size", 1, MAX_WIDTH, &m->hidden, err));
    PF_TRY(pf_json_get_int(c, where, "vocab_size", 1, INT32_MAX, &m->vocab, err));
    PF_TRY(pf_json_get_int(c, where, "num_hidden_layers", 1, 10000, &n_layers, err));
    PF_TRY(pf_json_get_int(c, where, "intermediate_size", 1, 4 * MAX_WIDTH, &s->intermediate, err));
    PF_TRY(pf_json_opt_int(c, where, "max_position_embeddings", def->max_positions, 1, INT32_MAX,
                           &m->max_positions, err));
    PF_TRY(pf_json_opt_real(c, where, "rms_norm_eps", def->eps, &s->eps, err));
    if (!(s->eps >= 0 && isfinite(s->eps))) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: rms_norm_eps is %g; it should be a small positive number", where,
                       s->eps);
    }
    PF_TRY(
        pf_json_opt_bool(c, where, "tie_word_embeddings", def->tie, &m->tie_word_embeddings, err));
    m->n_layers = (int)n_layers;
    PF_TRY(read_heads(m, c, def, err));
    PF_TRY(read_activation(m, c, def, s, err));
    return pf_model_read_dropout(m, c, "attention_dropout", 0, &s->attention_dropout, err);
}

peft_status pf_decoder_is_sliding(const pf_model *m, const json_t *c, int i, bool def,
                                  bool *sliding, peft_error *err) {
    const json_t *kinds;
    PF_TRY(pf_json_opt_array(c, m->config_path, "layer_types", &kinds, err));
    *sliding = def;
    if (kinds == NULL) return PEFT_OK;
    const char *kind = json_string_value(json_array_get(kinds, (size_t)i));
    *sliding = pf_streq(kind, "sliding_attention");
    if (*sliding || pf_streq(kind, "full_attention")) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: layer_types should have full_attention or sliding_attention for each of %d "
                   "layers, layer %d has '%s'",
                   m->config_path, m->n_layers, i, kind == NULL ? "nothing" : kind);
}

peft_status pf_decoder_read_window(const pf_model *m, const json_t *c, int64_t def, int64_t *window,
                                   peft_error *err) {
    if (json_is_null(json_object_get(c, "sliding_window"))) def = 0;
    return pf_json_opt_int(c, m->config_path, "sliding_window", def, 1, INT32_MAX, window, err);
}

peft_status pf_decoder_read_router_loss(const pf_model *m, const json_t *c, double def,
                                        pf_moe_shape *s, peft_error *err) {
    bool on;
    PF_TRY(pf_json_opt_bool(c, m->config_path, "output_router_logits", false, &on, err));
    PF_TRY(pf_json_opt_real(c, m->config_path, "router_aux_loss_coef", def, &s->aux_coef, err));
    if (!(s->aux_coef >= 0 && isfinite(s->aux_coef))) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: router_aux_loss_coef is %g; it should be a positive number, or 0",
                       m->config_path, s->aux_coef);
    }
    if (!on) s->aux_coef = 0;
    return PEFT_OK;
}

/* ---- sites ----------------------------------------------------------------------------------- */

typedef struct place {
    pf_model *m;
    const pf_decoder_shape *s;
    int layer;
} place;

static peft_status add(place p, pf_site_kind kind, const char *part, int64_t out_dim,
                       int64_t in_dim, bool bias, pf_site **site, peft_error *err) {
    char name[192];
    snprintf(name, sizeof name, "%s.layers.%d.%s", p.s->root, p.layer, part);
    return pf_model_add_site(p.m, kind, p.layer, name, out_dim, in_dim, bias, site, err);
}

/* A norm over n columns; NULL when it has no name. */
static peft_status add_norm(place p, const char *part, int64_t n, pf_site **site, peft_error *err) {
    *site = NULL;
    if (part == NULL) return PEFT_OK;
    PF_TRY(add(p, PF_SITE_NORM, part, n, n, false, site, err));
    (*site)->weight_offset = p.s->norm_offset;
    return PEFT_OK;
}

static peft_status open_attention(place p, pf_attention_layer *a, peft_error *err) {
    const pf_model *m = p.m;
    const pf_decoder_shape *s = p.s;
    const int64_t C = m->hidden, D = m->head_dim, Q = m->n_heads * D, KV = m->n_kv_heads * D;
    const bool whole = s->qk_norm == PF_QK_NORM_WHOLE;
    PF_TRY(add(p, PF_SITE_ATTENTION_PREFIX, "self_attn", KV, KV, false, &a->prefix, err));
    if (s->fused_qkv) {
        PF_TRY(
            add(p, PF_SITE_LINEAR, "self_attn.qkv_proj", Q + 2 * KV, C, s->qkv_bias, &a->qkv, err));
    } else {
        PF_TRY(add(p, PF_SITE_LINEAR, "self_attn.q_proj", Q, C, s->qkv_bias, &a->q, err));
        PF_TRY(add(p, PF_SITE_LINEAR, "self_attn.k_proj", KV, C, s->qkv_bias, &a->k, err));
        PF_TRY(add(p, PF_SITE_LINEAR, "self_attn.v_proj", KV, C, s->qkv_bias, &a->v, err));
    }
    if (s->qk_norm != PF_QK_NORM_NONE) {
        PF_TRY(add_norm(p, "self_attn.q_norm", whole ? Q : D, &a->q_norm, err));
        PF_TRY(add_norm(p, "self_attn.k_norm", whole ? KV : D, &a->k_norm, err));
    }
    PF_TRY(add(p, PF_SITE_LINEAR, "self_attn.o_proj", C, Q, s->o_bias, &a->o, err));
    a->name = a->prefix->name;
    a->layer = p.layer;
    a->n_heads = m->n_heads;
    a->n_kv_heads = m->n_kv_heads;
    a->head_dim = D;
    a->norm_whole = whole;
    a->norm_eps = s->eps;
    a->scale = s->scale != 0 ? s->scale : 1 / sqrt((double)D);
    a->softcap = s->softcap;
    a->rope = true;
    a->dropout = pf_model_attention_drop(m, PF_DROP_SELF, p.layer, s->attention_dropout);
    return PEFT_OK;
}

static peft_status open_mlp(place p, pf_gated_mlp *y, peft_error *err) {
    const pf_decoder_shape *s = p.s;
    const int64_t C = p.m->hidden, F = s->intermediate;
    y->act = s->act;
    if (s->fused_gate_up) {
        PF_TRY(add(p, PF_SITE_LINEAR, "mlp.gate_up_proj", 2 * F, C, s->mlp_bias, &y->gate_up, err));
    } else {
        PF_TRY(add(p, PF_SITE_LINEAR, "mlp.gate_proj", F, C, s->mlp_bias, &y->gate, err));
        PF_TRY(add(p, PF_SITE_LINEAR, "mlp.up_proj", F, C, s->mlp_bias, &y->up, err));
    }
    return add(p, PF_SITE_LINEAR, "mlp.down_proj", C, F, s->mlp_bias, &y->down, err);
}

/* gate, up and down under `path`. */
static peft_status open_expert(place p, const char *path, const char *const *names, int64_t F,
                               pf_gated_mlp *y, peft_error *err) {
    const int64_t C = p.m->hidden;
    char part[128];
    y->act = p.s->act;
    snprintf(part, sizeof part, "%s.%s", path, names[0]);
    PF_TRY(add(p, PF_SITE_LINEAR, part, F, C, false, &y->gate, err));
    snprintf(part, sizeof part, "%s.%s", path, names[1]);
    PF_TRY(add(p, PF_SITE_LINEAR, part, F, C, false, &y->up, err));
    snprintf(part, sizeof part, "%s.%s", path, names[2]);
    return add(p, PF_SITE_LINEAR, part, C, F, false, &y->down, err);
}

static peft_status open_moe(place p, pf_decoder_layer *y, peft_error *err) {
    const pf_moe_shape *s = p.s->moe;
    pf_moe_layer *l = &y->moe;
    const int64_t C = p.m->hidden;
    char part[96];
    l->n_experts = s->n_experts;
    l->top_k = s->top_k;
    l->normalize = s->normalize;
    l->experts = PF_NEW_ARRAY(&p.m->arena, pf_gated_mlp, s->n_experts);
    PF_CHECK_ALLOC(l->experts, err);
    snprintf(part, sizeof part, "%s.gate", s->path);
    PF_TRY(add(p, PF_SITE_LINEAR, part, s->n_experts, C, false, &l->router, err));
    for (int e = 0; e < s->n_experts; e++) {
        const char *const names[3] = {s->gate, s->up, s->down};
        snprintf(part, sizeof part, "%s.experts.%d", s->path, e);
        PF_TRY(open_expert(p, part, names, s->width, &l->experts[e], err));
    }
    if (s->shared_width == 0) return PEFT_OK;
    static const char *const names[3] = {"gate_proj", "up_proj", "down_proj"};
    snprintf(part, sizeof part, "%s.shared_expert", s->path);
    PF_TRY(open_expert(p, part, names, s->shared_width, &y->mlp, err));
    l->shared = &y->mlp;
    snprintf(part, sizeof part, "%s.shared_expert_gate", s->path);
    return add(p, PF_SITE_LINEAR, part, 1, C, false, &l->shared_gate, err);
}

static peft_status set_join_norm(place p, pf_site *at, pf_site *post, peft_error *err) {
    const pf_join_norm norm = {.site = post, .rms = true, .eps = p.s->eps};
    return post == NULL ? PEFT_OK : pf_model_set_join_norm(p.m, at, norm, err);
}

static peft_status open_layer(place p, pf_decoder_layer *y, peft_error *err) {
    const int64_t C = p.m->hidden;
    char block[160];
    PF_TRY(add_norm(p, p.s->attention_norm, C, &y->attention_norm, err));
    PF_TRY(open_attention(p, &y->attention, err));
    PF_TRY(add_norm(p, p.s->attention_post_norm, C, &y->attention_post_norm, err));
    PF_TRY(add_norm(p, p.s->mlp_norm, C, &y->mlp_norm, err));
    const pf_moe_shape *moe = p.s->moe;
    if (moe != NULL && (moe->sparse == NULL || moe->sparse[p.layer]))
        PF_TRY(open_moe(p, y, err));
    else
        PF_TRY(open_mlp(p, &y->mlp, err));
    PF_TRY(add_norm(p, p.s->mlp_post_norm, C, &y->mlp_post_norm, err));
    snprintf(block, sizeof block, "%s.layers.%d", p.s->root, p.layer);
    PF_TRY(pf_model_add_block_sites(p.m, p.layer, block, false, &y->at, err));
    PF_TRY(set_join_norm(p, y->at.attention, y->attention_post_norm, err));
    return set_join_norm(p, y->at.mlp, y->mlp_post_norm, err);
}

peft_status pf_decoder_open(pf_model *m, pf_decoder *d, const pf_decoder_shape *shape,
                            const char *head, peft_error *err) {
    char name[128];
    d->shape = *shape;
    m->router_loss = shape->moe != NULL && shape->moe->aux_coef > 0 && m->task == PF_TASK_CAUSAL_LM;
    d->rope[0] = m->rope;
    d->n_ropes = 1;
    d->layers = PF_NEW_ARRAY(&m->arena, pf_decoder_layer, m->n_layers);
    PF_CHECK_ALLOC(d->layers, err);
    snprintf(name, sizeof name, "%s.embed_tokens", shape->root);
    PF_TRY(pf_model_add_embedding_and_head(m, name, head, false, err));
    PF_TRY(pf_model_add_embedding_output(m, &d->embedded, err));
    for (int i = 0; i < m->n_layers; i++)
        PF_TRY(open_layer((place){m, &d->shape, i}, &d->layers[i], err));
    snprintf(name, sizeof name, "%s.norm", shape->root);
    PF_TRY(
        pf_model_add_site(m, PF_SITE_NORM, -1, name, m->hidden, m->hidden, false, &d->norm, err));
    d->norm->weight_offset = shape->norm_offset;
    return PEFT_OK;
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status norm(pf_build *b, const pf_decoder *d, pf_site *site, pf_value **x,
                        peft_error *err) {
    return site == NULL ? PEFT_OK : pf_site_rms_norm(b, *x, site, d->shape.eps, 0, x, err);
}

/* h = h + m drop(branch), or h + norm(drop(branch)) */
static peft_status join(const pf_model *model, pf_build *b, const pf_decoder *d, pf_site *at,
                        pf_value **h, pf_value *branch, peft_error *err) {
    const double m = d->shape.residual;
    const int where = at->kind == PF_SITE_MLP_OUTPUT ? PF_DROP_MLP : PF_DROP_ATTENTION;
    PF_TRY(
        pf_model_drop(model, b, where, at->layer, d->shape.branch_dropout, at->name, &branch, err));
    PF_TRY(pf_scale(b->graph, at->name, branch, m == 0 ? 1 : m, &branch, err));
    return pf_site_join(b, at, *h, branch, h, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const pf_decoder *d,
                               const pf_decoder_layer *y, pf_value *table, pf_value **h,
                               peft_error *err) {
    pf_value *x = *h, *branch;
    PF_TRY(norm(b, d, y->attention_norm, &x, err));
    PF_TRY(pf_layer_attention(b, &y->attention, x, table, &branch, err));
    PF_TRY(join(m, b, d, y->at.attention, h, branch, err));

    x = *h;
    PF_TRY(norm(b, d, y->mlp_norm, &x, err));
    if (y->moe.experts != NULL)
        PF_TRY(pf_layer_moe(b, &y->moe, x, &branch, &b->routes[b->n_routes++], err));
    else
        PF_TRY(pf_layer_gated_mlp_of(b, &y->mlp, x, &branch, err));
    PF_TRY(join(m, b, d, y->at.mlp, h, branch, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

peft_status pf_decoder_build(pf_model *m, pf_build *b, const pf_decoder *d, pf_value **hidden,
                             peft_error *err) {
    pf_value *h, *tables[2]; // (T,C), (T,D)
    b->routes = PF_NEW_ARRAY(&b->graph->arena, pf_routes, m->n_layers);
    PF_CHECK_ALLOC(b->routes, err);
    if (d->shape.moe != NULL) b->router_coef = d->shape.moe->aux_coef;
    for (int i = 0; i < d->n_ropes; i++)
        PF_TRY(pf_layer_rope_table(b, &d->rope[i], &tables[i], err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_embedding_output(b, d->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, d, &d->layers[i], tables[d->layers[i].rope], &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_rms_norm(b, h, d->norm, d->shape.eps, 0, hidden, err);
}
