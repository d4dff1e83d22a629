/* factor_mlx.c - LoRA as mlx-lm keeps it: adapter_config.json (fine_tune_type, lora_parameters) and
 * adapters.safetensors with lora_a (in, r) and lora_b (r, out), the transposes of PEFT's; `scale`
 * is the multiplier itself. One rank and one scale for all modules. */
#include "factors/factor_file.h"

#include "base/file.h"
#include "base/str.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

static const pf_factor_names names = {
    .prefix = "",
    .a = ".lora_a",
    .b = ".lora_b",
    .turned = true,
};

static bool is_mlx(const json_t *config) {
    return json_object_get(config, "lora_parameters") != NULL ||
           json_object_get(config, "fine_tune_type") != NULL;
}

static bool is_embedding(const char *module) {
    const char *dot = strrchr(module, '.'), *name = dot != NULL ? dot + 1 : module;
    return pf_streq(name, "embed_tokens") || pf_streq(name, "wte") ||
           pf_streq(name, "word_embeddings") || pf_streq(name, "embed_in");
}

static peft_status read_mlx(pf_factors *f, const json_t *c, const char *dir, peft_error *err) {
    const char *where = pf_path_join(&f->arena, dir, "adapter_config.json"), *type, *base;
    const char *tensors = pf_path_join(&f->arena, dir, "adapters.safetensors");
    const json_t *lora;
    double scale;
    PF_CHECK_ALLOC(where, err);
    PF_CHECK_ALLOC(tensors, err);
    PF_TRY(pf_json_opt_str(c, where, "fine_tune_type", "lora", &type, err));
    if (!pf_streq(type, "lora"))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: fine_tune_type is %s; only lora can be converted", where, type);
    PF_TRY(pf_json_get_object(c, where, "lora_parameters", &lora, err));
    PF_TRY(pf_json_opt_real(lora, where, "scale", 20, &scale, err)); /* mlx-lm's default */
    PF_TRY(pf_json_opt_str(c, where, "model", NULL, &base, err));
    if (base != NULL) f->base_name = pf_arena_strdup(&f->arena, base);
    PF_TRY(pf_factor_file_read(f, &names, tensors, err));
    for (int i = 0; i < f->n; i++) {
        f->items[i].scale = scale;
        f->items[i].embedding = is_embedding(f->items[i].module);
    }
    return PEFT_OK;
}

/* "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj", and the number; names outside of layers
 * stay whole. */
static const char *inside(const char *module, int64_t *layer) {
    const char *p = strstr(module, "layers.");
    *layer = -1;
    if (p == NULL) return module;
    p += strlen("layers.");
    char digits[16];
    const size_t n = strspn(p, "0123456789");
    if (n == 0 || n >= sizeof digits || p[n] != '.') return module;
    memcpy(digits, p, n);
    digits[n] = '\0';
    return pf_parse_int(digits, layer) ? p + n + 1 : module;
}

static json_t *keys_of(const pf_factors *f, int64_t *n_layers) {
    json_t *keys = json_array();
    *n_layers = 0;
    for (int i = 0; i < f->n && keys != NULL; i++) {
        int64_t layer;
        const char *key = inside(f->items[i].module, &layer);
        bool there = false;
        if (layer >= *n_layers) *n_layers = layer + 1;
        for (size_t k = 0; k < json_array_size(keys); k++)
            there = there || pf_streq(json_string_value(json_array_get(keys, k)), key);
        if (!there && json_array_append_new(keys, json_string(key)) != 0) {
            json_decref(keys);
            return NULL;
        }
    }
    return keys;
}

static peft_status write_mlx(pf_factors *f, const char *dir, peft_error *err) {
    int64_t r, n_layers;
    PF_TRY(pf_factors_even(f, &r, err));
    const char *tensors = pf_path_join(&f->arena, dir, "adapters.safetensors");
    PF_CHECK_ALLOC(tensors, err);
    PF_TRY(pf_factor_file_write(f, &names, tensors, err));
    json_t *c = json_object(), *lora = json_object();
    int bad = c == NULL || lora == NULL;
    if (!bad) {
        bad |= json_object_set_new(lora, "rank", json_integer(r));
        bad |= json_object_set_new(lora, "scale", json_real(1));
        bad |= json_object_set_new(lora, "dropout", json_real(0));
        bad |= json_object_set_new(lora, "keys", keys_of(f, &n_layers));
        bad |= json_object_set_new(c, "fine_tune_type", json_string("lora"));
        bad |= json_object_set_new(c, "num_layers", json_integer(n_layers));
        bad |= json_object_set_new(c, "lora_parameters", lora);
        bad |= json_object_set_new(c, "model",
                                   f->base_name != NULL ? json_string(f->base_name) : json_null());
    }
    if (bad != 0) {
        json_decref(c);
        c = NULL;
    }
    return pf_factor_config_write(c, dir, err);
}

const pf_factor_format pf_factor_format_mlx = {
    .name = "mlx",
    .weights = "adapters.safetensors",
    .is = is_mlx,
    .read = read_mlx,
    .write = write_mlx,
};
