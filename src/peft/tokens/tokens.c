/* tokens.c - see tokens.h. On an embedding rows are put in place of the base's; on a head the
 * logits get the low-rank update that makes them those of the new rows (ops/embed/token_rows.h). */
#include "peft/tokens/tokens.h"

#include "base/hash.h"
#include "base/rng.h"
#include "ops/embed/token_rows.h"
#include "ops/matmul/lowrank.h"
#include "peft/match.h"
#include "peft/peft_json.h"
#include "peft/targets.h"
#include "text/json.h"

#include <string.h>

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status embedding_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                    uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    const pf_tokens *t = self;
    const pf_token_rows_args args = {t->slot, site->weight->rows};
    pf_value *rows = pf_graph_param(b->graph, t->rows);
    PF_CHECK_ALLOC(rows, err);
    return pf_token_rows(b->graph, site->name, *y, rows, &args, y, err);
}

static peft_status factors(pf_build *b, const pf_tokens *t, pf_site *site, pf_value **a,
                           pf_value **p, peft_error *err) {
    pf_value *w = pf_graph_weight(b->graph, site->weight);
    pf_value *rows = pf_graph_param(b->graph, t->rows);
    *p = pf_graph_param(b->graph, t->places);
    PF_CHECK_ALLOC(w, err);
    PF_CHECK_ALLOC(rows, err);
    PF_CHECK_ALLOC(*p, err);
    return pf_token_shift(b->graph, site->name, rows, w, t->ids, a, err);
}

static peft_status head_logits(pf_build *b, void *self, pf_site *site, pf_value *x,
                               uint32_t mask_key, pf_value **y, peft_error *err) {
    const pf_lowrank_args args = {.scale = 1, .mask_key = mask_key};
    pf_value *a, *p;
    PF_TRY(factors(b, self, site, &a, &p, err));
    return pf_lowrank(b->graph, site->name, *y, x, a, p, &args, y, err);
}

static peft_status head_loss(pf_build *b, void *self, pf_site *site, pf_value **a, pf_value **bb,
                             pf_head_ce_args *args, peft_error *err) {
    args->scale = 1;
    return factors(b, self, site, a, bb, err);
}

static const pf_site_hooks embedding_hooks = {.output = embedding_output};
static const pf_site_hooks head_hooks = {.output = head_logits, .head = head_loss};

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status find_site(pf_adapter *ad, const char *module, const char *key, pf_site **out,
                             peft_error *err) {
    const pf_model *m = ad->model;
    pf_site *const choices[] = {m->embedding, m->head};
    *out = module == NULL ? m->embedding : NULL;
    for (size_t i = 0; i < PF_COUNT(choices) && *out == NULL; i++) {
        if (choices[i] != NULL && pf_path_has_suffix(choices[i]->name, module)) *out = choices[i];
    }
    if (*out != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "%s: '%s' is neither the embedding (%s) nor the head of %s; single rows can be "
                   "trained there",
                   key, module, m->embedding->name, m->name);
}

static peft_status check_free(const pf_site *site, const char *key, peft_error *err) {
    if (site->attached == NULL && site->trained_weight == NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "%s: %s is in target_modules or modules_to_save too; it can be one of them", key,
                   site->name);
}

static peft_status take_ids(pf_adapter *ad, pf_tokens *t, const pf_cfg_ints *ids, const char *key,
                            peft_error *err) {
    const int64_t vocab = t->site->weight->rows;
    t->ids = PF_NEW_ARRAY(&ad->arena, int32_t, ids->n);
    t->slot = PF_NEW_ARRAY(&ad->arena, int32_t, vocab);
    PF_CHECK_ALLOC(t->ids, err);
    PF_CHECK_ALLOC(t->slot, err);
    for (int64_t i = 0; i < vocab; i++) t->slot[i] = -1;
    for (int k = 0; k < ids->n; k++) {
        const int64_t id = ids->items[k];
        if (id < 0 || id >= vocab) {
            return PF_FAIL(err, PEFT_E_CONFIG, "%s: there is no token %lld; %s has 0 to %lld", key,
                           (long long)id, t->site->name, (long long)vocab - 1);
        }
        if (t->slot[id] >= 0)
            return PF_FAIL(err, PEFT_E_CONFIG, "%s: token %lld is there twice", key, (long long)id);
        t->ids[k] = (int32_t)id;
        t->slot[id] = k;
    }
    return PEFT_OK;
}

/* The one-hot factor of a head. */
static peft_status add_places(pf_adapter *ad, pf_tokens *t, const pf_site *head, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.token_places", head->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_params_add(&ad->params, name, head->weight->rows, t->rows->rows, &t->places, err));
    t->places->unsaved = true;
    pf_params_fix(&ad->params, t->places);
    return PEFT_OK;
}

