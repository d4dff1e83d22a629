/* bottleneck_config.c - rules between the keys of a bottleneck section, and `config` of
 * AdapterHub's adapter_config.json (adapters 1.3, BnConfig).
 *
 * Reading: missing keys have BnConfig's defaults, unknown keys are passed over, and what would
 * change the numbers but is not done here is refused by name. Writing: every key, as asdict does.
 */
#include "peft/bottleneck/bottleneck.h"

#include "ops/activation/activation.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool pf_bottleneck_scaling(const pf_bottleneck_cfg *cfg, const char **word, double *value) {
    *word = NULL;
    *value = 1;
    if (pf_streq(cfg->scaling, "learned") || pf_streq(cfg->scaling, "channel")) {
        *word = cfg->scaling;
        return true;
    }
    return pf_parse_float(cfg->scaling, value) && isfinite(*value);
}

/* ---- the section ----------------------------------------------------------------------------- */

/* "peft.seq_bn.scaling"; which section this is only the rows' owner knows */
static const char *key_of(pf_cfg *c, const void *section, const char *key) {
    for (int i = 0; i < c->n; i++) {
        if (c->items[i].at != section) continue;
        const char *path = pf_arena_printf(c->arena, "%s.%s", c->items[i].path, key);
        return path != NULL ? path : key;
    }
    return key;
}

static bool is_word(const char *s) {
    for (; *s != 0; s++) {
        if (*s == '.' || *s <= ' ') return false;
    }
    return true;
}

void pf_bottleneck_check_config(pf_cfg *c, const void *section) {
    const pf_bottleneck_cfg *b = section;
    const char *word;
    double value;
    if (!pf_bottleneck_scaling(b, &word, &value))
        pf_cfg_complain(c, key_of(c, section, "scaling"),
                        "is %s; it should be a number, learned or channel", b->scaling);
    if (pf_activation_find(b->non_linearity) == NULL)
        pf_cfg_complain(c, key_of(c, section, "non_linearity"),
                        "is %s; it should be relu, gelu, gelu_new, silu (swish), tanh, leakyrelu "
                        "or another function that transformers knows",
                        b->non_linearity);
    if (b->adapter_name[0] == 0 || !is_word(b->adapter_name))
        pf_cfg_complain(c, key_of(c, section, "adapter_name"),
                        "should be one word without dots: it stands in the names of tensors");
    if (b->is_parallel && b->original_ln_before &&
        pf_cfg_given(c, key_of(c, section, "original_ln_before")))
        pf_cfg_complain(c, key_of(c, section, "original_ln_before"),
                        "does nothing where is_parallel is true");
    if (b->phm_layer && !pf_streq(b->init_weights, "bert"))
        pf_cfg_complain(c, key_of(c, section, "init_weights"),
                        "is %s; PHM layers have weights of their own, for which only bert works",
                        b->init_weights);
    if (!b->original_ln_after && pf_streq(b->residual_before_ln, "true") && !b->is_parallel)
        pf_cfg_complain(c, key_of(c, section, "original_ln_after"),
                        "is false while residual_before_ln is true: the stream that runs around "
                        "the layer would be lost; set residual_before_ln to false");
    if (!b->original_ln_after && b->is_parallel)
        pf_cfg_complain(c, key_of(c, section, "original_ln_after"),
                        "is false for a parallel adapter: the stream that runs around the layer "
                        "would be lost");
    if (!b->original_ln_after && !b->original_ln_before && !b->is_parallel)
        pf_cfg_complain(c, key_of(c, section, "original_ln_after"),
                        "and original_ln_before are both false: the stream that runs around the "
                        "layer would be lost");
}

/* ---- reading --------------------------------------------------------------------------------- */

