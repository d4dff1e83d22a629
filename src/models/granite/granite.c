/* granite.c - Granite 3.x (the dense language models).
 *
 * The LLaMA body (nn/decoder.h) with four numbers that keep its parts at one size whatever the
 * width (Yang et al. 2022, arXiv 2203.03466): embeddings times embedding_multiplier, scores times
 * attention_multiplier, branches times residual_multiplier, logits divided by logits_scaling. Names
 * and defaults are those of transformers' configuration_granite.py. */
#include "nn/decoder.h"
#include "text/json.h"

#include <math.h>

static const char *const architectures[] = {"GraniteForCausalLM", NULL};
static const char *const model_types[] = {"granite", NULL};
static const char *const default_targets[] = {NULL};

static const pf_decoder_defaults missing = {
    .max_positions = 2048, .eps = 1e-6, .act_key = "hidden_act", .act = "silu"};

static peft_status read_multiplier(const pf_model *m, const char *key, double *out,
                                   peft_error *err) {
    PF_TRY(pf_json_opt_real(m->config, m->config_path, key, 1, out, err));
    if (*out > 0 && isfinite(*out)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be a positive number",
                   m->config_path, key, *out);
}

static peft_status granite_open(pf_model *m, peft_error *err) {
    double embedding, logits;
    pf_decoder *d = PF_NEW(&m->arena, pf_decoder);
    PF_CHECK_ALLOC(d, err);
    m->family_cfg = d;
    pf_decoder_shape s = {.root = "model",
                          .attention_norm = "input_layernorm",
                          .mlp_norm = "post_attention_layernorm"};
    PF_TRY(pf_decoder_read_sizes(m, m->config, &missing, &s, err));
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "attention_bias", false, &s.qkv_bias, err));
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "mlp_bias", false, &s.mlp_bias, err));
    s.o_bias = s.qkv_bias;
    PF_TRY(read_multiplier(m, "embedding_multiplier", &embedding, err));
    PF_TRY(read_multiplier(m, "attention_multiplier", &s.scale, err));
    PF_TRY(read_multiplier(m, "residual_multiplier", &s.residual, err));
    PF_TRY(read_multiplier(m, "logits_scaling", &logits, err));
    PF_TRY(pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                             1e4, err));
    PF_TRY(pf_decoder_open(m, d, &s, "lm_head", err));
    m->embedding->scale = embedding;
    m->embedding->scales_prompt = true;
    m->head->scale = 1 / logits;
    return PEFT_OK;
}

static peft_status granite_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    return pf_decoder_build(m, b, m->family_cfg, hidden, err);
}

const pf_model_family pf_model_family_granite = {
    .name = "granite",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = granite_open,
    .build = granite_build,
};
