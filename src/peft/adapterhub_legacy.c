/* adapterhub_legacy.c - folders that earlier versions of AdapterHub's library wrote
 * (adapter-transformers 1 to 3, adapters before 1.1), said in the words of adapters 1.3, as it does
 * itself when it loads them:
 *
 *   config is a name          "pfeiffer", "houlsby+inv", ...: the defaults behind it; null:
 * pfeiffer invertible_adapter        {block_type, reduction_factor}: inv_adapter and its factor no
 * version                non_linearity gelu meant what is called gelu_new now, gelu_orig gelu
 *   version below 1.1, LoRA   alpha was not divided by r: alpha is r
 *   type text_task            an invertible adapter may be configured that the file does not have
 *   tensors                   layer_text_task_adapters, ...: adapters; and without the model's name
 * in front, where the model was opened without a head
 *
 * config_id, attention_type, new_attention_norm, type: passed over. */
#include "peft/adapter_file.h"

#include "base/buf.h"
#include "base/file.h"
#include "formats/safetensors.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

/* ---- names of configurations ----------------------------------------------------------------- */

#define SEQ    "\"original_ln_before\": true, \"mh_adapter\": false, \"output_adapter\": true"
#define DOUBLE "\"mh_adapter\": true, \"output_adapter\": true"
#define PARALLEL                                                                                   \
    "\"mh_adapter\": false, \"output_adapter\": true, \"non_linearity\": \"relu\", "               \
    "\"reduction_factor\": 2, \"init_weights\": \"mam_adapter\", \"is_parallel\": true"
#define RELU  ", \"non_linearity\": \"relu\", \"reduction_factor\": 16"
#define SWISH ", \"non_linearity\": \"swish\", \"reduction_factor\": 16"
#define PHM   ", \"non_linearity\": \"gelu\", \"reduction_factor\": 32, \"phm_layer\": true"
#define NICE  ", \"inv_adapter\": \"nice\", \"inv_adapter_reduction_factor\": 2"

static const struct {
    const char *names, *config; /* those of ADAPTER_CONFIG_MAP, old and new */
} named[] = {
    {"pfeiffer seq_bn", "{" SEQ RELU "}"},
    {"pfeiffer+inv seq_bn_inv", "{" SEQ RELU NICE "}"},
    {"houlsby double_seq_bn", "{" DOUBLE SWISH "}"},
    {"houlsby+inv double_seq_bn_inv", "{" DOUBLE SWISH NICE "}"},
    {"parallel par_bn", "{" PARALLEL ", \"scaling\": 4.0}"},
    {"scaled_parallel scaled_par_bn", "{" PARALLEL ", \"scaling\": \"learned\"}"},
    {"compacter", "{" DOUBLE PHM "}"},
    {"compacter++", "{" SEQ PHM "}"},
    {"prefix_tuning", "{\"architecture\": \"prefix_tuning\"}"},
    {"prefix_tuning_flat", "{\"architecture\": \"prefix_tuning\", \"flat\": true}"},
    {"prompt_tuning", "{\"architecture\": \"prompt_tuning\"}"},
    {"lora", "{\"architecture\": \"lora\"}"},
    {"mam", "{\"architecture\": \"union\", \"configs\": [{\"architecture\": \"prefix_tuning\"}, "
            "{" PARALLEL ", \"scaling\": 4.0}]}"},
    {"unipelt",
     "{\"architecture\": \"union\", \"configs\": [{\"architecture\": "
     "\"prefix_tuning\", \"use_gating\": true}, {" SEQ RELU "}, {\"architecture\": \"lora\"}]}"},
    {"ia3", "{\"architecture\": \"lora\", \"intermediate_lora\": true, \"r\": 1, \"alpha\": 1, "
            "\"attn_matrices\": [\"k\", \"v\"], \"composition_mode\": \"scale\", "
            "\"init_weights\": \"ia3\"}"},
};

static bool has_word(const char *words, const char *word) {
    const size_t n = strlen(word);
    for (const char *at = words; at != NULL; at = strchr(at, ' ')) {
        at += *at == ' ';
        if (strncmp(at, word, n) == 0 && (at[n] == ' ' || at[n] == 0)) return true;
    }
    return false;
}

