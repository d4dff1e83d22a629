/* hub_lora_config.c - the sections adapterhub_lora and adapterhub_ia3, and `config` of AdapterHub's
 * adapter_config.json of architecture lora (adapters 1.3, LoRAConfig): one set of keys, with other
 * defaults for (IA)3. Refused by name: what is VeRA, DoRA or MTL-LoRA there. */
#include "peft/hub/hub_lora.h"

#include "peft/peft_json.h"
#include "text/json.h"

#include <string.h>

static const char *key_of(pf_cfg *c, const void *section, const char *key) {
    for (int i = 0; i < c->n; i++) {
        if (c->items[i].at != section) continue;
        const char *path = pf_arena_printf(c->arena, "%s.%s", c->items[i].path, key);
        return path != NULL ? path : key;
    }
    return key;
}

/* A letter that is no matrix of attention. */
static const char *not_a_matrix(const pf_hub_lora_cfg *l) {
    for (int i = 0; i < l->attn_matrices.list.n; i++) {
        const char *word = l->attn_matrices.list.items[i];
        if (strlen(word) != 1 || strchr("qkv", word[0]) == NULL) return word;
    }
    return NULL;
}

static void check_config(pf_cfg *c, const void *section) {
    const pf_hub_lora_cfg *l = section;
    const char *word = not_a_matrix(l);
    if (word != NULL)
        pf_cfg_complain(c, key_of(c, section, "attn_matrices"), "has '%s'; it should be q, k or v",
                        word);
    if (l->adapter_name[0] == 0 || strpbrk(l->adapter_name, ". \t\n") != NULL)
        pf_cfg_complain(c, key_of(c, section, "adapter_name"),
                        "should be one word without dots: it stands in the names of tensors");
}

/* clang-format off */
#define ROWS(intermediate, matrices, rank, scale, mode, first) {                                                                 \
    PF_CFG_INT(pf_hub_lora_cfg, r, rank, 1, 65536, "rank of the update"),                                                       \
    PF_CFG_FLOAT(pf_hub_lora_cfg, alpha, scale, 0, 1e6, "the update is scaled by alpha / r; with use_gating it is not"),        \
    PF_CFG_FLOAT(pf_hub_lora_cfg, dropout, 0, 0, 1, "share of the update's input dropped, in training only", .flags = PF_CFG_BELOW_MAX), \
    PF_CFG_BOOL(pf_hub_lora_cfg, selfattn_lora, true, "act on the matrices of attention that attn_matrices names"),             \
    PF_CFG_STRLIST(pf_hub_lora_cfg, attn_matrices, matrices, "q, k, v"),                                                        \
    PF_CFG_BOOL(pf_hub_lora_cfg, intermediate_lora, intermediate, "act on the MLP's first matrix (of Llama and Mistral its last, as in AdapterHub)"), \
    PF_CFG_BOOL(pf_hub_lora_cfg, output_lora, false, "act on the MLP's last matrix (of Llama and Mistral up_proj)"),            \
    PF_CFG_INTLIST(pf_hub_lora_cfg, leave_out, 0, 100000, "layers that are left as they are, counted from 0"),                  \
    PF_CFG_BOOL(pf_hub_lora_cfg, use_gating, false, "a gate learns how much of the update a text gets: the mean over its tokens, those to come too"), \
    PF_CFG_ENUM(pf_hub_lora_cfg, composition_mode, mode, "add scale", "the update is added, or the output is scaled by a vector ((IA)3)"), \
    PF_CFG_ENUM(pf_hub_lora_cfg, init_weights, first, "lora bert ia3", "first weights: A uniform and B zero, both normal (std 0.02), or ones"), \
    PF_CFG_STR(pf_hub_lora_cfg, adapter_name, "default", "the adapter's name in its file, by which AdapterHub loads it"),       \
    PF_CFG_END}

static const pf_cfg_row lora_rows[] = ROWS(false, "q,v", 8, 8, "add",   "lora");
static const pf_cfg_row ia3_rows[]  = ROWS(true,  "k,v", 1, 1, "scale", "ia3");
/* clang-format on */

/* ---- files ----------------------------------------------------------------------------------- */

static bool is_any(const json_t *c) {
    return pf_streq(json_string_value(json_object_get(c, "architecture")), "lora");
}

static bool is_ia3(const json_t *c) {
    return is_any(c) &&
           pf_streq(json_string_value(json_object_get(c, "composition_mode")), "scale");
}