static peft_status attach_one(pf_adapter *ad, const pf_token_list *list, const char *key,
                              const char *suffix, pf_tokens *t, peft_error *err) {
    PF_TRY(find_site(ad, list->module, key, &t->site, err));
    t->given = list->module != NULL;
    if (list->ids.n == 0)
        return PF_FAIL(err, PEFT_E_CONFIG, "%s names no token of %s", key, t->site->name);
    const pf_model *m = ad->model;
    if (t->site == m->head && m->head->tied_to != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: %s shares its matrix with %s; name that one, and both are trained", key,
                       m->head->name, m->embedding->name);
    }
    if (t->site == m->embedding && m->head != NULL && m->head->tied_to == t->site)
        t->tied = m->head;
    PF_TRY(check_free(t->site, key, err));
    if (t->tied != NULL) PF_TRY(check_free(t->tied, key, err));
    PF_TRY(take_ids(ad, t, &list->ids, key, err));
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s", t->site->name, suffix);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_adapter_add_param(ad, name, list->ids.n, t->site->weight->cols, &t->rows, err));
    t->rows->may_idle = t->site->kind == PF_SITE_EMBEDDING; /* no row of the data shows them */
    if (t->site->kind == PF_SITE_EMBEDDING)
        PF_TRY(pf_adapter_hook(ad, t->site, &embedding_hooks, t, err));
    pf_site *head = t->site->kind == PF_SITE_HEAD ? t->site : t->tied;
    if (head == NULL) return PEFT_OK;
    PF_TRY(add_places(ad, t, head, err));
    return pf_adapter_hook(ad, head, &head_hooks, t, err);
}

peft_status pf_tokens_attach(pf_adapter *ad, const pf_token_lists *lists, const char *key,
                             const char *suffix, pf_tokens **out, peft_error *err) {
    *out = NULL;
    for (int i = 0; i < lists->n; i++) {
        pf_tokens *t = PF_NEW(&ad->arena, pf_tokens);
        PF_CHECK_ALLOC(t, err);
        PF_TRY(attach_one(ad, &lists->items[i], key, suffix, t, err));
        t->next = *out;
        *out = t;
    }
    return PEFT_OK;
}

/* ---- numbers --------------------------------------------------------------------------------- */

void pf_tokens_init(const pf_tokens *t, bool from_base, uint64_t seed) {
    for (; t != NULL; t = t->next) {
        pf_param *p = t->rows;
        const pf_rng_key key =
            pf_rng_make_key(seed, PF_RNG_INIT, pf_hash64(p->name, strlen(p->name), 0));
        for (int64_t k = 0; k < p->rows && from_base; k++)
            pf_weight_read_tile(t->site->weight, t->ids[k], 1, 0, p->cols, p->data + k * p->cols,
                                p->cols);
        for (int64_t i = 0; i < p->rows * p->cols && !from_base; i++)
            p->data[i] = (pf_real)(float)pf_rng_normal_at(key, (uint64_t)i);
    }
}

void pf_tokens_ready(const pf_tokens *t) {
    for (; t != NULL; t = t->next) {
        for (int64_t k = 0; t->places != NULL && k < t->rows->rows; k++)
            t->places->data[t->ids[k] * t->places->cols + k] = 1;
    }
}

static const pf_tokens *tokens_at(const pf_tokens *t, const pf_site *site) {
    while (t != NULL && t->site != site && t->tied != site) t = t->next;
    return t;
}

bool pf_tokens_touch(const pf_tokens *t, const pf_site *site) {
    return tokens_at(t, site) != NULL;
}

void pf_tokens_merge(const pf_tokens *t, const pf_site *site, int64_t row0, int64_t n,
                     float *rows) {
    t = tokens_at(t, site);
    if (t == NULL) return;
    const int64_t C = t->rows->cols;
    for (int64_t i = 0; i < n; i++) {
        const int32_t k = t->slot[row0 + i];
        for (int64_t c = 0; k >= 0 && c < C; c++) rows[i * C + c] = (float)t->rows->data[k * C + c];
    }
}

bool pf_tokens_keep_tie(const pf_adapter *ad, const pf_tokens *t) {
    const pf_tokens *e = tokens_at(t, ad->model->embedding);
    return e != NULL && e->tied != NULL;
}

/* ---- files ----------------------------------------------------------------------------------- */

peft_status pf_tokens_from_json(pf_arena *a, const struct json_t *c, const char *where,
                                const char *key, pf_token_lists *out, peft_error *err) {
    const json_t *v = json_object_get(c, key);
    const char *name;
    json_t *ids;
    *out = (pf_token_lists){0};
    if (v == NULL || json_is_null(v)) return PEFT_OK;
    const size_t n = json_is_object(v) ? json_object_size(v) : 1;
    out->items = PF_NEW_ARRAY(a, pf_token_list, n);
    PF_CHECK_ALLOC(out->items, err);
    if (!json_is_object(v)) {
        out->n = 1;
        return pf_peft_get_ints(a, c, where, key, &out->items[0].ids, err);
    }
    json_object_foreach((json_t *)v, name, ids) {
        pf_token_list *l = &out->items[out->n++];
        l->module = pf_arena_strdup(a, name);
        PF_CHECK_ALLOC(l->module, err);
        PF_TRY(pf_peft_get_ints(a, v, where, name, &l->ids, err));
    }
    return PEFT_OK;
}

static json_t *numbers(const pf_cfg_ints *l) {
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(list, json_integer(l->items[i]));
    return list;
}

struct json_t *pf_tokens_to_json(const pf_token_lists *lists) {
    if (lists->n == 1 && lists->items[0].module == NULL) return numbers(&lists->items[0].ids);
    json_t *map = json_object();
    for (int i = 0; i < lists->n; i++)
        json_object_set_new(map, lists->items[i].module, numbers(&lists->items[i].ids));
    return map;
}
