/* gemma.c - Gemma 1, Gemma 2 and the text part of Gemma 3.
 *
 * (Gemma Team 2024, arXiv 2403.08295 and 2408.00118; 2025, arXiv 2503.19786.) The body is
 * nn/decoder.h's: RMS norms that multiply by 1 + w, a gated MLP with gelu_pytorch_tanh, heads of a
 * width of their own; embeddings are multiplied by sqrt(hidden).
 *
 *   Gemma 1  a norm before each branch
 *   Gemma 2  norms before and behind; scores and logits capped; every second layer has a window;
 *            scores are scaled by query_pre_attn_scalar
 *   Gemma 3  as Gemma 2 without caps; q and k normed per head; five layers with a window and a RoPE
 *            of their own to one without
 *
 * Names and defaults are those of transformers' configuration_gemma*.py. A scale of embeddings is
 * rounded to their type, as there: 55.5 for a bfloat16 Gemma 7B, which is what it was trained with.
 * Of Gemma3ForConditionalGeneration the language model alone is used. */
#include "base/log.h"
#include "nn/decoder.h"
#include "ops/activation/activation.h"
#include "text/json.h"

#include <math.h>

typedef enum version { GEMMA_1 = 1, GEMMA_2, GEMMA_3 } version;

typedef struct member {
    const char *architecture;
    version version;
    bool nested; /* sizes are in text_config, names begin with model.language_model */
    pf_decoder_defaults missing;
} member;

// clang-format off
static const member members[] = {
    {"GemmaForCausalLM",                GEMMA_1, false, {16, 256, 8192,   1e-6, true, "hidden_act",        "gelu_pytorch_tanh"}},
    {"Gemma2ForCausalLM",               GEMMA_2, false, {4,  256, 8192,   1e-6, true, "hidden_activation", "gelu_pytorch_tanh"}},
    {"Gemma3ForCausalLM",               GEMMA_3, false, {4,  256, 131072, 1e-6, true, "hidden_activation", "gelu_pytorch_tanh"}},
    {"Gemma3ForConditionalGeneration",  GEMMA_3, true,  {4,  256, 131072, 1e-6, true, "hidden_activation", "gelu_pytorch_tanh"}},
};
// clang-format on

static const char *const architectures[] = {"GemmaForCausalLM", "Gemma2ForCausalLM",
                                            "Gemma3ForCausalLM", "Gemma3ForConditionalGeneration",
                                            NULL};
static const char *const model_types[] = {"gemma", "gemma2", "gemma3_text", "gemma3", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", NULL};
static const char *const ia3[] = {"q_proj", "v_proj", "down_proj", NULL};
static const char *const ia3_feedforward[] = {"down_proj", NULL};
static const char *const norms_1[] = {"input_layernorm", "post_attention_layernorm", "norm", NULL};
static const char *const norms_2[] = {"input_layernorm",
                                      "post_attention_layernorm",
                                      "pre_feedforward_layernorm",
                                      "post_feedforward_layernorm",
                                      "norm",
                                      NULL};

/* Files of transformers 4, and those that transformers 5 writes, name the language model first. */
static const char *const old_names[] = {"model.language_model.", "language_model.model.",
                                        "lm_head.", "language_model.lm_head.", NULL};
static const char *const other_parts[] = {"vision_tower.", "multi_modal_projector.", NULL};

typedef struct gemma {
    const member *is;
    const json_t *config; /* the text part */
    pf_decoder body;
} gemma;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status find_member(pf_model *m, gemma *g, peft_error *err) {
    for (size_t i = 0; i < PF_COUNT(members); i++) {
        if (pf_streq(members[i].architecture, m->architecture)) g->is = &members[i];
    }
    g->config = m->config;
    if (!g->is->nested) return PEFT_OK;
    PF_INFO("%s: the language model of %s is used, images are not", m->config_path,
            m->architecture);
    return pf_json_get_object(m->config, m->config_path, "text_config", &g->config, err);
}

static peft_status refuse_bidirectional(const pf_model *m, const gemma *g, peft_error *err) {
    if (!json_is_true(json_object_get(g->config, "use_bidirectional_attention"))) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: use_bidirectional_attention is not supported for %s", m->config_path,
                   m->architecture);
}

/* A cap; null or a missing key without a default is none. */
static peft_status read_cap(const pf_model *m, const gemma *g, const char *key, double def,
                            double *cap, peft_error *err) {
    if (json_is_null(json_object_get(g->config, key))) def = 0;
    PF_TRY(pf_json_opt_real(g->config, m->config_path, key, def, cap, err));
    if (*cap >= 0 && isfinite(*cap)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be a positive number or null",
                   m->config_path, key, *cap);
}

static peft_status read_shape(pf_model *m, const gemma *g, pf_decoder_shape *s, peft_error *err) {
    double scalar = (double)m->head_dim;
    bool bias;
    PF_TRY(pf_json_opt_bool(g->config, m->config_path, "attention_bias", false, &bias, err));
    s->qkv_bias = s->o_bias = bias;
    s->norm_offset = 1;
    s->attention_norm = "input_layernorm";
    s->mlp_norm = "post_attention_layernorm";
    if (g->is->version > GEMMA_1) {
        s->attention_post_norm = "post_attention_layernorm";
        s->mlp_norm = "pre_feedforward_layernorm";
        s->mlp_post_norm = "post_feedforward_layernorm";
        PF_TRY(pf_json_opt_real(g->config, m->config_path, "query_pre_attn_scalar", 256, &scalar,
                                err));
    }
    if (!(scalar > 0 && isfinite(scalar))) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: query_pre_attn_scalar is %g; it should be a positive number",
                       m->config_path, scalar);
    }
    s->scale = 1 / sqrt(scalar);
    if (g->is->version == GEMMA_3) s->qk_norm = PF_QK_NORM_HEADS;
    if (g->is->version == GEMMA_2)
        PF_TRY(read_cap(m, g, "attn_logit_softcapping", 50, &s->softcap, err));
    s->root = g->is->nested ? "model.language_model" : "model";
    return PEFT_OK;
}

