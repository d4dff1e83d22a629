/* t5.c - T5, T5 v1.1, FLAN-T5 and mT5: an encoder, and a decoder that looks at it.
 *
 *   encoder:  h = embed(source);  for each block:  h = h + attention(norm(h)), both ways
 *                                                  h = h + mlp(norm(h));           e = norm(h)
 *   decoder:  h = embed(tokens);  for each block:  h = h + attention(norm(h)), causal
 *                                                  h = h + cross attention(norm(h), e)
 *                                                  h = h + mlp(norm(h))
 *   norm(h) -> head
 *
 * (Raffel et al. 2020, arXiv 1910.10683; Xue et al. 2021, arXiv 2010.11934.) RMS norms before each
 * branch, no biases, scores that are not scaled, and in place of positions a table of biases by
 * bucket of distances, which the first block of each stack has and all blocks of the stack read.
 * The first version has a plain relu MLP, and its head, which is the embedding, sees rows times
 * d_model^-0.5; later ones have gated MLPs and a head of their own, unscaled. Names and defaults
 * are those of transformers' configuration_t5.py and configuration_mt5.py.
 *
 * Encoder rows are those of PF_SPACE_SOURCE, decoder rows those of PF_SPACE_TOKENS
 * (docs/internals/engine.md). dropout_rate is that of every place, attention too. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/activation/activation.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_BUCKETS = 4096 };

static const char *const architectures[] = {"T5ForConditionalGeneration",
                                            "MT5ForConditionalGeneration", NULL};
static const char *const model_types[] = {"t5", "mt5", NULL};
static const char *const default_targets[] = {"q", "v", NULL};
static const char *const old_names[] = {"shared.", "encoder.embed_tokens.", NULL};
static const char *const ia3_t5[] = {"k", "v", "wo", NULL}, *const ia3_t5_forward[] = {"wo", NULL};
static const char *const ia3_mt5[] = {"k", "v", "wi_1", NULL}, *const ia3_mt5_forward[] = {NULL};
static const char *const norms[] = {"layer_norm", "final_layer_norm", NULL};

typedef struct t5_attention {
    const char *name;
    pf_site *norm, *q, *k, *v, *o;
    pf_site *prefix; /* of the decoder's self-attention */
} t5_attention;

typedef struct t5_block {
    t5_attention self, cross;             /* the latter of the decoder only */
    pf_site *mlp_norm, *gate, *up, *down; /* gate: NULL in a plain MLP */
    pf_block_sites at;
} t5_block;

typedef struct t5_stack {
    const char *name; /* "encoder" */
    bool decoder;
    int n_blocks;
    t5_block *blocks;
    pf_site *bias, *norm;
    pf_site *embedded; /* of the encoder */
} t5_stack;

typedef struct t5 {
    bool gated;
    int64_t inner, intermediate, buckets, max_distance;
    double eps, dropout;
    const pf_op *act;
    t5_stack encoder, decoder;
} t5;

/* ---- config.json ----------------------------------------------------------------------------- */

/* "relu", "gated-gelu", "gated-silu" */
static peft_status read_mlp(const pf_model *m, t5 *l, bool mt5, peft_error *err) {
    const char *proj, *name;
    PF_TRY(pf_json_opt_str(m->config, m->config_path, "feed_forward_proj",
                           mt5 ? "gated-gelu" : "relu", &proj, err));
    l->gated = pf_starts_with(proj, "gated-");
    name = l->gated ? proj + strlen("gated-") : proj;
    if (pf_streq(proj, "gated-gelu")) name = "gelu_new";
    l->act = pf_activation_find(name);
    if (l->act != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: feed_forward_proj '%s' is not supported; relu, gelu, silu and gated-gelu, "
                   "gated-relu, gated-silu are",
                   m->config_path, proj);
}

