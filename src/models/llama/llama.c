/* llama.c - the LLaMA family: Llama 1 to 3.x, Mistral, Qwen2 and 2.5, Qwen3, SmolLM 1 to 3.
 *
 *   h = embed(ids)
 *   for each layer:  h = h + attention(norm(h));  h = h + down(silu(gate(n)) * up(n)), n = norm(h)
 *   norm(h) -> head
 *
 * (Touvron et al. 2023, arXiv 2302.13971; pre-norm RMSNorm, RoPE, SwiGLU, grouped heads.) The
 * members differ in a few switches: which projections have a bias, whether q and k are normed per
 * head, which layers have a sliding window, which see no positions, and what a missing key of
 * config.json means. Each is a row in `members`; the rest of the file is one model. Names and
 * defaults are those of transformers' configuration_<model_type>.py. */
#include "nn/base_dropout.h"
#include "nn/layers.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

#define MAX_WIDTH (1 << 20) /* far beyond any model; keeps products of sizes inside 64 bits */

typedef enum window_rule {
    WINDOW_NONE,
    WINDOW_ALL,     /* every layer, when sliding_window is a number (Mistral) */
    WINDOW_BY_LAYER /* use_sliding_window, layer_types, max_window_layers */
} window_rule;

typedef enum qkv_bias {
    BIAS_NEVER,
    BIAS_BY_CONFIG,
    BIAS_QKV
} qkv_bias; /* by config: attention_bias, o_proj too */

typedef struct member {
    const char *architecture, *model_type;
    qkv_bias attention_bias;
    bool mlp_bias; /* by the config's mlp_bias */
    bool qk_norm;
    window_rule window;
    bool nope; /* no_rope_layers, no_rope_layer_interval */
    /* what a key means that config.json does not have */
    int64_t n_kv_heads; /* 0: n_heads */
    int64_t head_dim;   /* 0: hidden / n_heads */
    int64_t sliding_window;
    double rope_theta;
    bool tie;
    const char *const *usual_ia3, *const *usual_norms;
} member;

static const char *const ia3_kv[] = {"k_proj", "v_proj", "down_proj", NULL};
static const char *const ia3_qv[] = {"q_proj", "v_proj", "down_proj", NULL};
static const char *const ia3_feedforward[] = {"down_proj", NULL};
static const char *const all_norms[] = {"input_layernorm", "post_attention_layernorm", "norm",
                                        NULL};
static const char *const mlp_norms[] = {"post_attention_layernorm", NULL};

// clang-format off
static const member members[] = {
    {"LlamaForCausalLM",   "llama",   BIAS_BY_CONFIG, true,  false, WINDOW_NONE,     false, 0,  0,   0,    1e4, false, ia3_kv, all_norms},
    {"MistralForCausalLM", "mistral", BIAS_NEVER,     false, false, WINDOW_ALL,      false, 8,  0,   4096, 1e4, false, ia3_kv, all_norms},
    {"Qwen2ForCausalLM",   "qwen2",   BIAS_QKV,       false, false, WINDOW_BY_LAYER, false, 32, 0,   4096, 1e4, false, ia3_qv, mlp_norms},
    {"Qwen3ForCausalLM",   "qwen3",   BIAS_BY_CONFIG, false, true,  WINDOW_BY_LAYER, false, 32, 128, 4096, 1e4, false, ia3_qv, mlp_norms},
    {"SmolLM3ForCausalLM", "smollm3", BIAS_BY_CONFIG, true,  false, WINDOW_BY_LAYER, true,  4,  0,   0,    2e6, true, ia3_kv, all_norms},
};
// clang-format on

static const char *const architectures[] = {"LlamaForCausalLM",   "MistralForCausalLM",
                                            "Qwen2ForCausalLM",   "Qwen3ForCausalLM",
                                            "SmolLM3ForCausalLM", NULL};
