/* factor_adapterhub.c - LoRA as AdapterHub's `adapters` keeps it: adapter_config.json (config with
 * architecture "lora", version "adapters.X") and adapter.safetensors, the adapter's name inside of
 * every key: model.layers.0.self_attn.q_proj.loras.NAME.lora_A. One r and one alpha for all; of an
 * attention layer the query, key and value projections, of an MLP its first and its last matrix. */
#include "factors/factor_file.h"

#include "base/file.h"
#include "base/str.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

static bool is_adapterhub(const json_t *config) {
    const json_t *c = json_object_get(config, "config");
    const char *kind = json_string_value(json_object_get(c, "architecture"));
    return kind != NULL && pf_streq(kind, "lora");
}

static peft_status spell(pf_factors *f, const char *name, pf_factor_names *out, peft_error *err) {
    *out = (pf_factor_names){.prefix = ""};
    out->a = pf_arena_printf(&f->arena, ".loras.%s.lora_A", name);
    out->b = pf_arena_printf(&f->arena, ".loras.%s.lora_B", name);
    PF_CHECK_ALLOC(out->a, err);
    PF_CHECK_ALLOC(out->b, err);
    return PEFT_OK;
}

/* Before adapters 1.1 alpha was not divided by r. */
static bool scaled_by_alpha_alone(const char *version) {
    const char *number = pf_starts_with(version, "adapters.") ? version + 9 : version;
    return pf_starts_with(number, "0.") || pf_starts_with(number, "1.0");
}

static peft_status read_hub(pf_factors *f, const json_t *c, const char *dir, peft_error *err) {
    const char *where = pf_path_join(&f->arena, dir, "adapter_config.json"), *name, *version, *mode;
    const char *tensors = pf_path_join(&f->arena, dir, "adapter.safetensors"), *type, *class, *base;
    const json_t *lora;
    double alpha;
    pf_factor_names names;
    PF_CHECK_ALLOC(where, err);
    PF_CHECK_ALLOC(tensors, err);
    PF_TRY(pf_json_get_object(c, where, "config", &lora, err));
    PF_TRY(pf_json_get_str(c, where, "name", &name, err));
    PF_TRY(pf_json_opt_str(c, where, "version", "adapters.1.1", &version, err));
    PF_TRY(pf_json_opt_str(c, where, "model_type", NULL, &type, err));
    PF_TRY(pf_json_opt_str(c, where, "model_class", NULL, &class, err));
    PF_TRY(pf_json_opt_str(c, where, "model_name", NULL, &base, err));
    PF_TRY(pf_json_opt_int(c, where, "hidden_size", 0, 0, INT32_MAX, &f->hidden, err));
    PF_TRY(pf_json_opt_real(lora, where, "alpha", 8, &alpha, err));
    PF_TRY(pf_json_opt_str(lora, where, "composition_mode", "add", &mode, err));
    if (!pf_streq(mode, "add"))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: composition_mode is %s, which is (IA)3 and no LoRA", where, mode);
    if (type != NULL) f->model_type = pf_arena_strdup(&f->arena, type);
    if (class != NULL) f->model_class = pf_arena_strdup(&f->arena, class);
    if (base != NULL) f->base_name = pf_arena_strdup(&f->arena, base);
    PF_TRY(spell(f, name, &names, err));
    if (!pf_path_exists(tensors)) {
        const char *pickle = pf_path_join(&f->arena, dir, "pytorch_adapter.bin");
        PF_CHECK_ALLOC(pickle, err);
        if (pf_path_exists(pickle))
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s is a pickle, which can run code and is not read here; save the "
                           "adapter with use_safetensors=True",
                           pickle);
    }
    PF_TRY(pf_factor_file_read(f, &names, tensors, err));
    for (int i = 0; i < f->n; i++)
        f->items[i].scale = scaled_by_alpha_alone(version) ? alpha : alpha / (double)f->items[i].r;
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* What AdapterHub's config says of a module: q, k, v of attn_matrices, i and o for the first and
 * the last matrix of the MLP; 0: it has no place for this one. */