static peft_status read_config(pf_model *m, t5 *l, bool mt5, peft_error *err) {
    const json_t *c = m->config;
    const char *where = m->config_path;
    int64_t n, start, pad;
    bool tied;
    PF_TRY(pf_json_get_int(c, where, "d_model", 1, 1 << 20, &m->hidden, err));
    PF_TRY(pf_json_get_int(c, where, "num_layers", 1, 10000, &n, err));
    l->encoder.n_blocks = (int)n;
    PF_TRY(pf_json_opt_int(c, where, "num_decoder_layers", n, 1, 10000, &n, err));
    l->decoder.n_blocks = (int)n;
    PF_TRY(pf_json_get_int(c, where, "num_heads", 1, 65536, &m->n_heads, err));
    PF_TRY(pf_json_opt_int(c, where, "d_kv", 64, 1, 65536, &m->head_dim, err));
    PF_TRY(pf_json_get_int(c, where, "vocab_size", 1, INT32_MAX, &m->vocab, err));
    PF_TRY(pf_model_read_width(m, "d_ff", mt5 ? 1024 : 2048, &l->intermediate, err));
    PF_TRY(pf_json_opt_real(c, where, "layer_norm_epsilon", 1e-6, &l->eps, err));
    PF_TRY(pf_json_opt_int(c, where, "relative_attention_num_buckets", 32, 4, MOST_BUCKETS,
                           &l->buckets, err));
    PF_TRY(pf_json_opt_int(c, where, "relative_attention_max_distance", 128, 1, INT32_MAX,
                           &l->max_distance, err));
    PF_TRY(pf_json_opt_int(c, where, "pad_token_id", 0, 0, m->vocab - 1, &pad, err));
    PF_TRY(pf_json_opt_int(c, where, "decoder_start_token_id", pad, 0, m->vocab - 1, &start, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", true, &tied, err));
    PF_TRY(read_mlp(m, l, mt5, err));
    if (!(l->eps >= 0 && isfinite(l->eps)))
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: layer_norm_epsilon is %g; it should be a small positive number", where,
                       l->eps);
    if (l->max_distance <= l->buckets / 2)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: relative_attention_max_distance %lld should be larger than half of "
                       "relative_attention_num_buckets %lld",
                       where, (long long)l->max_distance, (long long)l->buckets);
    PF_TRY(pf_model_read_dropout(m, c, "dropout_rate", 0.1, &l->dropout, err));
    l->inner = m->n_heads * m->head_dim;
    m->n_layers =
        l->encoder.n_blocks > l->decoder.n_blocks ? l->encoder.n_blocks : l->decoder.n_blocks;
    m->n_kv_heads = m->n_heads;
    m->max_positions = 0; /* distances beyond the largest bucket are all alike */
    m->encoder_decoder = true;
    m->decoder_start = (int32_t)start;
    /* without a head in the files it is the embedding, whatever the key says (transformers 5) */
    m->tie_word_embeddings =
        tied || (m->files != NULL && !pf_model_has_tensor(m, "lm_head.weight"));
    return PEFT_OK;
}

/* T5 scales the head's rows unless the config says that embedding and head are two. */
static peft_status read_scale(const pf_model *m, bool mt5, double *scale, peft_error *err) {
    bool tied, scales;
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "tie_word_embeddings", true, &tied, err));
    PF_TRY(
        pf_json_opt_bool(m->config, m->config_path, "scale_decoder_outputs", tied, &scales, err));
    *scale = scales && !mt5 ? 1 / sqrt((double)m->hidden) : 0;
    return PEFT_OK;
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status open_attention(const pf_model *m, const t5 *l, pf_place p, const char *layer,
                                  const char *module, t5_attention *a, peft_error *err) {
    static const char *const parts[3] = {".q", ".k", ".v"};
    pf_site **const sites[3] = {&a->q, &a->k, &a->v};
    const int64_t C = m->hidden;
    char part[64];
    snprintf(part, sizeof part, "%s.layer_norm", layer);
    PF_TRY(pf_place_add(p, PF_SITE_NORM, part, C, C, false, &a->norm, err));
    for (int i = 0; i < 3; i++) {
        snprintf(part, sizeof part, "%s.%s%s", layer, module, parts[i]);
        PF_TRY(pf_place_add(p, PF_SITE_LINEAR, part, l->inner, C, false, sites[i], err));
    }
    snprintf(part, sizeof part, "%s.%s.o", layer, module);
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, part, C, l->inner, false, &a->o, err));
    a->name = pf_arena_printf(&p.m->arena, "%s%s.%s", p.path, layer, module);
    PF_CHECK_ALLOC(a->name, err);
    return PEFT_OK;
}