static const char *const model_types[] = {"llama", "mistral", "qwen2", "qwen3", "smollm3", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", NULL};

typedef struct llama_layer {
    pf_site *input_norm, *post_attention_norm, *gate, *up, *down;
    pf_attention_layer attention;
    pf_block_sites at;
} llama_layer;

typedef struct llama {
    const member *is;
    int64_t intermediate;
    double eps, attention_dropout;
    bool attention_bias, mlp_bias;
    llama_layer *layers;
    pf_site *embedded, *norm;
} llama;

/* ---- config.json ----------------------------------------------------------------------------- */

static const member *find_member(const char *architecture) {
    for (size_t i = 0; i < PF_COUNT(members); i++) {
        if (pf_streq(members[i].architecture, architecture)) return &members[i];
    }
    return NULL;
}

static peft_status read_heads(pf_model *m, const member *is, peft_error *err) {
    const char *where = m->config_path;
    int64_t n, kv_default = is->n_kv_heads;
    PF_TRY(pf_json_get_int(m->config, where, "num_attention_heads", 1, 65536, &m->n_heads, err));
    /* null means as many as heads; a missing key the class default */
    if (kv_default == 0 || json_is_null(json_object_get(m->config, "num_key_value_heads")))
        kv_default = m->n_heads;
    PF_TRY(pf_json_opt_int(m->config, where, "num_key_value_heads", kv_default, 1, 65536,
                           &m->n_kv_heads, err));
    if (m->n_heads % m->n_kv_heads != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: num_attention_heads %lld is no multiple of num_key_value_heads %lld",
                       where, (long long)m->n_heads, (long long)m->n_kv_heads);
    }
    n = is->head_dim != 0 ? is->head_dim : m->hidden / m->n_heads;
    PF_TRY(pf_json_opt_int(m->config, where, "head_dim", n, 1, 65536, &m->head_dim, err));
    if (json_object_get(m->config, "head_dim") == NULL && is->head_dim == 0 &&
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

static peft_status read_config(pf_model *m, llama *l, peft_error *err) {
    const json_t *c = m->config;
    const char *where = m->config_path, *act;
    int64_t n_layers;
    PF_TRY(pf_json_get_int(c, where, "hidden_size", 1, MAX_WIDTH, &m->hidden, err));
    PF_TRY(pf_json_get_int(c, where, "vocab_size", 1, INT32_MAX, &m->vocab, err));
    PF_TRY(pf_json_get_int(c, where, "num_hidden_layers", 1, 10000, &n_layers, err));
    PF_TRY(pf_json_get_int(c, where, "intermediate_size", 1, 4 * MAX_WIDTH, &l->intermediate, err));
    PF_TRY(pf_json_opt_int(c, where, "max_position_embeddings", 2048, 1, INT32_MAX,
                           &m->max_positions, err));
    PF_TRY(pf_json_opt_real(c, where, "rms_norm_eps", 1e-6, &l->eps, err));
    PF_TRY(pf_json_opt_bool(c, where, "tie_word_embeddings", l->is->tie, &m->tie_word_embeddings,
                            err));
    m->n_layers = (int)n_layers;
    PF_TRY(read_heads(m, l->is, err));

    PF_TRY(pf_json_opt_str(c, where, "hidden_act", "silu", &act, err));
    if (!pf_streq(act, "silu") && !pf_streq(act, "swish")) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: hidden_act '%s' is not supported for %s; silu is", where, act,
                       m->architecture);
    }
    if (!(l->eps >= 0 && isfinite(l->eps))) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: rms_norm_eps is %g; it should be a small positive number", where,
                       l->eps);
    }
    l->attention_bias = l->is->attention_bias == BIAS_QKV;
    if (l->is->attention_bias == BIAS_BY_CONFIG) {
        PF_TRY(pf_json_opt_bool(c, where, "attention_bias", false, &l->attention_bias, err));
    }
    if (l->is->mlp_bias) PF_TRY(pf_json_opt_bool(c, where, "mlp_bias", false, &l->mlp_bias, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_dropout", 0, &l->attention_dropout, err));

    PF_TRY(pf_rope_spec_read(&m->rope, c, where, m->head_dim, m->max_positions, l->is->rope_theta,
                             err));
    if (m->rope.dim != m->head_dim) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: partial_rotary_factor %g is not a thing of %s",
                       where, m->rope.partial, m->architecture);
    }
    return PEFT_OK;
}