static peft_status expand_name(json_t *c, const char *where, peft_error *err) {
    const json_t *v = json_object_get(c, "config");
    const char *name = v == NULL || json_is_null(v) ? "pfeiffer" : json_string_value(v);
    json_t *config;
    if (name == NULL) return PEFT_OK; /* an object, or no AdapterHub folder */
    for (size_t i = 0; i < PF_COUNT(named); i++) {
        if (!has_word(named[i].names, name)) continue;
        PF_TRY(pf_json_parse(&config, named[i].config, strlen(named[i].config), name, err));
        return json_object_set_new(c, "config", config) == 0
                   ? PEFT_OK
                   : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_buf list = {0};
    for (size_t i = 0; i < PF_COUNT(named); i++)
        pf_buf_addf(&list, "%s%s", i == 0 ? "" : " ", named[i].names);
    peft_status status = PF_FAIL(err, PEFT_E_UNSUPPORTED,
                                 "%s: config is the name '%s', which is not known; known are %s",
                                 where, name, pf_buf_str(&list));
    pf_buf_free(&list);
    return status;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static int rename_function(json_t *config) {
    const char *f = json_string_value(json_object_get(config, "non_linearity"));
    if (pf_streq(f, "gelu"))
        return json_object_set_new(config, "non_linearity", json_string("gelu_new"));
    if (pf_streq(f, "gelu_orig"))
        return json_object_set_new(config, "non_linearity", json_string("gelu"));
    return 0;
}

/* invertible_adapter stood for itself before it became two keys. */
static int unfold_inverse(json_t *config) {
    const json_t *old = json_object_get(config, "invertible_adapter");
    if (!json_is_object(old) || json_object_get(config, "inv_adapter") != NULL) return 0;
    json_t *type = json_object_get(old, "block_type"),
           *factor = json_object_get(old, "reduction_factor");
    int bad = 0;
    if (type != NULL) bad |= json_object_set(config, "inv_adapter", type);
    if (factor != NULL) bad |= json_object_set(config, "inv_adapter_reduction_factor", factor);
    return bad;
}

/* "adapters.1.0.1": below 1.1; a version without that prefix is adapter-transformers', which
 * AdapterHub leaves as it is. */
static bool is_before_1_1(const char *version) {
    int major, minor;
    return version != NULL && sscanf(version, "adapters.%d.%d", &major, &minor) == 2 &&
           (major < 1 || (major == 1 && minor < 1));
}

static int fix_alpha(const json_t *c, json_t *config) {
    json_t *r = json_object_get(config, "r");
    if (!pf_streq(json_string_value(json_object_get(config, "architecture")), "lora") ||
        r == NULL || !is_before_1_1(json_string_value(json_object_get(c, "version"))))
        return 0;
    return json_object_set(config, "alpha", r);
}

/* Task adapters were said to have an invertible adapter that they did not use. */
static peft_status drop_inverse(const json_t *c, json_t *config, const char *tensors,
                                peft_error *err) {
    pf_safetensors file = {0};
    bool has = false;
    if (!pf_streq(json_string_value(json_object_get(c, "type")), "text_task") ||
        !json_is_string(json_object_get(config, "inv_adapter")) || !pf_path_exists(tensors))
        return PEFT_OK;
    PF_TRY(pf_safetensors_open(&file, tensors, err));
    for (int i = 0; i < file.n_tensors; i++)
        has |= strstr(file.tensors[i].name, "invertible_adapters.") != NULL ||
               strstr(file.tensors[i].name, "invertible_lang_adapters.") != NULL;
    pf_safetensors_close(&file);
    if (!has) json_object_del(config, "inv_adapter");
    return PEFT_OK;
}

peft_status pf_adapterhub_renew(json_t *c, const char *where, const char *tensors,
                                peft_error *err) {
    const bool named_only = !json_is_object(json_object_get(c, "config"));
    PF_TRY(expand_name(c, where, err));
    json_t *config = json_object_get(c, "config");
    int bad = 0;
    if (!json_is_object(config)) return PEFT_OK;
    if (!named_only && json_object_get(c, "version") == NULL) bad |= rename_function(config);
    bad |= unfold_inverse(config);
    bad |= fix_alpha(c, config);
    if (bad != 0) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return drop_inverse(c, config, tensors, err);
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const struct {
    const char *old, *now;
} words[] = {
    {"attention_text_task_adapters", "adapters"},
    {"attention_text_lang_adapters", "adapters"},
    {"layer_text_task_adapters", "adapters"},
    {"layer_text_lang_adapters", "adapters"},
    {"invertible_lang_adapters", "invertible_adapters"},
};

pf_param *pf_adapterhub_param(const pf_adapter *ad, const char *name) {
    char now[512], whole[600];
    const pf_model *m = ad->model;
    snprintf(now, sizeof now, "%s", name);
    for (size_t i = 0; i < PF_COUNT(words); i++) {
        const char *at = strstr(name, words[i].old);
        if (at != NULL)
            snprintf(now, sizeof now, "%.*s%s%s", (int)(at - name), name, words[i].now,
                     at + strlen(words[i].old));
    }
    pf_param *p = pf_params_find(&ad->params, now);
    if (p != NULL || m->embedding == NULL) return p;
    snprintf(whole, sizeof whole, "%.*s.%s", (int)strcspn(m->embedding->name, "."),
             m->embedding->name, now);
    return pf_params_find(&ad->params, whole);
}
