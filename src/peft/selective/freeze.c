/* freeze.c - freeze tuning: some blocks of the base are trained whole, the rest stays (the `freeze`
 * of LLaMA-Factory, whose keys these are; Zheng et al. 2024, arXiv 2403.13372).
 *
 * The last freeze_trainable_layers blocks (the first ones, where it is negative), in them all
 * modules or those that freeze_trainable_modules names by the first part of their name inside of a
 * block (self_attn, mlp, input_layernorm), and what freeze_extra_modules names outside of the
 * blocks. A matrix that embedding and head share stays one. Not a PEFT type: tensors have the
 * base's names, so what is saved is a part of a state dict that transformers loads with
 * load_state_dict(..., strict=False). */
#include "peft/peft_json.h"

#include "base/buf.h"
#include "text/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct freeze_cfg {
    int64_t freeze_trainable_layers;
    pf_cfg_strings freeze_trainable_modules, freeze_extra_modules;
} freeze_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INT(freeze_cfg, freeze_trainable_layers, 2, -10000, 10000, "so many blocks are trained: the last ones; the first ones where it is negative"),
    PF_CFG_STRLIST(freeze_cfg, freeze_trainable_modules, "all", "which modules of those blocks: all, or names such as self_attn, mlp, input_layernorm"),
    PF_CFG_STRLIST(freeze_cfg, freeze_extra_modules, NULL, "modules outside of the blocks that are trained too, such as embed_tokens, norm, lm_head"),
    PF_CFG_END};
// clang-format on

/* LLaMA-Factory writes lists as one text with commas. */
static peft_status split(pf_arena *a, const pf_cfg_strings *s, pf_strlist *out, peft_error *err) {
    *out = (pf_strlist){0};
    for (int i = 0; i < s->list.n; i++) {
        const char *at = s->list.items[i];
        for (;;) {
            at += strspn(at, ", ");
            const size_t n = strcspn(at, ", ");
            if (n == 0) break;
            const char *one = pf_arena_printf(a, "%.*s", (int)n, at);
            PF_CHECK_ALLOC(one, err);
            PF_TRY(pf_strlist_add(out, a, one, err));
            at += n;
        }
    }
    return PEFT_OK;
}

/* What stands behind the block's number in a path: "mlp.up_proj"; the path where it is in none. */
static const char *inside(const pf_site *site) {
    char number[32];
    snprintf(number, sizeof number, ".%d.", site->layer);
    const char *at = site->layer < 0 ? NULL : strstr(site->name, number);
    return at == NULL ? site->name : at + strlen(number);
}

static bool is_part(const char *path, const char *name) {
    const size_t n = strlen(name);
    return strncmp(path, name, n) == 0 && (path[n] == '.' || path[n] == 0);
}

typedef struct picker {
    pf_adapter *ad;
    const freeze_cfg *cfg;
    pf_strlist modules, extra;
    bool all;
    bool hit[2][256]; /* which names matched something: modules, extra */
} picker;

static bool find(const pf_strlist *names, const char *path, bool whole_suffix, bool *hit) {
    bool any = false;
    for (int i = 0; i < names->n; i++) {
        const char *end = path + strlen(path) - strlen(names->items[i]);
        const bool is_end = strlen(names->items[i]) <= strlen(path) &&
                            pf_streq(end, names->items[i]) && (end == path || end[-1] == '.');
        if (!(whole_suffix ? is_end : is_part(path, names->items[i]))) continue;
        any = true;
        if (i < 256) hit[i] = true;
    }
    return any;
}

static bool is_picked(picker *p, const pf_site *site) {
    const int64_t n = p->cfg->freeze_trainable_layers, layers = p->ad->model->n_layers;
    if (site->always_trained) return true; /* a head that is made new */
    if (site->layer < 0) return find(&p->extra, site->name, true, p->hit[1]);
    if (n >= 0 ? site->layer < layers - n : site->layer >= -n) return false;
    return find(&p->modules, inside(site), false, p->hit[0]) || p->all;
}

static peft_status train(pf_adapter *ad, pf_site *site, peft_error *err) {
    if (site->tied_to != NULL && site->tied_to->trained_weight != NULL) {
        PF_TRY(pf_adapter_train_shared(ad, site, false, site->tied_to->trained_weight, err));
    } else {
        PF_TRY(pf_adapter_train_whole(ad, site, false, site->weight->name, false, err));
    }
    if (site->bias == NULL) return PEFT_OK;
    return pf_adapter_train_whole(ad, site, true, site->bias->name, false, err);
}

/* One matrix at two sites is trained at both, whichever was named. */
static peft_status share_ties(pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_site *site = ad->model->sites[i], *other = site->tied_to;
        if (other == NULL) continue;
        if (site->trained_weight != NULL && other->trained_weight == NULL)
            PF_TRY(pf_adapter_train_shared(ad, other, false, site->trained_weight, err));
        if (site->trained_weight == NULL && other->trained_weight != NULL)
            PF_TRY(pf_adapter_train_shared(ad, site, false, other->trained_weight, err));
    }
    return PEFT_OK;
}