/* Does layer i see positions? SmolLM3 leaves them out in every fourth layer. */
static peft_status read_nope(const pf_model *m, const llama *l, int i, bool *rope,
                             peft_error *err) {
    *rope = true;
    if (!l->is->nope) return PEFT_OK;
    const json_t *list;
    int64_t interval;
    PF_TRY(pf_json_opt_array(m->config, m->config_path, "no_rope_layers", &list, err));
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "no_rope_layer_interval", 4, 1, INT32_MAX,
                           &interval, err));
    if (list == NULL) {
        *rope = (i + 1) % interval != 0;
        return PEFT_OK;
    }
    const json_t *v = json_array_get(list, (size_t)i);
    if (!json_is_integer(v) && !json_is_boolean(v)) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: no_rope_layers should have a number (0 or 1) for each of %d layers",
                       m->config_path, m->n_layers);
    }
    *rope = json_is_true(v) || json_integer_value(v) != 0;
    return PEFT_OK;
}

/* The sliding window of layer i, 0 for none. */
static peft_status read_window(const pf_model *m, const llama *l, int i, bool rope, int64_t *window,
                               peft_error *err) {
    const json_t *c = m->config, *kinds;
    const char *where = m->config_path;
    bool use, sliding;
    int64_t first, def = l->is->sliding_window;
    *window = 0;
    if (l->is->window == WINDOW_NONE) return PEFT_OK;
    if (json_is_null(json_object_get(c, "sliding_window"))) def = 0;
    PF_TRY(pf_json_opt_int(c, where, "sliding_window", def, 1, INT32_MAX, window, err));
    if (l->is->window == WINDOW_ALL || *window == 0) return PEFT_OK;

    PF_TRY(pf_json_opt_bool(c, where, "use_sliding_window", false, &use, err));
    PF_TRY(pf_json_opt_array(c, where, "layer_types", &kinds, err));
    PF_TRY(pf_json_opt_int(c, where, "max_window_layers", 28, 0, INT32_MAX, &first, err));
    sliding = l->is->nope ? !rope : i >= first;
    if (kinds != NULL) {
        const char *kind = json_string_value(json_array_get(kinds, (size_t)i));
        sliding = pf_streq(kind, "sliding_attention");
        if (!sliding && !pf_streq(kind, "full_attention")) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: layer_types should have full_attention or sliding_attention for "
                           "each of %d layers, "
                           "layer %d has '%s'",
                           where, m->n_layers, i, kind == NULL ? "nothing" : kind);
        }
    }
    if (!use || !sliding) *window = 0;
    return PEFT_OK;
}

/* ---- sites ----------------------------------------------------------------------------------- */

typedef struct place {
    pf_model *m;
    int layer;
} place;

static peft_status add(place p, pf_site_kind kind, const char *part, int64_t out_dim,
                       int64_t in_dim, bool bias, pf_site **site, peft_error *err) {
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d%s", p.layer, part);
    return pf_model_add_site(p.m, kind, p.layer, name, out_dim, in_dim, bias, site, err);
}