static peft_status read_words(const json_t *c, const char *where, pf_arena *a, pf_bottleneck_cfg *b,
                              peft_error *err) {
    const json_t *v = json_object_get(c, "scaling");
    const char *s;
    if (v == NULL || json_is_null(v)) {
        b->scaling = "1";
    } else if (json_is_number(v)) {
        b->scaling = pf_arena_printf(a, "%.17g", json_number_value(v));
    } else {
        PF_TRY(pf_json_get_str(c, where, "scaling", &s, err));
        b->scaling = pf_arena_strdup(a, s);
    }
    PF_CHECK_ALLOC(b->scaling, err);
    PF_TRY(pf_json_opt_str(c, where, "non_linearity", "relu", &s, err));
    char *low = pf_arena_strdup(a, s);
    PF_CHECK_ALLOC(low, err);
    for (char *p = low; *p != 0; p++) *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + 32 : *p);
    b->non_linearity = low;
    PF_TRY(pf_json_opt_str(c, where, "init_weights", "bert", &s, err));
    b->init_weights = pf_arena_strdup(a, s);
    PF_CHECK_ALLOC(b->init_weights, err);
    v = json_object_get(c, "inv_adapter");
    PF_TRY(pf_json_opt_str(c, where, "inv_adapter", "none", &s, err));
    if (!pf_streq(s, "none") && !pf_streq(s, "nice")) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: inv_adapter '%s' is not supported; nice is (glow of AdapterHub's own fails "
            "on every text)",
            where, s);
    }
    b->inv_adapter = pf_streq(s, "nice") ? "nice" : "none";
    PF_TRY(pf_json_opt_real(c, where, "inv_adapter_reduction_factor", 2,
                            &b->inv_adapter_reduction_factor, err));
    if (b->inv_adapter_reduction_factor > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: inv_adapter_reduction_factor should be above 0", where);
}

static peft_status read_factor(const json_t *c, const char *where, pf_arena *a,
                               pf_bottleneck_cfg *b, peft_error *err) {
    const json_t *v = json_object_get(c, "reduction_factor");
    const char *key;
    json_t *item;
    bool bad = false;
    if (!json_is_object(v)) {
        PF_TRY(pf_json_opt_real(c, where, "reduction_factor", 16, &b->reduction_factor, err));
        bad = !(b->reduction_factor > 0);
    } else {
        b->reduction_factors.items = PF_NEW_ARRAY(a, pf_cfg_pair, json_object_size(v));
        PF_CHECK_ALLOC(b->reduction_factors.items, err);
        json_object_foreach((json_t *)v, key, item) {
            pf_cfg_pair *p = &b->reduction_factors.items[b->reduction_factors.n++];
            *p = (pf_cfg_pair){.key = pf_arena_strdup(a, key),
                               .number = json_number_value(item),
                               .is_number = true};
            PF_CHECK_ALLOC(p->key, err);
            bad |= !json_is_number(item) || !(p->number > 0);
        }
    }
    if (!bad) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s: reduction_factor should be a number above 0, or one for each layer", where);
}

static peft_status read_leave_out(const json_t *c, const char *where, pf_arena *a, pf_cfg_ints *out,
                                  peft_error *err) {
    const json_t *list, *item;
    size_t i;
    PF_TRY(pf_json_opt_array(c, where, "leave_out", &list, err));
    if (list == NULL) return PEFT_OK;
    out->items = PF_NEW_ARRAY(a, int64_t, json_array_size(list));
    PF_CHECK_ALLOC(out->items, err);
    json_array_foreach(list, i, item) {
        if (!json_is_integer(item))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: leave_out should be a list of layers", where);
        out->items[out->n++] = json_integer_value(item);
    }
    return PEFT_OK;
}

static peft_status read_phm(const json_t *c, const char *where, pf_arena *a, pf_bottleneck_cfg *b,
                            peft_error *err) {
    const char *s;
    const struct {
        const char *key;
        bool def, *at;
    } flags[] = {
        {"phm_layer", false, &b->phm_layer},
        {"factorized_phm_W", true, &b->factorized_phm_W},
        {"shared_W_phm", false, &b->shared_W_phm},
        {"shared_phm_rule", true, &b->shared_phm_rule},
        {"factorized_phm_rule", false, &b->factorized_phm_rule},
        {"learn_phm", true, &b->learn_phm},
        {"phm_bias", true, &b->phm_bias},
    };
    for (size_t i = 0; i < PF_COUNT(flags); i++)
        PF_TRY(pf_json_opt_bool(c, where, flags[i].key, flags[i].def, flags[i].at, err));
    PF_TRY(pf_json_opt_int(c, where, "phm_dim", 4, 1, 65536, &b->phm_dim, err));
    PF_TRY(pf_json_opt_int(c, where, "phm_rank", 1, 1, 65536, &b->phm_rank, err));
    PF_TRY(pf_json_opt_real(c, where, "phm_init_range", 1e-4, &b->phm_init_range, err));
    PF_TRY(pf_json_opt_str(c, where, "phm_c_init", "normal", &s, err));
    b->phm_c_init = pf_streq(s, "uniform") ? "uniform" : "normal";
    PF_TRY(pf_json_opt_str(c, where, "hypercomplex_nonlinearity", "glorot-uniform", &s, err));
    b->hypercomplex_nonlinearity = pf_arena_strdup(a, s);
    PF_CHECK_ALLOC(b->hypercomplex_nonlinearity, err);
    return PEFT_OK;
}

