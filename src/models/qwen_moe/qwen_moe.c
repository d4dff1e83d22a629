/* qwen_moe.c - Qwen1.5-MoE and Qwen2-MoE (Qwen2MoeForCausalLM), Qwen3-MoE (Qwen3MoeForCausalLM).
 *
 * nn/decoder.h's body with mixtures of experts in every decoder_sparse_step-th layer that is not in
 * mlp_only_layers. Qwen2-MoE has biases on q, k and v and an expert besides that every row goes
 * through, behind a gate; Qwen3-MoE norms q and k per head. (Yang et al. 2024, arXiv 2407.10671;
 * 2025, arXiv 2505.09388.) Sites are named as in the files, mlp.experts.N.gate_proj. Names and
 * defaults are those of transformers' configuration_qwen{2,3}_moe.py. */
#include "nn/decoder.h"
#include "text/json.h"

typedef struct member {
    const char *architecture;
    bool shared; /* an expert for every row */
    pf_qk_norm qk_norm;
    const char *bias_key;
    bool bias;
    int64_t n_experts, top_k, width;
    pf_decoder_defaults missing;
} member;

// clang-format off
static const member members[] = {
    {"Qwen2MoeForCausalLM", true,  PF_QK_NORM_NONE,  "qkv_bias",       true,  60,  4, 1408, {16, 0, 32768, 1e-6, false, "hidden_act", "silu"}},
    {"Qwen3MoeForCausalLM", false, PF_QK_NORM_HEADS, "attention_bias", false, 128, 8, 768,  {4,  0, 32768, 1e-6, false, "hidden_act", "silu"}},
};
// clang-format on

static const char *const architectures[] = {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM", NULL};
static const char *const model_types[] = {"qwen2_moe", "qwen3_moe", NULL};
static const char *const default_targets[] = {NULL};

typedef struct qwen_moe {
    const member *is;
    pf_moe_shape experts;
    pf_decoder body;
} qwen_moe;

/* ---- config.json ----------------------------------------------------------------------------- */

/* Which layers have experts. */
static peft_status read_sparse(pf_model *m, pf_moe_shape *s, peft_error *err) {
    const json_t *dense;
    int64_t step;
    bool *sparse = PF_NEW_ARRAY(&m->arena, bool, m->n_layers);
    PF_CHECK_ALLOC(sparse, err);
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "decoder_sparse_step", 1, 1, INT32_MAX, &step,
                           err));
    PF_TRY(pf_json_opt_array(m->config, m->config_path, "mlp_only_layers", &dense, err));
    for (int i = 0; i < m->n_layers; i++) sparse[i] = (i + 1) % step == 0;
    for (size_t k = 0; k < json_array_size(dense); k++) {
        const json_t *v = json_array_get(dense, k);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) >= m->n_layers) {
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s: mlp_only_layers should hold numbers of layers, 0 to %d",
                           m->config_path, m->n_layers - 1);
        }
        sparse[json_integer_value(v)] = false;
    }
    s->sparse = sparse;
    return PEFT_OK;
}

static peft_status read_experts(pf_model *m, qwen_moe *q, peft_error *err) {
    const char *where = m->config_path;
    pf_moe_shape *s = &q->experts;
    int64_t n = q->is->n_experts, k;
    *s = (pf_moe_shape){.path = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj"};
    PF_TRY(pf_json_opt_int(m->config, where, "num_local_experts", n, 1, 4096, &n, err));
    PF_TRY(pf_json_opt_int(m->config, where, "num_experts", n, 1, 4096, &n, err));
    PF_TRY(pf_json_opt_int(m->config, where, "num_experts_per_tok", q->is->top_k, 1, n, &k, err));
    PF_TRY(pf_json_opt_bool(m->config, where, "norm_topk_prob", false, &s->normalize, err));
    PF_TRY(pf_json_opt_int(m->config, where, "moe_intermediate_size", q->is->width, 1, 1 << 22,
                           &s->width, err));
    if (q->is->shared)
        PF_TRY(pf_json_opt_int(m->config, where, "shared_expert_intermediate_size", 5632, 1,
                               1 << 22, &s->shared_width, err));
    s->n_experts = (int)n;
    s->top_k = (int)k;
    PF_TRY(pf_decoder_read_router_loss(m, m->config, 0.001, s, err));
    return read_sparse(m, s, err);
}

/* Qwen2-MoE: every second of the first max_window_layers, or layer_types; Qwen3-MoE: every layer.
 */
static peft_status read_windows(pf_model *m, qwen_moe *q, peft_error *err) {
    bool use, sliding;
    int64_t window, first;
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, "use_sliding_window", false, &use, err));
    if (!use) return PEFT_OK;
    PF_TRY(pf_decoder_read_window(m, m->config, 4096, &window, err));
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "max_window_layers", 28, 0, INT32_MAX, &first,
                           err));
    for (int i = 0; i < m->n_layers; i++) {
        sliding = true;
        if (q->is->shared)
            PF_TRY(pf_decoder_is_sliding(m, m->config, i, (i + 1) % 2 != 0 && i < first, &sliding,
                                         err));
        q->body.layers[i].attention.window = sliding ? window : 0;
    }
    return PEFT_OK;
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status qwen_moe_open(pf_model *m, peft_error *err) {
    qwen_moe *q = PF_NEW(&m->arena, qwen_moe);
    PF_CHECK_ALLOC(q, err);
    m->family_cfg = q;
    for (size_t i = 0; i < PF_COUNT(members); i++)
        if (pf_streq(members[i].architecture, m->architecture)) q->is = &members[i];
    pf_decoder_shape s = {.root = "model",
                          .qk_norm = q->is->qk_norm,
                          .attention_norm = "input_layernorm",
                          .mlp_norm = "post_attention_layernorm",
                          .moe = &q->experts};
    PF_TRY(pf_decoder_read_sizes(m, m->config, &q->is->missing, &s, err));
    PF_TRY(pf_json_opt_bool(m->config, m->config_path, q->is->bias_key, q->is->bias, &s.qkv_bias,
                            err));
    s.o_bias = s.qkv_bias && !q->is->shared;
    PF_TRY(read_experts(m, q, err));
    PF_TRY(pf_rope_spec_read(&m->rope, m->config, m->config_path, m->head_dim, m->max_positions,
                             1e4, err));
    PF_TRY(pf_decoder_open(m, &q->body, &s, "lm_head", err));
    return read_windows(m, q, err);
}

static peft_status qwen_moe_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const qwen_moe *q = m->family_cfg;
    return pf_decoder_build(m, b, &q->body, hidden, err);
}

const pf_model_family pf_model_family_qwen_moe = {
    .name = "qwen_moe",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .open = qwen_moe_open,
    .build = qwen_moe_build,
};