static peft_status open_layer(pf_model *m, llama *l, int i, peft_error *err) {
    const place p = {m, i};
    llama_layer *y = &l->layers[i];
    pf_attention_layer *a = &y->attention;
    const int64_t C = m->hidden, F = l->intermediate, D = m->head_dim;
    const int64_t q_dim = m->n_heads * D, kv_dim = m->n_kv_heads * D;
    const bool o_bias = l->attention_bias && l->is->attention_bias == BIAS_BY_CONFIG;

    PF_TRY(add(p, PF_SITE_NORM, ".input_layernorm", C, C, false, &y->input_norm, err));
    PF_TRY(add(p, PF_SITE_ATTENTION_PREFIX, ".self_attn", kv_dim, kv_dim, false, &a->prefix, err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".self_attn.q_proj", q_dim, C, l->attention_bias, &a->q, err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".self_attn.k_proj", kv_dim, C, l->attention_bias, &a->k, err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".self_attn.v_proj", kv_dim, C, l->attention_bias, &a->v, err));
    if (l->is->qk_norm) {
        PF_TRY(add(p, PF_SITE_NORM, ".self_attn.q_norm", D, D, false, &a->q_norm, err));
        PF_TRY(add(p, PF_SITE_NORM, ".self_attn.k_norm", D, D, false, &a->k_norm, err));
    }
    PF_TRY(add(p, PF_SITE_LINEAR, ".self_attn.o_proj", C, q_dim, o_bias, &a->o, err));
    PF_TRY(add(p, PF_SITE_NORM, ".post_attention_layernorm", C, C, false, &y->post_attention_norm,
               err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".mlp.gate_proj", F, C, l->mlp_bias, &y->gate, err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".mlp.up_proj", F, C, l->mlp_bias, &y->up, err));
    PF_TRY(add(p, PF_SITE_LINEAR, ".mlp.down_proj", C, F, l->mlp_bias, &y->down, err));
    char block[64];
    snprintf(block, sizeof block, "model.layers.%d", i);
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));

    a->name = a->prefix->name;
    a->layer = i;
    a->n_heads = m->n_heads;
    a->n_kv_heads = m->n_kv_heads;
    a->head_dim = D;
    a->scale = 1 / sqrt((double)D);
    a->norm_eps = l->eps;
    a->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    PF_TRY(read_nope(m, l, i, &a->rope, err));
    return read_window(m, l, i, a->rope, &a->window, err);
}

static peft_status llama_open(pf_model *m, peft_error *err) {
    llama *l = PF_NEW(&m->arena, llama);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    l->is = find_member(m->architecture);
    m->usual = (pf_usual_targets){
        .ia3 = l->is->usual_ia3, .ia3_feedforward = ia3_feedforward, .norms = l->is->usual_norms};
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, llama_layer, m->n_layers);
    PF_CHECK_ALLOC(l->layers, err);
    PF_TRY(pf_model_add_embedding_and_head(m, "model.embed_tokens", "lm_head", false, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return pf_model_add_site(m, PF_SITE_NORM, -1, "model.norm", m->hidden, m->hidden, false,
                             &l->norm, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status build_layer(pf_build *b, const llama *l, const llama_layer *y, pf_value *table,
                               pf_value **h, peft_error *err) {
    pf_value *n, *branch;
    PF_TRY(pf_site_rms_norm(b, *h, y->input_norm, l->eps, 0, &n, err));
    PF_TRY(pf_layer_attention(b, &y->attention, n, table, &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));

    PF_TRY(pf_site_rms_norm(b, *h, y->post_attention_norm, l->eps, 0, &n, err));
    PF_TRY(pf_layer_gated_mlp(b, y->gate, y->up, y->down, n, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status llama_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const llama *l = m->family_cfg;
    pf_value *h, *table; // (T,C), (T,D)
    PF_TRY(pf_layer_rope_table(b, &m->rope, &table, err));
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(b, l, &l->layers[i], table, &h, err));
        pf_graph_block_end(b->graph);
    }
    return pf_site_rms_norm(b, h, l->norm, l->eps, 0, hidden, err);
}

const pf_model_family pf_model_family_llama = {
    .name = "llama",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = llama_open,
    .build = llama_build,
};