/* true, false, or a word */
static peft_status read_residual(const json_t *c, const char *where, pf_bottleneck_cfg *b,
                                 peft_error *err) {
    static const char key[] = "residual_before_ln";
    const json_t *v = json_object_get(c, key);
    bool on;
    b->residual_before_ln = "post_add";
    if (pf_streq(json_string_value(v), "post_add")) return PEFT_OK;
    if (json_is_string(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is '%s'; it should be true, false or post_add",
                       where, key, json_string_value(v));
    PF_TRY(pf_json_opt_bool(c, where, key, true, &on, err));
    b->residual_before_ln = on ? "true" : "false";
    return PEFT_OK;
}

bool pf_bottleneck_is_config(const json_t *c) {
    const json_t *architecture = json_object_get(c, "architecture");
    return architecture == NULL || json_is_null(architecture) ||
           pf_streq(json_string_value(architecture), "bottleneck");
}

peft_status pf_bottleneck_read_config(pf_arena *a, const json_t *file, const char *where,
                                      const void **method_cfg, peft_error *err) {
    const json_t *c = json_object_get(file, "config");
    pf_bottleneck_cfg *b = PF_NEW(a, pf_bottleneck_cfg);
    const char *name;
    PF_CHECK_ALLOC(b, err);
    const struct {
        const char *key;
        bool def, *at;
    } flags[] = {
        {"mh_adapter", false, &b->mh_adapter},
        {"output_adapter", true, &b->output_adapter},
        {"cross_adapter", false, &b->cross_adapter},
        {"original_ln_before", false, &b->original_ln_before},
        {"original_ln_after", true, &b->original_ln_after},
        {"ln_before", false, &b->ln_before},
        {"ln_after", false, &b->ln_after},
        {"is_parallel", false, &b->is_parallel},
        {"use_gating", false, &b->use_gating},
        {"adapter_residual_before_ln", false, &b->adapter_residual_before_ln},
    };
    PF_TRY(read_residual(c, where, b, err));
    for (size_t i = 0; i < PF_COUNT(flags); i++)
        PF_TRY(pf_json_opt_bool(c, where, flags[i].key, flags[i].def, flags[i].at, err));
    PF_TRY(pf_json_opt_str(file, where, "name", "default", &name, err));
    b->adapter_name = pf_arena_strdup(a, name);
    PF_CHECK_ALLOC(b->adapter_name, err);
    PF_TRY(read_words(c, where, a, b, err));
    PF_TRY(read_factor(c, where, a, b, err));
    PF_TRY(read_leave_out(c, where, a, &b->leave_out, err));
    PF_TRY(pf_json_opt_real(c, where, "dropout", 0, &b->dropout, err));
    PF_TRY(pf_json_opt_real(c, where, "stochastic_depth", 0, &b->stochastic_depth, err));
    if (!(b->dropout >= 0 && b->dropout < 1 && b->stochastic_depth >= 0 &&
          b->stochastic_depth < 1)) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: dropout and stochastic_depth should be at least 0 and below 1", where);
    }
    PF_TRY(read_phm(c, where, a, b, err));
    *method_cfg = b;
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

double pf_bottleneck_floor_divide(double x, double y) {
    const double mod = fmod(x, y), quotient = (x - mod) / y, down = floor(quotient);
    return quotient - down > 0.5 ? down + 1 : down;
}

/* A factor of which AdapterHub, dividing and cutting off, makes this width. */
static double factor_for(int64_t hidden, int64_t width) {
    double factor = (double)hidden / (double)width;
    while (pf_bottleneck_floor_divide((double)hidden, factor) < (double)width)
        factor = nextafter(factor, 0);
    return factor;
}

static json_t *factor_json(const pf_adapter *ad, const pf_bottleneck_cfg *b) {
    if (b->bottleneck_size > 0)
        return pf_peft_number(factor_for(ad->model->hidden, b->bottleneck_size));
    if (b->reduction_factors.n == 0) return pf_peft_number(b->reduction_factor);
    json_t *v = json_object();
    bool rest = false;
    for (int i = 0; i < b->reduction_factors.n; i++) {
        const pf_cfg_pair *p = &b->reduction_factors.items[i];
        rest |= pf_streq(p->key, "default");
        if (json_object_set_new(v, p->key, pf_peft_number(p->number)) != 0) return NULL;
    }
    if (!rest && b->reduction_factor > 0 &&
        json_object_set_new(v, "default", pf_peft_number(b->reduction_factor)) != 0)
        return NULL;
    return v;
}

static json_t *ints(const pf_cfg_ints *list) {
    json_t *v = json_array();
    for (int i = 0; v != NULL && i < list->n; i++) {
        if (json_array_append_new(v, json_integer(list->items[i])) != 0) return NULL;
    }
    return v;
}

peft_status pf_bottleneck_write_config(const pf_adapter *ad, json_t *file, peft_error *err) {
    const pf_bottleneck_cfg *b = ad->cfg.method_cfg;
    const bool inverse = !pf_streq(b->inv_adapter, "none");
    const char *word;
    double scaling;
    int bad = 0;
    json_t *c = json_object_get(file, "config");
    pf_bottleneck_scaling(b, &word, &scaling);
    const struct {
        const char *key;
        json_t *value;
    } keys[] = {
        {"adapter_residual_before_ln", json_boolean(b->adapter_residual_before_ln)},
        {"cross_adapter", json_boolean(b->cross_adapter)},
        {"dropout", json_real(b->dropout)},
        {"factorized_phm_W", json_boolean(b->factorized_phm_W)},
        {"factorized_phm_rule", json_boolean(b->factorized_phm_rule)},
        {"hypercomplex_nonlinearity", json_string(b->hypercomplex_nonlinearity)},
        {"init_weights", json_string(b->init_weights)},
        {"init_weights_seed", json_null()},
        {"inv_adapter", inverse ? json_string(b->inv_adapter) : json_null()},
        {"inv_adapter_reduction_factor",
         inverse ? pf_peft_number(b->inv_adapter_reduction_factor) : json_null()},
        {"is_parallel", json_boolean(b->is_parallel)},
        {"learn_phm", json_boolean(b->learn_phm)},
        {"leave_out", ints(&b->leave_out)},
        {"ln_after", json_boolean(b->ln_after)},
        {"ln_before", json_boolean(b->ln_before)},
        {"mh_adapter", json_boolean(b->mh_adapter)},
        {"non_linearity", json_string(b->non_linearity)},
        {"original_ln_after", json_boolean(b->original_ln_after)},
        {"original_ln_before", json_boolean(b->original_ln_before)},
        {"output_adapter", json_boolean(b->output_adapter)},
        {"phm_bias", json_boolean(b->phm_bias)},
        {"phm_c_init", json_string(b->phm_c_init)},
        {"phm_dim", json_integer(b->phm_dim)},
        {"phm_init_range", json_real(b->phm_init_range)},
        {"phm_layer", json_boolean(b->phm_layer)},
        {"phm_rank", json_integer(b->phm_rank)},
        {"reduction_factor", factor_json(ad, b)},
        {"residual_before_ln", pf_streq(b->residual_before_ln, "post_add")
                                   ? json_string("post_add")
                                   : json_boolean(pf_streq(b->residual_before_ln, "true"))},
        {"scaling", word != NULL ? json_string(word) : json_real(scaling)},
        {"shared_W_phm", json_boolean(b->shared_W_phm)},
        {"shared_phm_rule", json_boolean(b->shared_phm_rule)},
        {"stochastic_depth", json_real(b->stochastic_depth)},
        {"use_gating", json_boolean(b->use_gating)},
    };
    for (size_t i = 0; i < PF_COUNT(keys); i++)
        bad |= json_object_set_new(c, keys[i].key, keys[i].value);
    bad |= json_object_set_new(file, "name", json_string(b->adapter_name));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
