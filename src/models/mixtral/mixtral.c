/* mixtral.c - Mixtral (Jiang et al. 2024, arXiv 2401.04088).
 *
 * nn/decoder.h's body whose MLPs are mixtures of experts: a row goes to the num_experts_per_tok
 * experts with the largest probabilities, weighted by those, normalized. Sites are named as in the
 * files, block_sparse_moe.experts.N.w1 (gate), .w3 (up), .w2 (down), and .gate, the router: one
 * linear layer per expert, as transformers 4 had them and as peft's adapters store them.
 * (transformers 5 holds all experts of a layer in one tensor; it and peft convert files from this
 * layout and back.) Names and defaults are those of transformers' configuration_mixtral.py. */
#include "base/log.h"
#include "nn/decoder.h"
#include "text/json.h"

static const char *const architectures[] = {"MixtralForCausalLM", NULL};
static const char *const model_types[] = {"mixtral", NULL};
static const char *const default_targets[] = {"q_proj", "v_proj", NULL};
static const char *const ia3[] = {"k_proj", "v_proj", "w2", NULL};
static const char *const ia3_feedforward[] = {"w2", NULL};
static const pf_decoder_defaults missing = {
    .n_kv_heads = 8, .max_positions = 131072, .eps = 1e-5, .act_key = "hidden_act", .act = "silu"};

static peft_status read_experts(const pf_model *m, pf_moe_shape *s, peft_error *err) {
    int64_t n, k;
    double jitter;
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "num_local_experts", 8, 1, 4096, &n, err));
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "num_experts_per_tok", 2, 1, n, &k, err));
    PF_TRY(pf_json_opt_real(m->config, m->config_path, "router_jitter_noise", 0, &jitter, err));
    if (jitter != 0)
        PF_WARN("%s: router_jitter_noise %g is not applied while training", m->config_path, jitter);
    s->n_experts = (int)n;
    s->top_k = (int)k;
    return pf_decoder_read_router_loss(m, m->config, 0.001, s, err);
}

static peft_status mixtral_open(pf_model *m, peft_error *err) {
    int64_t window;
    pf_decoder *d = PF_NEW(&m->arena, pf_decoder);
    pf_moe_shape *experts = PF_NEW(&m->arena, pf_moe_shape);
    PF_CHECK_ALLOC(d, err);
    PF_CHECK_ALLOC(experts, err);
    m->family_cfg = d;
    *experts = (pf_moe_shape){
        .path = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2", .normalize = true};
    pf_decoder_shape s = {.root = "model",
                          .attention_norm = "input_layernorm",
                          .mlp_norm = "post_attention_layernorm",
                          .moe = experts};
    PF_TRY(pf_decoder_read_sizes(m, m->config, &missing, &s, err));
    PF_TRY(read_experts(m, experts, err));
    experts->width = s.intermediate;
    PF_TRY(pf_decoder_read_window(m, m->config, 0, &window, err));
    PF_TRY(pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                             1e6, err));
    PF_TRY(pf_decoder_open(m, d, &s, "lm_head", err));
    for (int i = 0; i < m->n_layers; i++) d->layers[i].attention.window = window;
    return PEFT_OK;
}

static peft_status mixtral_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    return pf_decoder_build(m, b, m->family_cfg, hidden, err);
}

const pf_model_family pf_model_family_mixtral = {
    .name = "mixtral",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward},
    .open = mixtral_open,
    .build = mixtral_build,
};