static peft_status open_mlp(const pf_model *m, const t5 *l, pf_place p, const char *layer,
                            t5_block *y, peft_error *err) {
    const int64_t C = m->hidden, F = l->intermediate;
    char part[64];
    snprintf(part, sizeof part, "%s.layer_norm", layer);
    PF_TRY(pf_place_add(p, PF_SITE_NORM, part, C, C, false, &y->mlp_norm, err));
    if (l->gated) {
        snprintf(part, sizeof part, "%s.DenseReluDense.wi_0", layer);
        PF_TRY(pf_place_add(p, PF_SITE_LINEAR, part, F, C, false, &y->gate, err));
    }
    snprintf(part, sizeof part, "%s.DenseReluDense.%s", layer, l->gated ? "wi_1" : "wi");
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, part, F, C, false, &y->up, err));
    snprintf(part, sizeof part, "%s.DenseReluDense.wo", layer);
    return pf_place_add(p, PF_SITE_LINEAR, part, C, F, false, &y->down, err);
}

static peft_status open_block(pf_model *m, const t5 *l, t5_stack *s, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "%s.block.%d", s->name, i);
    const pf_place p = {m, i, block};
    t5_block *y = &s->blocks[i];
    PF_TRY(open_attention(m, l, p, ".layer.0", "SelfAttention", &y->self, err));
    if (s->decoder)
        PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".layer.0.SelfAttention", l->inner,
                            l->inner, false, &y->self.prefix, err));
    if (i == 0) {
        PF_TRY(pf_place_add(p, PF_SITE_POSITION_BIAS,
                            ".layer.0.SelfAttention.relative_attention_bias", l->buckets,
                            m->n_heads, false, &s->bias, err));
    }
    if (s->decoder) PF_TRY(open_attention(m, l, p, ".layer.1", "EncDecAttention", &y->cross, err));
    PF_TRY(open_mlp(m, l, p, s->decoder ? ".layer.2" : ".layer.1", y, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));
    if (s->decoder) PF_TRY(pf_model_add_cross_output(m, block, &y->at, err));
    PF_TRY(pf_model_set_join_module(m, y->at.attention, block, ".layer.0", err));
    if (s->decoder) PF_TRY(pf_model_set_join_module(m, y->at.cross, block, ".layer.1", err));
    return pf_model_set_join_module(m, y->at.mlp, block, s->decoder ? ".layer.2" : ".layer.1", err);
}

static peft_status open_stack(pf_model *m, const t5 *l, t5_stack *s, peft_error *err) {
    char name[64];
    s->blocks = PF_NEW_ARRAY(&m->arena, t5_block, s->n_blocks);
    PF_CHECK_ALLOC(s->blocks, err);
    if (!s->decoder)
        PF_TRY(pf_model_add_site(m, PF_SITE_EMBEDDING_OUTPUT, -1, "encoder.embed_tokens.output",
                                 m->hidden, m->hidden, false, &s->embedded, err));
    for (int i = 0; i < s->n_blocks; i++) PF_TRY(open_block(m, l, s, i, err));
    snprintf(name, sizeof name, "%s.final_layer_norm", s->name);
    return pf_model_add_site(m, PF_SITE_NORM, -1, name, m->hidden, m->hidden, false, &s->norm, err);
}

