/* phi3.c - Phi-3, Phi-3.5 and Phi-4 (the language models).
 *
 * (Abdin et al. 2024, arXiv 2404.14219.) nn/decoder.h's body with q, k and v in one projection,
 * gate and up in another; RoPE over a part of a head, LongRoPE in the models for long contexts; a
 * window in every layer where the config has one. Both fused projections are one site each under
 * Hugging Face's names, and an adapter acts on them whole. Names and defaults are those of
 * transformers' configuration_phi3.py. */
#include "nn/base_dropout.h"
#include "nn/decoder.h"
#include "text/json.h"

static const char *const architectures[] = {"Phi3ForCausalLM", NULL};
static const char *const model_types[] = {"phi3", NULL};
static const char *const default_targets[] = {NULL};

static const pf_decoder_defaults missing = {
    .max_positions = 4096, .eps = 1e-5, .act_key = "hidden_act", .act = "silu"};

static peft_status phi3_open(pf_model *m, peft_error *err) {
    int64_t window;
    pf_decoder *d = PF_NEW(&m->arena, pf_decoder);
    PF_CHECK_ALLOC(d, err);
    m->family_cfg = d;
    pf_decoder_shape s = {.root = "model",
                          .fused_qkv = true,
                          .fused_gate_up = true,
                          .attention_norm = "input_layernorm",
                          .mlp_norm = "post_attention_layernorm"};
    PF_TRY(pf_decoder_read_sizes(m, m->config, &missing, &s, err));
    /* embd_pdrop is a key that transformers does not read */
    PF_TRY(pf_model_read_dropout(m, m->config, "resid_pdrop", 0, &s.branch_dropout, err));
    PF_TRY(pf_decoder_read_window(m, m->config, 0, &window, err));
    /* a number that the class has by itself; LongRoPE takes its factor from it */
    if (!json_is_number(json_object_get(m->config, "original_max_position_embeddings")) &&
        json_object_set_new(m->config, "original_max_position_embeddings", json_integer(4096)) != 0)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    PF_TRY(pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                             1e4, err));
    PF_TRY(pf_decoder_open(m, d, &s, "lm_head", err));
    for (int i = 0; i < m->n_layers; i++) d->layers[i].attention.window = window;
    return PEFT_OK;
}

static peft_status phi3_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    return pf_decoder_build(m, b, m->family_cfg, hidden, err);
}

const pf_model_family pf_model_family_phi3 = {
    .name = "phi3",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = phi3_open,
    .build = phi3_build,
};