peft_status pf_hub_lora_read_config(pf_arena *a, const json_t *file, const char *where,
                                    const void **method_cfg, peft_error *err) {
    static const char *const modes[] = {"add", "scale", NULL}, *const inits[] = {"lora", "bert",
                                                                                 "ia3", NULL};
    const json_t *c = json_object_get(file, "config");
    pf_hub_lora_cfg *l = PF_NEW(a, pf_hub_lora_cfg);
    PF_CHECK_ALLOC(l, err);
    if (json_is_number(json_object_get(c, "vera_d")) ||
        json_is_number(json_object_get(c, "vera_b"))) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: vera_d is given: this is VeRA as AdapterHub keeps it, which is not read; "
            "its LoRA and (IA)3 are",
            where);
    }
    if (json_is_true(json_object_get(c, "use_dora"))) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: use_dora is true: this is DoRA as AdapterHub keeps it, which is not "
                       "read; its LoRA and (IA)3 are",
                       where);
    }
    const struct {
        const char *key;
        bool def, *at;
    } flags[] = {
        {"selfattn_lora", true, &l->selfattn_lora},
        {"intermediate_lora", false, &l->intermediate_lora},
        {"output_lora", false, &l->output_lora},
        {"use_gating", false, &l->use_gating},
    };
    for (size_t i = 0; i < PF_COUNT(flags); i++)
        PF_TRY(pf_json_opt_bool(c, where, flags[i].key, flags[i].def, flags[i].at, err));
    PF_TRY(pf_peft_get_text(a, file, where, "name", "default", &l->adapter_name, err));
    PF_TRY(pf_json_opt_int(c, where, "r", 8, 1, 65536, &l->r, err));
    PF_TRY(pf_json_opt_real(c, where, "alpha", 8, &l->alpha, err));
    PF_TRY(pf_json_opt_real(c, where, "dropout", 0, &l->dropout, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "attn_matrices", &l->attn_matrices, err));
    if (json_object_get(c, "attn_matrices") == NULL) {
        PF_TRY(pf_strlist_add(&l->attn_matrices.list, a, "q", err));
        PF_TRY(pf_strlist_add(&l->attn_matrices.list, a, "v", err));
    }
    PF_TRY(pf_peft_get_ints(a, c, where, "leave_out", &l->leave_out, err));
    PF_TRY(pf_peft_get_word(c, where, "composition_mode", modes, "add", &l->composition_mode, err));
    PF_TRY(pf_peft_get_word(c, where, "init_weights", inits, "lora", &l->init_weights, err));
    *method_cfg = l;
    const char *word = not_a_matrix(l);
    if (word != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: attn_matrices has '%s'; q, k and v are supported", where, word);
    }
    if (l->dropout >= 0 && l->dropout < 1) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: dropout should be at least 0 and below 1", where);
}

static json_t *ints(const pf_cfg_ints *list) {
    json_t *v = json_array();
    for (int i = 0; v != NULL && i < list->n; i++) {
        if (json_array_append_new(v, json_integer(list->items[i])) != 0) return NULL;
    }
    return v;
}

static json_t *letters(const pf_strlist *list) {
    json_t *v = json_array();
    for (int i = 0; v != NULL && i < list->n; i++) {
        if (json_array_append_new(v, json_string(list->items[i])) != 0) return NULL;
    }
    return v;
}

peft_status pf_hub_lora_write_config(const pf_adapter *ad, json_t *file, peft_error *err) {
    const pf_hub_lora_cfg *l = ad->cfg.method_cfg;
    json_t *c = json_object_get(file, "config");
    const struct {
        const char *key;
        json_t *value;
    } keys[] = {
        {"alpha", pf_peft_number(l->alpha)},
        {"architecture", json_string("lora")},
        {"attn_matrices", letters(&l->attn_matrices.list)},
        {"composition_mode", json_string(l->composition_mode)},
        {"dropout", json_real(l->dropout)},
        {"dtype", json_null()},
        {"init_weights", json_string(l->init_weights)},
        {"init_weights_seed", json_null()},
        {"intermediate_lora", json_boolean(l->intermediate_lora)},
        {"leave_out", ints(&l->leave_out)},
        {"output_lora", json_boolean(l->output_lora)},
        {"r", json_integer(l->r)},
        {"selfattn_lora", json_boolean(l->selfattn_lora)},
        {"use_dora", json_false()},
        {"use_gating", json_boolean(l->use_gating)},
        {"vera_b", json_null()},
        {"vera_d", json_null()},
    };
    int bad = 0;
    for (size_t i = 0; i < PF_COUNT(keys); i++)
        bad |= json_object_set_new(c, keys[i].key, keys[i].value);
    bad |= json_object_set_new(file, "name", json_string(l->adapter_name));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* clang-format off */
#define KIND(id, mark, rows, help_text, paper_text)                                                                             \
    const pf_method pf_method_##id = {                                                                                          \
        .name = #id,                                                                                                            \
        .help = help_text,                                                                                                      \
        .paper = paper_text,                                                                                                    \
        .cfg_rows = rows,                                                                                                       \
        .cfg_size = sizeof(pf_hub_lora_cfg),                                                                                    \
        .check_cfg = check_config,                                                                                              \
        .is_adapterhub = mark,                                                                                                  \
        .attach = pf_hub_lora_attach,                                                                                           \
        .init = pf_hub_lora_init,                                                                                               \
        .ready = pf_hub_lora_ready,                                                                                             \
        .touches = pf_hub_lora_touches,                                                                                         \
        .merge_weight = pf_hub_lora_merge,                                                                                      \
        .touches_bias = pf_hub_lora_touches_bias,                                                                               \
        .merge_bias = pf_hub_lora_merge_bias,                                                                                   \
        .has_dropout = pf_hub_lora_has_dropout,                                                                                 \
        .read_config = pf_hub_lora_read_config,                                                                                 \
        .write_config = pf_hub_lora_write_config,                                                                               \
    };

KIND(adapterhub_ia3, is_ia3, ia3_rows, "(IA)3 in AdapterHub's files, with its gates (arXiv 2205.05638)",
     "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, Liu et al. 2022, arXiv 2205.05638")
KIND(adapterhub_lora, is_any, lora_rows, "LoRA in AdapterHub's files, with its gates (arXiv 2106.09685; gates: UniPELT, arXiv 2110.07577)",
     "LoRA: Low-Rank Adaptation of Large Language Models, Hu et al. 2021, arXiv 2106.09685")
/* clang-format on */