static peft_status t5_open(pf_model *m, peft_error *err) {
    const bool mt5 = pf_streq(m->architecture, "MT5ForConditionalGeneration");
    t5 *l = PF_NEW(&m->arena, t5);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    l->encoder = (t5_stack){.name = "encoder"};
    l->decoder = (t5_stack){.name = "decoder", .decoder = true};
    PF_TRY(read_config(m, l, mt5, err));
    PF_TRY(pf_model_add_embedding_and_head(m, "shared", "lm_head", false, err));
    PF_TRY(read_scale(m, mt5, &m->head->scale, err));
    m->tie_says_scale = !mt5;
    PF_TRY(pf_model_embedding_alias(m, "encoder.embed_tokens.weight", err));
    PF_TRY(pf_model_embedding_alias(m, "decoder.embed_tokens.weight", err));
    PF_TRY(open_stack(m, l, &l->encoder, err));
    PF_TRY(open_stack(m, l, &l->decoder, err));
    m->usual =
        mt5 ? (pf_usual_targets){.ia3 = ia3_mt5, .ia3_feedforward = ia3_mt5_forward, .norms = norms}
            : (pf_usual_targets){.ia3 = ia3_t5, .ia3_feedforward = ia3_t5_forward, .norms = norms};
    return PEFT_OK;
}

/* ---- the model ------------------------------------------------------------------------------- */

typedef struct stack_build {
    const pf_model *m;
    const t5 *l;
    const t5_stack *s;
    pf_value *bias;   /* (buckets, H) */
    pf_value *source; /* (S, C): what the encoder made; NULL in the encoder */
} stack_build;

/* A place of dropout in this stack. */
static int place_of(const stack_build *k, pf_drop_place place) {
    return place + (k->s->decoder ? 0 : PF_DROP_ENCODER);
}

static peft_status drop(const stack_build *k, pf_build *b, pf_drop_place place, int layer,
                        const char *name, pf_value **x, peft_error *err) {
    return pf_model_drop(k->m, b, place_of(k, place), layer, k->l->dropout, name, x, err);
}

static void drop_scores(const stack_build *k, const pf_build *b, pf_drop_kind kind, int layer,
                        pf_attention_args *args) {
    const pf_drop_args dropout = pf_model_attention_drop(k->m, kind, layer, k->l->dropout);
    pf_attention_drop(b, &dropout, args);
}

