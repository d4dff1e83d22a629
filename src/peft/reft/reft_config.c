/* reft_config.c - the sections loreft, noreft and direft, and `config` of AdapterHub's
 * adapter_config.json (adapters 1.3, ReftConfig).
 *
 * AdapterHub leaves subtract_projection out of its files, so a DiReFT file of its own reads as
 * NoReFT, there and here. Where it is false it is written here; AdapterHub loads such a file into
 * an adapter that was added with DiReftConfig before. */
#include "ops/activation/activation.h"
#include "peft/peft_json.h"
#include "peft/reft/reft.h"
#include "text/json.h"

#include <string.h>

/* ---- the sections ---------------------------------------------------------------------------- */

static const char *key_of(pf_cfg *c, const void *section, const char *key) {
    for (int i = 0; i < c->n; i++) {
        if (c->items[i].at != section) continue;
        const char *path = pf_arena_printf(c->arena, "%s.%s", c->items[i].path, key);
        return path != NULL ? path : key;
    }
    return key;
}

void pf_reft_check_config(pf_cfg *c, const void *section) {
    const pf_reft_cfg *r = section;
    if (r->suffix_positions > 0)
        pf_cfg_complain(c, key_of(c, section, "suffix_positions"),
                        "is %lld; only 0 is supported: the last positions of a text that is being "
                        "generated are not known",
                        (long long)r->suffix_positions);
    if (!pf_streq(r->non_linearity, "none") && pf_activation_find(r->non_linearity) == NULL)
        pf_cfg_complain(c, key_of(c, section, "non_linearity"),
                        "is %s; it should be none, relu, gelu, silu, tanh or another function that "
                        "transformers knows",
                        r->non_linearity);
    if (r->adapter_name[0] == 0 || strpbrk(r->adapter_name, ". \t\n") != NULL)
        pf_cfg_complain(c, key_of(c, section, "adapter_name"),
                        "should be one word without dots: it stands in the names of tensors");
}

/* clang-format off */
#define ROWS(orthogonal, subtract) {                                                                                            \
    PF_CFG_INT(pf_reft_cfg, r, 1, 1, 65536, "rank of the subspace that is edited"),                                             \
    PF_CFG_INTLIST(pf_reft_cfg, layers, 0, 100000, "only behind these layers, counted from 0; default: all"),                   \
    PF_CFG_INT(pf_reft_cfg, prefix_positions, 3, 1, 1 << 30, "how many positions at the beginning of a text are edited"),       \
    PF_CFG_INT(pf_reft_cfg, suffix_positions, 0, 0, 1 << 30, "how many at its end; only 0 is supported"),                       \
    PF_CFG_BOOL(pf_reft_cfg, orthogonality, orthogonal, "the projection has orthonormal rows"),                                 \
    PF_CFG_BOOL(pf_reft_cfg, subtract_projection, subtract, "the edit replaces what stands in the subspace, else it is added"), \
    PF_CFG_BOOL(pf_reft_cfg, tied_weights, false, "one unit for both ends of a text, else two in the file"),                    \
    PF_CFG_FLOAT(pf_reft_cfg, dropout, 0.05, 0, 1, "share of an edited row dropped, in training only", .flags = PF_CFG_BELOW_MAX), \
    PF_CFG_STR(pf_reft_cfg, non_linearity, "none", "function of the learned source: none, relu, gelu, silu, tanh and what else transformers knows"), \
    PF_CFG_STR(pf_reft_cfg, adapter_name, "default", "the adapter's name in its file, by which AdapterHub loads it"),           \
    PF_CFG_END}

static const pf_cfg_row loreft_rows[] = ROWS(true, true);
static const pf_cfg_row noreft_rows[] = ROWS(false, true);
static const pf_cfg_row direft_rows[] = ROWS(false, false);
/* clang-format on */

/* ---- files ----------------------------------------------------------------------------------- */

static bool is_reft(const json_t *c) {
    return pf_streq(json_string_value(json_object_get(c, "architecture")), "reft");
}
static bool is_loreft(const json_t *c) {
    return is_reft(c) && json_is_true(json_object_get(c, "orthogonality"));
}
static bool is_direft(const json_t *c) {
    return is_reft(c) && json_is_false(json_object_get(c, "subtract_projection"));
}

