/* trainable_tokens.c - chosen rows of the embedding, and nothing else (peft's TRAINABLE_TOKENS, no
 * paper: huggingface/peft pull request 2376). The rows begin as the base's. */
#include "peft/peft_json.h"
#include "peft/tokens/tokens.h"

#include "text/json.h"

#include <string.h>

typedef struct tokens_cfg {
    pf_cfg_ints token_indices;
    pf_cfg_strings target_modules;
    bool init_weights;
} tokens_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INTLIST(tokens_cfg, token_indices, 0, 100000000, "ids of the tokens whose rows are trained (peft-toolkit tokenize shows them)"),
    PF_CFG_STRLIST(tokens_cfg, target_modules, NULL, "names (suffixes) of the modules: the embedding or the head; default: the embedding, and with it a head that shares its matrix"),
    PF_CFG_BOOL(tokens_cfg, init_weights, true, "rows begin as the base's; false: normal numbers"),
    PF_CFG_END};
// clang-format on

static void check_cfg(pf_cfg *c, const void *section) {
    const tokens_cfg *cfg = section;
    if (cfg->token_indices.n == 0)
        pf_cfg_complain(c, "peft.trainable_tokens.token_indices", "names no token to train");
}

static peft_status tokens_attach(pf_adapter *ad, peft_error *err) {
    const tokens_cfg *cfg = ad->cfg.method_cfg;
    const int n = cfg->target_modules.list.n;
    pf_token_lists lists = {.n = n > 0 ? n : 1};
    pf_tokens *t;
    lists.items = PF_NEW_ARRAY(&ad->arena, pf_token_list, lists.n);
    PF_CHECK_ALLOC(lists.items, err);
    for (int i = 0; i < lists.n; i++) {
        lists.items[i] = (pf_token_list){.module = n > 0 ? cfg->target_modules.list.items[i] : NULL,
                                         .ids = cfg->token_indices};
    }
    PF_TRY(
        pf_tokens_attach(ad, &lists, "peft.trainable_tokens", ".trainable_tokens_delta", &t, err));
    ad->state = t;
    return PEFT_OK;
}

static peft_status tokens_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    pf_tokens_init(ad->state, ((const tokens_cfg *)ad->cfg.method_cfg)->init_weights, seed);
    return PEFT_OK;
}

static void tokens_ready(pf_adapter *ad) {
    pf_tokens_ready(ad->state);
}

static bool tokens_touches(const pf_adapter *ad, const pf_site *site) {
    return pf_tokens_touch(ad->state, site);
}

static bool keeps_tie(const pf_adapter *ad) {
    return pf_tokens_keep_tie(ad, ad->state);
}

/* peft writes the rows of a head that shares the matrix a second time. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    const char *name = ad->model->head != NULL ? ad->model->head->name : "";
    const char *at = strstr(tensor, name);
    return keeps_tie(ad) && at != NULL && pf_streq(at + strlen(name), ".trainable_tokens_delta");
}

static peft_status tokens_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                                float *out, peft_error *err) {
    (void)err;
    pf_tokens_merge(ad->state, site, row0, n, out);
    return PEFT_OK;
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **method_cfg, peft_error *err) {
    tokens_cfg *cfg = PF_NEW(a, tokens_cfg);
    PF_CHECK_ALLOC(cfg, err);
    PF_TRY(pf_peft_get_ints(a, c, where, "token_indices", &cfg->token_indices, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "target_modules", &cfg->target_modules, err));
    PF_TRY(pf_json_opt_bool(c, where, "init_weights", true, &cfg->init_weights, err));
    *method_cfg = cfg;
    return PEFT_OK;
}

/* The usual module as peft names it: one text, the last part of the embedding's path. */
static json_t *modules(const pf_adapter *ad, const tokens_cfg *cfg) {
    if (cfg->target_modules.list.n > 0) return pf_peft_strings(&cfg->target_modules);
    const char *name = ad->model->embedding->name, *dot = strrchr(name, '.');
    return json_string(dot == NULL ? name : dot + 1);
}

static peft_status write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const tokens_cfg *cfg = ad->cfg.method_cfg;
    const pf_token_list list = {.ids = cfg->token_indices};
    const pf_token_lists lists = {(pf_token_list *)(uintptr_t)&list, 1};
    int bad = json_object_set_new(c, "token_indices", pf_tokens_to_json(&lists));
    bad |= json_object_set_new(c, "target_modules", modules(ad, cfg));
    if (!cfg->init_weights) bad |= json_object_set_new(c, "init_weights", json_false());
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_trainable_tokens = {
    .name = "trainable_tokens",
    .help = "chosen rows of the embedding (peft's TRAINABLE_TOKENS)",
    .cfg_rows = rows,
    .cfg_size = sizeof(tokens_cfg),
    .check_cfg = check_cfg,
    .paper = "no paper: peft 0.15, huggingface/peft pull request 2376",
    .peft_type = "TRAINABLE_TOKENS",
    .attach = tokens_attach,
    .init = tokens_init,
    .ready = tokens_ready,
    .touches = tokens_touches,
    .merge_weight = tokens_merge,
    .keeps_tie = keeps_tie,
    .repeats = repeats,
    .read_config = read_config,
    .write_config = write_config,
};