/* The decoder's may begin with a learned prefix, and go on with what it stored. */
static peft_status self_attention(const stack_build *k, pf_build *b, const t5_attention *a,
                                  int layer, pf_value *x, pf_value **y, peft_error *err) {
    const pf_attend at = {
        .name = a->name, .layer = k->s->decoder ? layer : -1, .prefix = a->prefix, .bias = k->bias};
    pf_value *qkv[3], *o;
    pf_attention_args args = {.n_heads = k->m->n_heads,
                              .n_kv_heads = k->m->n_heads,
                              .head_dim = k->m->head_dim,
                              .scale = 1,
                              .bidirectional = !k->s->decoder,
                              .bias_buckets = k->l->buckets,
                              .bias_max_distance = k->l->max_distance};
    drop_scores(k, b, k->s->decoder ? PF_DROP_SELF : PF_DROP_SELF_ENCODER, layer, &args);
    PF_TRY(pf_site_linears(b, x, (pf_site *[]){a->q, a->k, a->v}, 3, qkv, err));
    PF_TRY(pf_layer_attend(b, &at, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, a->o, y, err);
}

/* While generating, keys and values of the source are stored by the pass in which it stands, and
 * read from there, in this pass and in all later ones. */
static peft_status cross_attention(const stack_build *k, pf_build *b, const t5_attention *a,
                                   int layer, pf_value *x, pf_value **y, peft_error *err) {
    const bool cached = b->mode == PF_BUILD_GENERATE;
    pf_value *q, *kv[2], *o;
    pf_attention_args args = {.n_heads = k->m->n_heads,
                              .n_kv_heads = k->m->n_heads,
                              .head_dim = k->m->head_dim,
                              .scale = 1,
                              .cross = true};
    drop_scores(k, b, PF_DROP_OVER_SOURCE, layer, &args);
    PF_TRY(pf_site_linear(b, x, a->q, &q, err));
    PF_TRY(pf_site_linears(b, k->source, (pf_site *[]){a->k, a->v}, 2, kv, err));
    if (cached) {
        pf_value *cache[2] = {b->cross_k[layer], b->cross_v[layer]};
        PF_TRY(pf_kv_store(b->graph, a->name, kv[0], kv[1], cache[0], cache[1], err));
        PF_TRY(pf_attention_cross(b->graph, a->name, q, cache[0], cache[1], &args, &o, err));
    } else {
        PF_TRY(pf_attention_cross(b->graph, a->name, q, kv[0], kv[1], &args, &o, err));
    }
    return pf_site_linear(b, o, a->o, y, err);
}

/* down(drop(act(up(x)))), down(drop(act(gate(x)) up(x))) */
static peft_status mlp(const stack_build *k, pf_build *b, const t5_block *y, int layer, pf_value *x,
                       pf_value **out, peft_error *err) {
    const t5 *l = k->l;
    pf_value *gu[2], *h;
    if (l->gated) {
        PF_TRY(pf_site_linears(b, x, (pf_site *[]){y->gate, y->up}, 2, gu, err));
        PF_TRY(pf_activation(b->graph, l->act, y->gate->name, gu[0], &h, err));
        PF_TRY(pf_mul(b->graph, y->up->name, h, gu[1], &h, err));
    } else {
        PF_TRY(pf_site_linear(b, x, y->up, &h, err));
        PF_TRY(pf_activation(b->graph, l->act, y->up->name, h, &h, err));
    }
    PF_TRY(drop(k, b, PF_DROP_INNER, layer, y->down->name, &h, err));
    return pf_site_linear(b, h, y->down, out, err);
}

static peft_status build_block(const stack_build *k, pf_build *b, int i, pf_value **h,
                               peft_error *err) {
    const t5_block *y = &k->s->blocks[i];
    pf_value *n, *branch;
    PF_TRY(pf_site_rms_norm(b, *h, y->self.norm, k->l->eps, 0, &n, err));
    PF_TRY(self_attention(k, b, &y->self, i, n, &branch, err));
    PF_TRY(drop(k, b, PF_DROP_ATTENTION, i, y->self.o->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    if (k->s->decoder) {
        PF_TRY(pf_site_rms_norm(b, *h, y->cross.norm, k->l->eps, 0, &n, err));
        PF_TRY(cross_attention(k, b, &y->cross, i, n, &branch, err));
        PF_TRY(drop(k, b, PF_DROP_CROSS, i, y->cross.o->name, &branch, err));
        PF_TRY(pf_site_join(b, y->at.cross, *h, branch, h, err));
    }
    PF_TRY(pf_site_rms_norm(b, *h, y->mlp_norm, k->l->eps, 0, &n, err));
    PF_TRY(mlp(k, b, y, i, n, &branch, err));
    PF_TRY(drop(k, b, PF_DROP_MLP, i, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status build_stack(stack_build *k, pf_build *b, pf_value **h, peft_error *err) {
    const pf_space space = k->s->decoder ? PF_SPACE_TOKENS : PF_SPACE_SOURCE;
    PF_TRY(pf_site_embed_rows(b, k->m->embedding, space, h, err));
    PF_TRY(drop(k, b, PF_DROP_EMBEDDING, -1, k->m->embedding->name, h, err));
    if (k->s->embedded != NULL) PF_TRY(pf_site_embedding_output(b, k->s->embedded, h, err));
    PF_TRY(pf_site_weight(b, k->s->bias, &k->bias, err));
    for (int i = 0; i < k->s->n_blocks; i++) {
        pf_graph_block_begin(b->graph, i, *h);
        PF_TRY(build_block(k, b, i, h, err));
        pf_graph_block_end(b->graph);
    }
    PF_TRY(pf_site_rms_norm(b, *h, k->s->norm, k->l->eps, 0, h, err));
    return drop(k, b, PF_DROP_NORM, -1, k->s->norm->name, h, err);
}

static peft_status t5_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const t5 *l = m->family_cfg;
    stack_build encoder = {.m = m, .l = l, .s = &l->encoder},
                decoder = {.m = m, .l = l, .s = &l->decoder};
    PF_TRY(build_stack(&encoder, b, &decoder.source, err));
    return build_stack(&decoder, b, hidden, err);
}

const pf_model_family pf_model_family_t5 = {
    .name = "t5",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .default_targets = default_targets,
    .tasks = 1u << PF_TASK_SEQ_2_SEQ_LM,
    .open = t5_open,
    .build = t5_build,
};