static peft_status read_layers(const json_t *c, const char *where, pf_arena *a, pf_reft_cfg *r,
                               peft_error *err) {
    const json_t *v = json_object_get(c, "layers");
    if (v == NULL || pf_streq(json_string_value(v), "all")) return PEFT_OK;
    PF_TRY(pf_peft_get_ints(a, c, where, "layers", &r->layers, err));
    if (r->layers.n > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: layers is empty: the adapter acts nowhere", where);
}

peft_status pf_reft_read_config(pf_arena *a, const json_t *file, const char *where,
                                const void **method_cfg, peft_error *err) {
    const json_t *c = json_object_get(file, "config");
    pf_reft_cfg *r = PF_NEW(a, pf_reft_cfg);
    PF_CHECK_ALLOC(r, err);
    PF_TRY(pf_peft_get_text(a, file, where, "name", "default", &r->adapter_name, err));
    PF_TRY(read_layers(c, where, a, r, err));
    PF_TRY(pf_json_opt_int(c, where, "r", 1, 1, 65536, &r->r, err));
    PF_TRY(
        pf_json_opt_int(c, where, "prefix_positions", 3, 0, INT32_MAX, &r->prefix_positions, err));
    PF_TRY(
        pf_json_opt_int(c, where, "suffix_positions", 0, 0, INT32_MAX, &r->suffix_positions, err));
    PF_TRY(pf_json_opt_bool(c, where, "orthogonality", false, &r->orthogonality, err));
    PF_TRY(pf_json_opt_bool(c, where, "tied_weights", false, &r->tied_weights, err));
    PF_TRY(pf_json_opt_bool(c, where, "subtract_projection", true, &r->subtract_projection, err));
    PF_TRY(pf_json_opt_real(c, where, "dropout", 0.05, &r->dropout, err));
    PF_TRY(pf_peft_get_text(a, c, where, "non_linearity", "none", &r->non_linearity, err));
    *method_cfg = r;
    if (r->suffix_positions > 0) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: suffix_positions is %lld; only 0 is supported: the last positions of a "
                       "text that is being generated are not known",
                       where, (long long)r->suffix_positions);
    }
    if (r->dropout >= 0 && r->dropout < 1) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: dropout should be at least 0 and below 1", where);
}

static json_t *layers_json(const pf_cfg_ints *layers) {
    if (layers->n == 0) return json_string("all");
    json_t *v = json_array();
    for (int i = 0; v != NULL && i < layers->n; i++) {
        if (json_array_append_new(v, json_integer(layers->items[i])) != 0) return NULL;
    }
    return v;
}

peft_status pf_reft_write_config(const pf_adapter *ad, json_t *file, peft_error *err) {
    const pf_reft_cfg *r = ad->cfg.method_cfg;
    json_t *c = json_object_get(file, "config");
    int bad = json_object_set_new(c, "architecture", json_string("reft"));
    bad |= json_object_set_new(c, "dropout", json_real(r->dropout));
    bad |= json_object_set_new(c, "dtype", json_null());
    bad |= json_object_set_new(c, "init_weights_seed", json_null());
    bad |= json_object_set_new(c, "layers", layers_json(&r->layers));
    bad |= json_object_set_new(c, "non_linearity",
                               pf_streq(r->non_linearity, "none") ? json_null()
                                                                  : json_string(r->non_linearity));
    bad |= json_object_set_new(c, "orthogonality", json_boolean(r->orthogonality));
    bad |= json_object_set_new(c, "output_reft", json_true());
    bad |= json_object_set_new(c, "prefix_positions", json_integer(r->prefix_positions));
    bad |= json_object_set_new(c, "r", json_integer(r->r));
    if (!r->subtract_projection) bad |= json_object_set_new(c, "subtract_projection", json_false());
    bad |= json_object_set_new(c, "suffix_positions", json_integer(r->suffix_positions));
    bad |= json_object_set_new(c, "tied_weights", json_boolean(r->tied_weights));
    bad |= json_object_set_new(file, "name", json_string(r->adapter_name));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

/* ---- descriptors ----------------------------------------------------------------------------- */

#define KIND(id, mark, help_text)                                                                  \
    const pf_method pf_method_##id = {                                                             \
        .name = #id,                                                                               \
        .help = help_text,                                                                         \
        .paper = "ReFT: Representation Finetuning for Language Models, Wu et al. 2024, arXiv "     \
                 "2404.03592",                                                                     \
        .cfg_rows = id##_rows,                                                                     \
        .cfg_size = sizeof(pf_reft_cfg),                                                           \
        .check_cfg = pf_reft_check_config,                                                         \
        .is_adapterhub = mark,                                                                     \
        .no_merge = "it edits rows at certain positions, which no weight can do",                  \
        .attach = pf_reft_attach,                                                                  \
        .init = pf_reft_init,                                                                      \
        .ready = pf_reft_ready,                                                                    \
        .has_dropout = pf_reft_has_dropout,                                                        \
        .read_config = pf_reft_read_config,                                                        \
        .write_config = pf_reft_write_config,                                                      \
    };

// clang-format off
KIND(loreft, is_loreft, "edits of representations in an orthogonal subspace, at the first positions (LoReFT, arXiv 2404.03592)")
KIND(noreft, is_reft, "loreft without orthogonality")
KIND(direft, is_direft, "loreft without orthogonality, added to what is there")
// clang-format on
