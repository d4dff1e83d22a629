/* peft_keys.c - keys of adapter_config.json that peft (0.21) has in the classes whose adapters are
 * read here. Each of them is read, refused where it is set (lora_config.c, delta_config.c), or says
 * nothing about the numbers of a file (how first weights were made, versions). Any other key that
 * is set gets a warning: a later peft, or another writer, means something by it. */
#include "base/log.h"
#include "base/str.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <string.h>

// clang-format off
static const char *const known[] = {
    /* our own, beside peft's: what the head tells apart, which parts of the base are trained */
    "id2label", "label2id", "num_labels", "problem_type", "freeze_extra_modules", "freeze_trainable_layers", "freeze_trainable_modules",
    "alora_invocation_tokens", "alpha", "alpha_pattern", "apply_GS", "arrow_config", "auto_mapping",
    "base_model_name_or_path", "beta1", "beta2", "bias", "block_share", "block_size",
    "block_size_pattern", "boft_block_num", "boft_block_size", "boft_dropout",
    "boft_n_butterfly_factor", "coft", "corda_config", "d_initial", "decompose_both",
    "decompose_factor", "delora_lambda", "deltaT", "encoder_dropout", "encoder_hidden_size",
    "encoder_num_layers", "encoder_reparameterization_type", "ensure_weight_tying", "eps",
    "eva_config", "exclude_modules", "fan_in_fan_out", "gralora_dropout", "mask_type", "random_seed", "gralora_k", "hybrid_r", "feedforward_modules", "group_size",
    "hira_dropout", "inference_mode", "init_ia3_weights", "init_lora_weights", "init_r",
    "init_weights", "kasa_config", "lambda_pattern", "layer_replication", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout",
    "lora_ga_config", "megatron_config", "megatron_core", "mini_r", "miss_dropout",
    "module_dropout", "modules_to_save", "monteclora_config", "n_frequency", "n_frequency_pattern",
    "num_attention_heads", "num_cayley_neumann_terms", "num_layers", "num_transformer_submodules",
    "num_virtual_tokens", "oft_block_size", "orth_reg_weight", "peft_type", "peft_version",
    "prefix_projection", "projection_prng_key", "prompt_tuning_init", "prompt_tuning_init_text",
    "qalora_group_size", "r", "randlora_alpha", "randlora_dropout", "random_loc_seed",
    "rank_dropout", "rank_dropout_scale", "rank_pattern", "revision", "runtime_config",
    "save_projection", "scaling", "sparse", "target_modules", "target_parameters", "target_r",
    "task_type", "tfinal", "tinit", "token_dim", "token_indices", "tokenizer_kwargs",
    "tokenizer_name_or_path", "total_step", "trainable_token_indices", "use_bdlora",
    "use_cayley_neumann", "use_dora", "use_effective_conv2d", "use_qalora", "use_rslora", "variant",
    "velora_config", "vera_dropout", "very_sparse", NULL};
// clang-format on

static bool is_known(const char *key) {
    for (int i = 0; known[i] != NULL; i++) {
        if (pf_streq(known[i], key)) return true;
    }
    return false;
}

bool pf_peft_is_off(const json_t *v) {
    if (v == NULL || json_is_null(v) || json_is_false(v)) return true;
    if (json_is_number(v)) return json_number_value(v) == 0;
    if (json_is_array(v)) return json_array_size(v) == 0;
    if (json_is_string(v)) return pf_streq(json_string_value(v), "none");
    return json_is_object(v) && json_object_size(v) == 0;
}

void pf_peft_warn_unknown(const json_t *c, const char *where) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)c, key, v) {
        if (!is_known(key) && !pf_peft_is_off(v))
            PF_WARN("%s: %s is set, a key that is not known here; it is passed over", where, key);
    }
}
