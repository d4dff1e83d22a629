/* lora_config.c - LoRA's section of a configuration, and its part of adapter_config.json as peft's
 * LoraConfig has it.
 *
 * Reading: missing keys have LoraConfig's defaults, unknown keys are passed over (peft adds some
 * with every release), and what would change the numbers but is not done here is refused by name.
 * Writing: keys that differ from the default, and those that readers expect in any case. */
#include "peft/lora/lora.h"

#include "base/mem.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

/* ---- the section ----------------------------------------------------------------------------- */

/* clang-format off */
static const pf_cfg_row eva_cfg_rows[] = {
    PF_CFG_FLOAT(pf_lora_eva_cfg, rho, 2, 1, 1000, "a layer may get up to so many times its rank, the sum stays; 1: ranks stay"),
    PF_CFG_FLOAT(pf_lora_eva_cfg, tau, 0.99, 0, 1, "a layer has seen enough when its directions turn no more from batch to batch: cosine of each with the one before"),
    PF_CFG_BOOL(pf_lora_eva_cfg, use_label_mask, true, "look only at tokens that are learned"),
    PF_CFG_INT(pf_lora_eva_cfg, label_mask_value, -100, -1000000000, 1000000000, "use_label_mask: the label of tokens not to look at; -100 is that of tokens that are not learned"),
    PF_CFG_BOOL(pf_lora_eva_cfg, whiten, false, "divide each row of A by the root of its singular value"),
    PF_CFG_BOOL(pf_lora_eva_cfg, adjust_scaling_factors, true, "alpha changes with the rank, so that the scale stays"),
    PF_CFG_INT(pf_lora_eva_cfg, max_rows, 65536, 1, 1000000000, "after so many tokens no further batch is looked at, settled or not (peft has no such end)"),
    PF_CFG_END};

