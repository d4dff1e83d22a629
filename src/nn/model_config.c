/* model_config.c - see model_config.h. */
#include "nn/model_config.h"

#include "ops/activation/activation.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

#define MAX_WIDTH (1 << 20) /* far beyond any model; keeps products of sizes inside 64 bits */

const pf_size_keys pf_usual_size_keys = {
    .hidden = {"hidden_size"},
    .layers = {"num_hidden_layers"},
    .heads = {"num_attention_heads"},
    .positions = "max_position_embeddings",
};

static peft_status read_one_of(const pf_model *m, const char *const *keys, int64_t most,
                               int64_t *out, peft_error *err) {
    const bool second = keys[1] != NULL && json_object_get(m->config, keys[0]) == NULL &&
                        json_object_get(m->config, keys[1]) != NULL;
    return pf_json_get_int(m->config, m->config_path, keys[second ? 1 : 0], 1, most, out, err);
}

peft_status pf_model_read_sizes(pf_model *m, const pf_size_keys *keys, peft_error *err) {
    int64_t n_layers;
    PF_TRY(read_one_of(m, keys->hidden, MAX_WIDTH, &m->hidden, err));
    PF_TRY(read_one_of(m, keys->layers, 10000, &n_layers, err));
    PF_TRY(read_one_of(m, keys->heads, 65536, &m->n_heads, err));
    PF_TRY(pf_json_get_int(m->config, m->config_path, "vocab_size", 1, INT32_MAX, &m->vocab, err));
    m->max_positions = INT32_MAX;
    if (keys->positions != NULL) {
        PF_TRY(pf_json_opt_int(m->config, m->config_path, keys->positions,
                               keys->usual_positions > 0 ? keys->usual_positions : 2048, 1,
                               INT32_MAX, &m->max_positions, err));
    }
    if (m->hidden % m->n_heads != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s %lld is no multiple of %lld heads",
                       m->config_path, keys->hidden[0], (long long)m->hidden,
                       (long long)m->n_heads);
    }
    m->n_layers = (int)n_layers;
    m->n_kv_heads = m->n_heads;
    m->head_dim = m->hidden / m->n_heads;
    return PEFT_OK;
}

peft_status pf_model_read_kv_heads(pf_model *m, const char *key, peft_error *err) {
    PF_TRY(
        pf_json_opt_int(m->config, m->config_path, key, m->n_heads, 1, 65536, &m->n_kv_heads, err));
    if (m->n_heads % m->n_kv_heads == 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %lld heads are no multiple of %s %lld", m->config_path,
                   (long long)m->n_heads, key, (long long)m->n_kv_heads);
}

peft_status pf_model_read_width(const pf_model *m, const char *key, int64_t def, int64_t *out,
                                peft_error *err) {
    const int64_t most = 8 * (int64_t)MAX_WIDTH;
    if (def == 0) return pf_json_get_int(m->config, m->config_path, key, 1, most, out, err);
    return pf_json_opt_int(m->config, m->config_path, key, def, 1, most, out, err);
}

peft_status pf_model_read_activation(const pf_model *m, const char *key, const char *def,
                                     const pf_op **out, peft_error *err) {
    const char *name;
    PF_TRY(pf_json_opt_str(m->config, m->config_path, key, def, &name, err));
    *out = pf_activation_find(name);
    if (*out != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: %s '%s' is not supported for %s; gelu, gelu_new, gelu_pytorch_tanh, relu "
                   "and silu are",
                   m->config_path, key, name, m->architecture);
}

peft_status pf_model_read_eps(const pf_model *m, const char *key, double *eps, peft_error *err) {
    PF_TRY(pf_json_opt_real(m->config, m->config_path, key, 1e-5, eps, err));
    if (*eps >= 0 && isfinite(*eps)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be a small positive number",
                   m->config_path, key, *eps);
}

peft_status pf_place_add(pf_place p, pf_site_kind kind, const char *part, int64_t out_dim,
                         int64_t in_dim, bool bias, pf_site **site, peft_error *err) {
    char name[256];
    snprintf(name, sizeof name, "%s%s", p.path, part);
    return pf_model_add_site(p.m, kind, p.layer, name, out_dim, in_dim, bias, site, err);
}
