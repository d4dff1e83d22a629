/* factor_peft.c - LoRA as PEFT keeps it: adapter_config.json (peft_type LORA) and
 * adapter_model.safetensors. Ranks are those of the tensors; alphas come from lora_alpha and
 * alpha_pattern, whose keys are regular expressions for the end of a module's name. */
#include "factors/factor_file.h"

#include "base/file.h"
#include "base/str.h"
#include "peft/match.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const pf_factor_names names = {
    .prefix = "base_model.model.",
    .a = ".lora_A.weight",
    .b = ".lora_B.weight",
    .e_a = ".lora_embedding_A",
    .e_b = ".lora_embedding_B",
};

static bool is_peft(const json_t *config) {
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    return type != NULL && pf_streq(type, "LORA");
}

/* The first pattern that fits wins, as in PEFT. */
static peft_status apply_pattern(pf_factors *f, double *alphas, const json_t *map,
                                 peft_error *err) {
    const char *key;
    json_t *value;
    bool *done = PF_NEW_ARRAY(&f->arena, bool, f->n + 1);
    PF_CHECK_ALLOC(done, err);
    json_object_foreach((json_t *)(uintptr_t)map, key, value) {
        pf_pattern *p;
        PF_TRY(pf_pattern_new(&p, "alpha_pattern", "(?:.*\\.)?(?:", key, ")$", false, err));
        peft_status status = PEFT_OK;
        for (int i = 0; i < f->n && status == PEFT_OK; i++) {
            bool hit = false;
            if (!done[i]) status = pf_pattern_match(p, f->items[i].module, &hit, NULL, err);
            if (!hit) continue;
            alphas[i] = json_number_value(value);
            done[i] = true;
        }
        pf_pattern_free(p);
        PF_TRY(status);
    }
    return PEFT_OK;
}

static peft_status copy_words(pf_factors *f, const json_t *c, const char *where, peft_error *err) {
    const char *base, *task;
    PF_TRY(pf_json_opt_str(c, where, "base_model_name_or_path", NULL, &base, err));
    PF_TRY(pf_json_opt_str(c, where, "task_type", NULL, &task, err));
    f->base_name = base != NULL ? pf_arena_strdup(&f->arena, base) : NULL;
    f->task_type = task != NULL ? pf_arena_strdup(&f->arena, task) : NULL;
    if ((base != NULL && f->base_name == NULL) || (task != NULL && f->task_type == NULL))
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return PEFT_OK;
}

static peft_status read_peft(pf_factors *f, const json_t *c, const char *dir, peft_error *err) {
    const char *where = pf_path_join(&f->arena, dir, "adapter_config.json");
    const char *tensors = pf_path_join(&f->arena, dir, "adapter_model.safetensors");
    double alpha;
    bool rslora;
    const json_t *map;
    PF_CHECK_ALLOC(where, err);
    PF_CHECK_ALLOC(tensors, err);
    PF_TRY(pf_json_opt_real(c, where, "lora_alpha", 8, &alpha, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_rslora", false, &rslora, err));
    PF_TRY(pf_json_opt_object(c, where, "alpha_pattern", &map, err));
    PF_TRY(copy_words(f, c, where, err));
    PF_TRY(pf_factor_file_read(f, &names, tensors, err));
    double *alphas = PF_NEW_ARRAY(&f->arena, double, f->n + 1);
    PF_CHECK_ALLOC(alphas, err);
    for (int i = 0; i < f->n; i++) alphas[i] = alpha;
    if (map != NULL) PF_TRY(apply_pattern(f, alphas, map, err));
    for (int i = 0; i < f->n; i++) {
        const double r = (double)f->items[i].r;
        f->items[i].scale = alphas[i] / (rslora ? sqrt(r) : r);
    }
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* The rank and alpha that most modules need stand for all; the others go into patterns, under their
 * whole names. */
static int set_scales(json_t *c, const pf_factors *f) {
    int best = 0, most = 0;
    for (int i = 0; i < f->n; i++) {
        int same = 0;
        for (int k = 0; k < f->n; k++)
            same += f->items[k].r == f->items[i].r && f->items[k].scale == f->items[i].scale;
        if (same > most) {
            most = same;
            best = i;
        }
    }
    const pf_factor *usual = &f->items[best];
    json_t *ranks = json_object(), *alphas = json_object();
    int bad = ranks == NULL || alphas == NULL;
    for (int i = 0; i < f->n && !bad; i++) {
        const pf_factor *x = &f->items[i];
        if (x->r != usual->r) bad |= json_object_set_new(ranks, x->module, json_integer(x->r));
        if (x->r != usual->r || x->scale != usual->scale)
            bad |= json_object_set_new(alphas, x->module, json_real(x->scale * (double)x->r));
    }
    bad |= json_object_set_new(c, "r", json_integer(usual->r));
    bad |= json_object_set_new(c, "lora_alpha", json_real(usual->scale * (double)usual->r));
    bad |= json_object_set_new(c, "rank_pattern", ranks);
    bad |= json_object_set_new(c, "alpha_pattern", alphas);
    return bad;
}

static peft_status write_peft(pf_factors *f, const char *dir, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "peft");
    const char *tensors = pf_path_join(&a, dir, "adapter_model.safetensors");
    peft_status status = tensors != NULL ? pf_factor_file_write(f, &names, tensors, err)
                                         : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_arena_release(&a);
    PF_TRY(status);
    json_t *c = json_object();
    int bad = c == NULL;
    if (!bad) {
        bad |= json_object_set_new(c, "peft_type", json_string("LORA"));
        bad |= json_object_set_new(c, "task_type",
                                   f->task_type != NULL ? json_string(f->task_type) : json_null());
        bad |= json_object_set_new(c, "inference_mode", json_true());
        bad |= json_object_set_new(c, "base_model_name_or_path",
                                   f->base_name != NULL ? json_string(f->base_name) : json_null());
        bad |= json_object_set_new(c, "target_modules", pf_factor_targets(f));
        bad |= json_object_set_new(c, "lora_dropout", json_real(0));
        bad |= json_object_set_new(c, "bias", json_string("none"));
        bad |= json_object_set_new(c, "fan_in_fan_out", json_false());
        bad |= json_object_set_new(c, "init_lora_weights", json_true());
        bad |= set_scales(c, f);
    }
    if (bad != 0) {
        json_decref(c);
        c = NULL;
    }
    return pf_factor_config_write(c, dir, err);
}

const pf_factor_format pf_factor_format_peft = {
    .name = "peft",
    .weights = "adapter_model.safetensors",
    .is = is_peft,
    .read = read_peft,
    .write = write_peft,
};