const pf_cfg_row pf_lora_cfg_rows[] = {
    PF_CFG_INT(pf_lora_cfg, r, 8, 1, 65536, "rank of the update", .aliases = "rank lora_r lora_rank"),
    PF_CFG_FLOAT(pf_lora_cfg, alpha, 16, 0, 1e6, "the update is scaled by alpha / r", .aliases = "lora_alpha"),
    PF_CFG_FLOAT(pf_lora_cfg, dropout, 0, 0, 1, "share of the input dropped before A, in training only", .aliases = "lora_dropout", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_STRLIST(pf_lora_cfg, target_modules, NULL, "a list of module names (suffixes), one regular expression for the full name, or all-linear; default: the family's", .aliases = "lora_target_modules"),
    PF_CFG_STRLIST(pf_lora_cfg, exclude_modules, NULL, "names (suffixes) or one regular expression: modules left out of target_modules"),
    PF_CFG_INTLIST(pf_lora_cfg, layers_to_transform, 0, 100000, "only these layers, counted from 0; default: all"),
    PF_CFG_STRLIST(pf_lora_cfg, layers_pattern, NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"),
    PF_CFG_NUMMAP(pf_lora_cfg, rank_pattern, 1, 65536, "other ranks for some modules: {name or regular expression: r}", .flags = PF_CFG_WHOLE),
    PF_CFG_NUMMAP(pf_lora_cfg, alpha_pattern, 0, 1e6, "other alphas for some modules: {name or regular expression: alpha}"),
    PF_CFG_BOOL(pf_lora_cfg, use_rslora, false, "scale by alpha / sqrt(r) (rank-stabilized LoRA)"),
    PF_CFG_BOOL(pf_lora_cfg, use_dora, false, "DoRA: rows of W + BA with a trained length each (arXiv 2402.09353)", .aliases = "dora"),
    PF_CFG_BOOL(pf_lora_cfg, lora_bias, false, "a bias on B"),
    PF_CFG_ENUM(pf_lora_cfg, bias, "none", "none all lora_only", "which biases are trained too"),
    PF_CFG_STRLIST(pf_lora_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter", .aliases = "lora_modules_to_save"),
    PF_CFG_BOOL(pf_lora_cfg, ensure_weight_tying, false, "where embedding and head share one matrix and modules_to_save names one of them: both are trained as one"),
    PF_CFG_INTLIST(pf_lora_cfg, trainable_token_indices, 0, 100000000, "ids of tokens whose rows of the embedding are trained too, and of a head that shares its matrix"),
    PF_CFG_FLOAT(pf_lora_cfg, loraplus_lr_ratio, 0, 0, 1e6, "LoRA+: B learns so many times as fast as A (16 is usual); 0: as fast (arXiv 2402.12354)", .flags = PF_CFG_UNSET),
    PF_CFG_FLOAT(pf_lora_cfg, loraplus_lr_embedding, 1e-6, 0, 1e3, "LoRA+: learning rate of the factors of an embedding"),
    PF_CFG_BOOL(pf_lora_cfg, lora_fa, false, "LoRA-FA: A stays as it began, and less is kept for the backward pass (arXiv 2308.03303)"),
    PF_CFG_STR(pf_lora_cfg, init_lora_weights, "true",
               "true: A uniform (Kaiming), B zero; gaussian: A normal, B zero; false: both random, for tests; orthogonal; pissa, "
               "pissa_niter_<n>, olora: parts of the base's weight, saved as plain LoRA of twice the rank; eva: A from what the layers see "
               "in the training data, and ranks where they explain most (arXiv 2410.07170)", .aliases = "init"),
    PF_CFG_SECTION(pf_lora_cfg, eva_config, eva_cfg_rows, "how init_lora_weights eva looks at the training data, and what it makes of it"),
    PF_CFG_END};
/* clang-format on */

void pf_lora_check_config(pf_cfg *c, const void *section) {
    const pf_lora_cfg *lora = section;
    if (lora->layers_pattern.list.n > 0 && lora->layers_to_transform.n == 0)
        pf_cfg_complain(c, "peft.lora.layers_pattern",
                        "is given without layers_to_transform; it says where those are counted");
    if (lora->lora_fa && lora->loraplus_lr_ratio > 0)
        pf_cfg_complain(c, "peft.lora.lora_fa",
                        "is true and loraplus_lr_ratio given: A does not "
                        "learn at all, so leave the ratio out");
    const pf_lora_init_kind init = pf_lora_init_of(lora->init_lora_weights);
    if (init == PF_LORA_INIT_UNKNOWN)
        pf_cfg_complain(c, "peft.lora.init_lora_weights", "is '%s'; it should be %s",
                        lora->init_lora_weights, pf_lora_init_names);
    if (init != PF_LORA_INIT_EVA && pf_cfg_given(c, "peft.lora.eva_config"))
        pf_cfg_complain(c, "peft.lora.eva_config",
                        "is given, and init_lora_weights is %s, which looks at no data; make it "
                        "eva",
                        lora->init_lora_weights);
    if (lora->lora_bias && lora->use_dora)
        pf_cfg_complain(c, "peft.lora.lora_bias",
                        "does not go with use_dora; leave one of them out");
    if (lora->lora_bias && init != PF_LORA_INIT_KAIMING && init != PF_LORA_INIT_RANDOM)
        pf_cfg_complain(c, "peft.lora.lora_bias",
                        "goes with init_lora_weights true or false only, not with %s",
                        lora->init_lora_weights);
}

pf_token_lists pf_lora_token_lists(const pf_lora_cfg *cfg, pf_token_list room[1]) {
    if (cfg->trainable_token_indices.n == 0) return cfg->tokens;
    room[0] = (pf_token_list){.ids = cfg->trainable_token_indices};
    return (pf_token_lists){room, 1};
}

pf_target_rules pf_lora_rules(const pf_lora_cfg *cfg) {
    return (pf_target_rules){.key = "peft.lora",
                             .what = "LoRA",
                             .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_EMBEDDING |
                                      1u << PF_SITE_HEAD,
                             .acts_on = "linear layers, embeddings and the head",
                             .target_modules = cfg->target_modules,
                             .exclude_modules = cfg->exclude_modules,
                             .layers_to_transform = cfg->layers_to_transform,
                             .layers_pattern = cfg->layers_pattern,
                             .modules_to_save = cfg->modules_to_save,
                             .rank_pattern = cfg->rank_pattern,
                             .alpha_pattern = cfg->alpha_pattern,
                             .r = cfg->r,
                             .alpha = cfg->alpha};
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_off(const json_t *v) {
    if (v == NULL || json_is_null(v) || json_is_false(v)) return true;
    if (json_is_array(v)) return json_array_size(v) == 0;
    return json_is_object(v) && json_object_size(v) == 0;
}

static peft_status refuse_variants(const json_t *c, const char *where, peft_error *err) {
    static const struct {
        const char *key, *what;
    } variants[] = {
        {"use_qalora", "QALoRA"},
        {"use_bdlora", "block-diagonal LoRA"},
        {"alora_invocation_tokens", "activated LoRA"},
        {"target_parameters", "LoRA on parameters that are no module"},
        {"layer_replication", "layer replication"},
        {"megatron_config", "Megatron layers"},
        {"arrow_config", "Arrow routing"},
        {"kasa_config", "KaSA"},
        {"monteclora_config", "MonteCLoRA"},
        {"velora_config", "VeLoRA"},
    };
    for (size_t i = 0; i < PF_COUNT(variants); i++) {
        if (is_off(json_object_get(c, variants[i].key))) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: %s is set: %s is not supported yet; plain LoRA is", where,
                       variants[i].key, variants[i].what);
    }
    return PEFT_OK;
}

/* Initializations that take something out of the base weight: the adapter is right on the changed
 * base only. */
static peft_status read_init(const json_t *c, const char *where, const char **out,
                             peft_error *err) {
    static const char *const on_base[] = {"pissa", "olora", "corda", "loftq", "lora_ga", "mica"};
    const json_t *v = json_object_get(c, "init_lora_weights");
    const char *s = json_string_value(v);
    *out = json_is_false(v)            ? "false"
           : pf_streq(s, "gaussian")   ? "gaussian"
           : pf_streq(s, "orthogonal") ? "orthogonal"
                                       : "true";
    for (size_t i = 0; s != NULL && i < PF_COUNT(on_base); i++) {
        if (!pf_starts_with(s, on_base[i])) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: init_lora_weights is '%s', which changes the base weights when peft "
                       "loads it. Save the "
                       "adapter from peft with path_initial_model_for_weight_conversion, which "
                       "makes it plain LoRA",
                       where, s);
    }
    return PEFT_OK;
}

peft_status pf_lora_read_config(pf_arena *a, const struct json_t *c, const char *where,
                                const void **method_cfg, peft_error *err) {
    pf_lora_cfg *l = PF_NEW(a, pf_lora_cfg);
    pf_target_rules rules = {0};
    PF_CHECK_ALLOC(l, err);
    PF_TRY(refuse_variants(c, where, err));
    PF_TRY(read_init(c, where, &l->init_lora_weights, err));
    PF_TRY(pf_json_opt_int(c, where, "r", 8, 1, 65536, &l->r, err));
    PF_TRY(pf_json_opt_real(c, where, "lora_alpha", 8, &l->alpha, err));
    PF_TRY(pf_json_opt_real(c, where, "lora_dropout", 0, &l->dropout, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_rslora", false, &l->use_rslora, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_dora", false, &l->use_dora, err));
    PF_TRY(pf_json_opt_bool(c, where, "lora_bias", false, &l->lora_bias, err));
    PF_TRY(pf_json_opt_bool(c, where, "ensure_weight_tying", false, &l->ensure_weight_tying, err));
    if (!isfinite(l->alpha) || !(l->dropout >= 0 && l->dropout < 1)) {
        return PF_FAIL(
            err, PEFT_E_FORMAT,
            "%s: lora_alpha is %g and lora_dropout %g; alpha should be a number, dropout "
            "from 0 to below 1",
            where, l->alpha, l->dropout);
    }
    if (l->lora_bias && l->use_dora) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: lora_bias and use_dora are both set, which peft refuses too", where);
    }
    static const char *const biases[] = {"none", "all", "lora_only", NULL};
    PF_TRY(pf_peft_get_word(c, where, "bias", biases, "none", &l->bias, err));
    PF_TRY(pf_tokens_from_json(a, c, where, "trainable_token_indices", &l->tokens, err));
    PF_TRY(pf_targets_from_json(a, c, where, &rules, err));
    l->target_modules = rules.target_modules;
    l->exclude_modules = rules.exclude_modules;
    l->layers_pattern = rules.layers_pattern;
    l->modules_to_save = rules.modules_to_save;
    l->layers_to_transform = rules.layers_to_transform;
    l->rank_pattern = rules.rank_pattern;
    l->alpha_pattern = rules.alpha_pattern;
    *method_cfg = l;
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Ranks twice as large, and alphas so that the scale is the same. */
static void convert_map(pf_cfg_map *m, pf_cfg_pair *room, double by) {
    for (int i = 0; i < m->n; i++) {
        room[i] = m->items[i];
        room[i].number *= by;
    }
    m->items = room;
}

static peft_status write_rules(const pf_adapter *ad, const pf_lora_cfg *l, bool converted,
                               struct json_t *c, peft_error *err) {
    pf_target_rules rules = pf_lora_rules(l);
    pf_cfg_pair *room = NULL;
    if (converted) {
        const int n = rules.rank_pattern.n + rules.alpha_pattern.n;
        room = pf_calloc((size_t)n + 1, sizeof *room);
        PF_CHECK_ALLOC(room, err);
        convert_map(&rules.rank_pattern, room, 2);
        convert_map(&rules.alpha_pattern, room + rules.rank_pattern.n, l->use_rslora ? sqrt(2) : 2);
    }
    const peft_status status = pf_targets_to_json(ad, &rules, c, err);
    pf_free(room);
    return status;
}

peft_status pf_lora_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const pf_lora_cfg *l = ad->cfg.method_cfg;
    const bool converted = ((const pf_lora *)ad->state)->converted;
    const double twice = !converted ? 1 : l->use_rslora ? sqrt(2) : 2;
    int bad = 0;
    PF_TRY(write_rules(ad, l, converted, c, err));
    bad |= json_object_set_new(c, "r", json_integer(converted ? 2 * l->r : l->r));
    bad |= json_object_set_new(c, "lora_alpha", pf_peft_number(twice * l->alpha));
    bad |= json_object_set_new(c, "lora_dropout", json_real(l->dropout));
    bad |= json_object_set_new(c, "bias", json_string(l->bias));
    if (l->use_rslora) bad |= json_object_set_new(c, "use_rslora", json_true());
    if (ad->model->family->transposed_linears) /* a Conv1D, to peft */
        bad |= json_object_set_new(c, "fan_in_fan_out", json_true());
    if (l->use_dora) bad |= json_object_set_new(c, "use_dora", json_true());
    pf_token_list room[1];
    const pf_token_lists tokens = pf_lora_token_lists(l, room);
    if (tokens.n > 0)
        bad |= json_object_set_new(c, "trainable_token_indices", pf_tokens_to_json(&tokens));
    if (l->lora_bias) bad |= json_object_set_new(c, "lora_bias", json_true());
    if (l->ensure_weight_tying) bad |= json_object_set_new(c, "ensure_weight_tying", json_true());
    switch (pf_lora_init_of(l->init_lora_weights)) {
    case PF_LORA_INIT_RANDOM:
        bad |= json_object_set_new(c, "init_lora_weights", json_false());
        break;
    case PF_LORA_INIT_GAUSSIAN:
        bad |= json_object_set_new(c, "init_lora_weights", json_string("gaussian"));
        break;
    case PF_LORA_INIT_ORTHOGONAL:
        bad |= json_object_set_new(c, "init_lora_weights", json_string("orthogonal"));
        break;
    default:
        break;
    }
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
