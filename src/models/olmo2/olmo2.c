/* olmo2.c - OLMo 2 (OLMo Team 2025, arXiv 2501.00656).
 *
 * nn/decoder.h's body with its norms behind the branches, where they keep the stream from growing:
 * h + norm(attention(h)), h + norm(mlp(h)). q and k are normed over all heads together. Names and
 * defaults are those of transformers' configuration_olmo2.py. */
#include "nn/decoder.h"
#include "text/json.h"

static const char *const architectures[] = {"Olmo2ForCausalLM", NULL};
static const char *const model_types[] = {"olmo2", NULL};
static const char *const default_targets[] = {NULL};

static const pf_decoder_defaults missing = {
    .max_positions = 2048, .eps = 1e-5, .act_key = "hidden_act", .act = "silu"};

static peft_status olmo2_open(pf_model *m, peft_error *err) {
    pf_decoder *d = PF_NEW(&m->arena, pf_decoder);
    PF_CHECK_ALLOC(d, err);
    m->family_cfg = d;
    pf_decoder_shape s = {.root = "model",
                          .qk_norm = PF_QK_NORM_WHOLE,
                          .attention_post_norm = "post_attention_layernorm",
                          .mlp_post_norm = "post_feedforward_layernorm"};
    PF_TRY(pf_decoder_read_sizes(m, m->config, &missing, &s, err));
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "attention_bias", false, &s.qkv_bias, err));
    s.o_bias = s.qkv_bias;
    PF_TRY(pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                             1e4, err));
    return pf_decoder_open(m, d, &s, "lm_head", err);
}

static peft_status olmo2_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    return pf_decoder_build(m, b, m->family_cfg, hidden, err);
}

const pf_model_family pf_model_family_olmo2 = {
    .name = "olmo2",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = olmo2_open,
    .build = olmo2_build,
};