static peft_status fail_unmatched(const picker *p, const char *key, const char *name,
                                  bool in_blocks, peft_error *err) {
    const pf_model *m = p->ad->model;
    pf_strlist known = {0};
    pf_arena scratch;
    pf_buf list = {0};
    peft_status status = PEFT_OK;
    pf_arena_init(&scratch, "scratch");
    for (int i = 0; i < m->n_sites && status == PEFT_OK; i++) {
        const pf_site *s = m->sites[i];
        if (s->weight == NULL || (s->layer >= 0) != in_blocks) continue;
        const char *part = inside(s), *dot = strrchr(part, '.');
        part = in_blocks     ? pf_arena_printf(&scratch, "%.*s", (int)strcspn(part, "."), part)
               : dot != NULL ? dot + 1
                             : part;
        if (part == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (part != NULL && !pf_strlist_has(&known, part))
            status = pf_strlist_add(&known, &scratch, part, err);
    }
    for (int i = 0; i < known.n; i++)
        pf_buf_addf(&list, "%s %s", i == 0 ? "" : ",", known.items[i]);
    if (status == PEFT_OK) {
        status = PF_FAIL(err, PEFT_E_CONFIG,
                         "peft.freeze.%s: '%s' names nothing %s the blocks of %s; there are%s", key,
                         name, in_blocks ? "in" : "outside of", m->name, pf_buf_str(&list));
    }
    pf_buf_free(&list);
    pf_arena_release(&scratch);
    return status;
}

static peft_status check_names(const picker *p, peft_error *err) {
    for (int i = 0; i < p->modules.n && i < 256; i++) {
        if (p->hit[0][i] || pf_streq(p->modules.items[i], "all")) continue;
        return fail_unmatched(p, "freeze_trainable_modules", p->modules.items[i], true, err);
    }
    for (int i = 0; i < p->extra.n && i < 256; i++) {
        if (p->hit[1][i]) continue;
        return fail_unmatched(p, "freeze_extra_modules", p->extra.items[i], false, err);
    }
    return PEFT_OK;
}

static peft_status freeze_attach(pf_adapter *ad, peft_error *err) {
    const pf_model *m = ad->model;
    const freeze_cfg *cfg = ad->cfg.method_cfg;
    picker p = {.ad = ad, .cfg = cfg};
    if (llabs((long long)cfg->freeze_trainable_layers) > m->n_layers) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.freeze.freeze_trainable_layers is %lld; %s has %d blocks",
                       (long long)cfg->freeze_trainable_layers, m->name, m->n_layers);
    }
    PF_TRY(split(&ad->arena, &cfg->freeze_trainable_modules, &p.modules, err));
    PF_TRY(split(&ad->arena, &cfg->freeze_extra_modules, &p.extra, err));
    p.all = p.modules.n == 0 || pf_strlist_has(&p.modules, "all");
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *site = m->sites[i];
        if (site->weight != NULL && is_picked(&p, site)) PF_TRY(train(ad, site, err));
    }
    PF_TRY(share_ties(ad, err));
    if (cfg->freeze_trainable_layers != 0 || p.extra.n > 0) PF_TRY(check_names(&p, err));
    if (ad->n_trained > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "peft.freeze: nothing is trained; freeze_trainable_layers is 0 and "
                   "freeze_extra_modules names nothing");
}

static peft_status freeze_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)ad, (void)seed, (void)err; /* the copies hold the base's numbers already */
    return PEFT_OK;
}

static peft_status freeze_read_config(pf_arena *a, const struct json_t *c, const char *where,
                                      const void **method_cfg, peft_error *err) {
    freeze_cfg *cfg = PF_NEW(a, freeze_cfg);
    PF_CHECK_ALLOC(cfg, err);
    PF_TRY(pf_json_opt_int(c, where, "freeze_trainable_layers", 2, -10000, 10000,
                           &cfg->freeze_trainable_layers, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "freeze_trainable_modules",
                               &cfg->freeze_trainable_modules, err));
    PF_TRY(
        pf_peft_get_strings(a, c, where, "freeze_extra_modules", &cfg->freeze_extra_modules, err));
    *method_cfg = cfg;
    return PEFT_OK;
}

static peft_status freeze_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const freeze_cfg *cfg = ad->cfg.method_cfg;
    int bad = json_object_set_new(c, "freeze_trainable_layers",
                                  json_integer(cfg->freeze_trainable_layers));
    bad |= json_object_set_new(c, "freeze_trainable_modules",
                               pf_peft_strings(&cfg->freeze_trainable_modules));
    if (cfg->freeze_extra_modules.list.n > 0) {
        bad |= json_object_set_new(c, "freeze_extra_modules",
                                   pf_peft_strings(&cfg->freeze_extra_modules));
    }
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_freeze = {
    .name = "freeze",
    .paper = "freeze tuning as in LlamaFactory: Unified Efficient Fine-Tuning of 100+ Language "
             "Models, Zheng et al. 2024, arXiv 2403.13372",
    .help = "some blocks of the base whole, saved as a part of a state dict (freeze tuning)",
    .cfg_rows = rows,
    .cfg_size = sizeof(freeze_cfg),
    .peft_type = "FREEZE",
    .state_dict = true,
    .attach = freeze_attach,
    .init = freeze_init,
    .read_config = freeze_read_config,
    .write_config = freeze_write_config,
};