/* ---- RoPE ------------------------------------------------------------------------------------ */

/* The RoPE of one type of layers. transformers 5 has rope_parameters.<type>; transformers 4 said
 * rope_theta and rope_scaling of the full layers and rope_local_base_freq of the others. */
static peft_status read_rope_of(const pf_model *m, const gemma *g, const char *type,
                                const char *theta_key, double theta, bool scaling,
                                pf_rope_spec *out, peft_error *err) {
    const json_t *all, *own = NULL;
    PF_TRY(pf_json_opt_object(g->config, m->config_path, "rope_parameters", &all, err));
    if (all != NULL) PF_TRY(pf_json_opt_object(all, m->config_path, type, &own, err));
    PF_TRY(pf_json_opt_real(g->config, m->config_path, theta_key, theta, &theta, err));
    json_t *one = json_object();
    PF_CHECK_ALLOC(one, err);
    json_t *scaled = scaling ? json_object_get(g->config, "rope_scaling") : NULL;
    if (own != NULL) json_object_set(one, "rope_parameters", (json_t *)(uintptr_t)own);
    if (own == NULL && scaled != NULL) json_object_set(one, "rope_scaling", scaled);
    peft_status status =
        pf_rope_spec_read(out, one, m->config_path, m->head_dim, m->max_positions, theta, err);
    json_decref(one);
    return status;
}

static peft_status read_ropes(pf_model *m, gemma *g, pf_rope_spec *local, peft_error *err) {
    if (g->is->version < GEMMA_3) {
        return pf_rope_spec_read(&m->rope, g->config, m->config_path, m->head_dim, m->max_positions,
                                 1e4, err);
    }
    PF_TRY(read_rope_of(m, g, "full_attention", "rope_theta", 1e6, true, &m->rope, err));
    return read_rope_of(m, g, "sliding_attention", "rope_local_base_freq", 1e4, false, local, err);
}

/* ---- layers ---------------------------------------------------------------------------------- */

static peft_status read_layers(pf_model *m, gemma *g, const pf_rope_spec *local, peft_error *err) {
    int64_t window, pattern = 2;
    bool sliding;
    if (g->is->version == GEMMA_1) return PEFT_OK;
    PF_TRY(pf_decoder_read_window(m, g->config, 4096, &window, err));
    if (g->is->version == GEMMA_3) {
        PF_TRY(pf_json_opt_int(g->config, m->config_path, "sliding_window_pattern", 6, 1, INT32_MAX,
                               &pattern, err));
        g->body.rope[1] = *local;
        g->body.n_ropes = 2;
    }
    for (int i = 0; i < m->n_layers; i++) {
        pf_decoder_layer *y = &g->body.layers[i];
        PF_TRY(pf_decoder_is_sliding(m, g->config, i, (i + 1) % pattern != 0, &sliding, err));
        y->attention.window = sliding ? window : 0;
        y->rope = sliding && g->is->version == GEMMA_3 ? 1 : 0;
    }
    return PEFT_OK;
}

static double rounded_to(pf_dtype type, double x) {
    unsigned char bytes[4];
    float f = (float)x;
    pf_dtype_from_f32(type, &f, 1, bytes);
    pf_dtype_to_f32(type, bytes, 1, &f);
    return (double)f;
}

static peft_status gemma_open(pf_model *m, peft_error *err) {
    gemma *g = PF_NEW(&m->arena, gemma);
    PF_CHECK_ALLOC(g, err);
    m->family_cfg = g;
    PF_TRY(find_member(m, g, err));
    PF_TRY(refuse_bidirectional(m, g, err));
    m->usual.norms = g->is->version == GEMMA_1 ? norms_1 : norms_2;

    pf_decoder_shape s = {0};
    pf_decoder_defaults missing = g->is->missing;
    const char *act = json_string_value(json_object_get(g->config, missing.act_key));
    PF_TRY(pf_decoder_read_sizes(m, g->config, &missing, &s, err));
    /* The first configs said gelu and meant its approximation. */
    if (g->is->version == GEMMA_1 && pf_streq(act, "gelu")) s.act = &pf_op_gelu_tanh;
    if (g->is->nested) /* beside text_config */
        PF_TRY(pf_json_opt_bool(m->config, m->config_path, "tie_word_embeddings", true,
                                &m->tie_word_embeddings, err));
    PF_TRY(read_shape(m, g, &s, err));
    pf_rope_spec local;
    PF_TRY(read_ropes(m, g, &local, err));
    PF_TRY(pf_decoder_open(m, &g->body, &s, "lm_head", err));
    PF_TRY(read_layers(m, g, &local, err));

    const pf_dtype type = m->embedding->weight != NULL ? m->embedding->weight->dtype : PF_DTYPE_F32;
    m->embedding->scale = rounded_to(type, sqrt((double)m->hidden));
    if (g->is->nested || g->is->version == GEMMA_1) return PEFT_OK;
    return read_cap(m, g, "final_logit_softcapping", g->is->version == GEMMA_2 ? 30 : 0,
                    &m->head->softcap, err);
}

static peft_status gemma_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const gemma *g = m->family_cfg;
    return pf_decoder_build(m, b, &g->body, hidden, err);
}

const pf_model_family pf_model_family_gemma = {
    .name = "gemma",
    .architectures = architectures,
    .model_types = model_types,
    .old_names = old_names,
    .other_parts = other_parts,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward},
    .open = gemma_open,
    .build = gemma_build,
};