static char place_of(const char *module) {
    static const struct {
        const char *end;
        char place;
    } places[] = {
        {".q_proj", 'q'},
        {".k_proj", 'k'},
        {".v_proj", 'v'},
        {".query", 'q'},
        {".key", 'k'},
        {".value", 'v'},
        {".SelfAttention.q", 'q'},
        {".SelfAttention.k", 'k'},
        {".SelfAttention.v", 'v'},
        {".up_proj", 'i'},
        {".down_proj", 'o'},
        {".intermediate.dense", 'i'},
    };
    const size_t n = strlen(module);
    for (size_t i = 0; i < PF_COUNT(places); i++) {
        const size_t m = strlen(places[i].end);
        if (m < n && strcmp(module + n - m, places[i].end) == 0) return places[i].place;
    }
    return 0;
}

/* For these AdapterHub calls the MLP's last matrix intermediate, and up_proj output. */
static char turned(const pf_factors *f, char place) {
    if (!pf_streq(f->model_type, "llama") && !pf_streq(f->model_type, "mistral")) return place;
    return place == 'i' ? 'o' : place == 'o' ? 'i' : place;
}

static json_t *config_of(const bool has[256], int64_t r) {
    json_t *c = json_object(), *attn = json_array();
    if (c == NULL || attn == NULL) return NULL;
    int bad = 0;
    for (const char *p = "qkv"; *p != '\0'; p++) {
        const char word[2] = {*p, '\0'};
        if (has[(unsigned char)*p]) bad |= json_array_append_new(attn, json_string(word));
    }
    const bool self = has['q'] || has['k'] || has['v'];
    bad |= json_object_set_new(c, "architecture", json_string("lora"));
    bad |= json_object_set_new(c, "alpha", json_integer(r));
    bad |= json_object_set_new(c, "r", json_integer(r));
    bad |= json_object_set_new(c, "attn_matrices", attn);
    bad |= json_object_set_new(c, "composition_mode", json_string("add"));
    bad |= json_object_set_new(c, "dropout", json_real(0));
    bad |= json_object_set_new(c, "init_weights", json_string("lora"));
    bad |= json_object_set_new(c, "leave_out", json_array());
    bad |= json_object_set_new(c, "selfattn_lora", json_boolean(self));
    bad |= json_object_set_new(c, "intermediate_lora", json_boolean(has['i']));
    bad |= json_object_set_new(c, "output_lora", json_boolean(has['o']));
    bad |= json_object_set_new(c, "use_gating", json_false());
    bad |= json_object_set_new(c, "use_dora", json_false());
    if (bad == 0) return c;
    json_decref(c);
    return NULL;
}

static peft_status write_hub(pf_factors *f, const char *dir, peft_error *err) {
    static const char name[] = "lora";
    bool has[256] = {false};
    int64_t r;
    pf_factor_names names;
    if (f->model_type == NULL || f->hidden == 0)
        return PF_FAIL(err, PEFT_E_MISSING,
                       "AdapterHub's folder names the model's type and width; say which model it "
                       "is with --model");
    for (int i = 0; i < f->n; i++) {
        const char place = f->items[i].embedding ? 0 : place_of(f->items[i].module);
        if (place == 0)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: AdapterHub's LoRA has no place for %s: it acts on query, key and "
                           "value and on the first and last matrix of the MLP",
                           f->path, f->items[i].module);
        has[(unsigned char)turned(f, place)] = true;
    }
    PF_TRY(pf_factors_even(f, &r, err));
    PF_TRY(spell(f, name, &names, err));
    const char *tensors = pf_path_join(&f->arena, dir, "adapter.safetensors");
    PF_CHECK_ALLOC(tensors, err);
    PF_TRY(pf_factor_file_write(f, &names, tensors, err));
    json_t *c = json_object();
    int bad = c == NULL;
    if (!bad) {
        bad |= json_object_set_new(c, "config", config_of(has, r));
        bad |= json_object_set_new(c, "hidden_size", json_integer(f->hidden));
        bad |= json_object_set_new(c, "model_class", json_string(f->model_class));
        bad |= json_object_set_new(c, "model_name",
                                   f->base_name != NULL ? json_string(f->base_name) : json_null());
        bad |= json_object_set_new(c, "model_type", json_string(f->model_type));
        bad |= json_object_set_new(c, "name", json_string(name));
        bad |= json_object_set_new(c, "version", json_string("adapters.1.3.0"));
    }
    if (bad != 0) {
        json_decref(c);
        c = NULL;
    }
    return pf_factor_config_write(c, dir, err);
}

const pf_factor_format pf_factor_format_adapterhub = {
    .name = "adapterhub",
    .weights = "adapter.safetensors",
    .is = is_adapterhub,
    .read = read_hub,
    .write = write_hub,
};
