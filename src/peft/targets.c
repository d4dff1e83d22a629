/* targets.c - from names and patterns to sites; see targets.h.
 *
 * The rules are those of peft's tuners_utils.check_target_module_exists and of _set_trainable, in
 * their order: what is excluded or trained whole is no target; then the list or the expression;
 * then the layers. What peft passes over (a name in a list that matches nothing) is an error here
 * while a configuration attaches, for it is a misspelling more often than not. Adapters from a
 * folder are let pass: their tensors are checked one by one. */
#include "peft/targets.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "peft/match.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef struct rules {
    pf_adapter *ad;
    const pf_target_rules *cfg;
    pf_strlist targets;
    bool all_linear;
    pf_pattern *target, *exclude; /* when one text is given in place of a list */
    pf_pattern **saved;           /* modules_to_save as patterns that keep the method away */
    pf_pattern **layers;          /* where in a path the number of the layer stands */
    pf_pattern **rank, **alpha;
    int n_saved, n_layers, n_rank, n_alpha;
    /* which entries matched something, for strictness */
    bool *target_hit, *exclude_hit, *saved_hit, *rank_hit, *alpha_hit;
    bool any_excluded;
} rules;

static void free_patterns(pf_pattern **list, int n) {
    for (int i = 0; list != NULL && i < n; i++) pf_pattern_free(list[i]);
    pf_free(list);
}

static void release_rules(rules *r) {
    pf_pattern_free(r->target);
    pf_pattern_free(r->exclude);
    free_patterns(r->saved, r->n_saved);
    free_patterns(r->layers, r->n_layers);
    free_patterns(r->rank, r->n_rank);
    free_patterns(r->alpha, r->n_alpha);
    pf_free(r->target_hit);
}

/* "peft.lora.rank_pattern" for messages; lives as long as the adapter. */
static const char *key_of(const rules *r, const char *name) {
    const char *key = pf_arena_printf(&r->ad->arena, "%s.%s", r->cfg->key, name);
    return key != NULL ? key : name;
}

static const char *const *usual_targets(const pf_adapter *ad, const pf_target_rules *c) {
    return c->usual != NULL ? c->usual : ad->model->family->default_targets;
}

static bool is_all_linear(const pf_cfg_strings *s) {
    return s->single && s->list.n == 1 && strcasecmp(s->list.items[0], "all-linear") == 0;
}

static bool is_expression(const pf_cfg_strings *s) {
    return s->single && s->list.n == 1;
}

/* ---- making the rules ------------------------------------------------------------------------ */

static peft_status new_list(pf_pattern ***list, int n, peft_error *err) {
    *list = pf_calloc((size_t)n + 1, sizeof **list);
    PF_CHECK_ALLOC(*list, err);
    return PEFT_OK;
}

/* Keys of rank_pattern and alpha_pattern: regular expressions for the end of a path. */
static peft_status make_map(const pf_cfg_map *map, const char *key, pf_pattern ***list, int *n,
                            peft_error *err) {
    PF_TRY(new_list(list, map->n, err));
    for (*n = 0; *n < map->n; ++*n) {
        PF_TRY(pf_pattern_new(&(*list)[*n], key, "(?:.*\\.)?(?:", map->items[*n].key, ")$", false,
                              err));
    }
    return PEFT_OK;
}

static peft_status make_layers(rules *r, peft_error *err) {
    const pf_target_rules *c = r->cfg;
    const char *key = key_of(r, "layers_pattern");
    int n = c->layers_pattern.list.n;
    PF_TRY(new_list(&r->layers, n, err));
    if (c->layers_to_transform.n == 0) return PEFT_OK;
    if (n == 0) { /* the first number in the path */
        r->n_layers = 1;
        return pf_pattern_new(&r->layers[0], key, "", ".*?\\.[^.]*\\.(\\d+)\\.", "", false, err);
    }
    for (; r->n_layers < n; r->n_layers++) {
        PF_TRY(pf_pattern_new(&r->layers[r->n_layers], key,
                              "(?:^|.*?\\.)(?:", c->layers_pattern.list.items[r->n_layers],
                              ")\\.(\\d+)\\.", false, err));
    }
    return PEFT_OK;
}

static peft_status check_combination(const rules *r, peft_error *err) {
    const pf_target_rules *c = r->cfg;
    if (c->layers_to_transform.n > 0 && is_expression(&c->target_modules) && !r->all_linear) {
        return PF_FAIL(
            err, PEFT_E_CONFIG,
            "%s.layers_to_transform cannot go with a regular expression in target_modules; put "
            "the layers into the expression, or give target_modules as a list",
            c->key);
    }
    if (c->layers_pattern.list.n > 0 && c->layers_to_transform.n == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG, "%s.layers_pattern needs layers_to_transform beside it",
                       c->key);
    }
    return PEFT_OK;
}

static peft_status make_rules(rules *r, peft_error *err) {
    const pf_target_rules *c = r->cfg;
    r->all_linear = is_all_linear(&c->target_modules);
    PF_TRY(check_combination(r, err));
    r->targets = c->target_modules.list;
    if (r->targets.n == 0 && c->kinds != 0) {
        const char *const *names = usual_targets(r->ad, c);
        if (names[0] == NULL) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "%s: %s has no usual modules (peft has none either); name them, or say "
                           "all-linear",
                           key_of(r, "target_modules"), r->ad->model->architecture);
        }
        r->targets.items = (const char **)names;
        while (names[r->targets.n] != NULL) r->targets.n++;
    } else if (is_expression(&c->target_modules) && !r->all_linear) {
        PF_TRY(pf_pattern_new(&r->target, key_of(r, "target_modules"), "", r->targets.items[0], "",
                              true, err));
    }
    if (is_expression(&c->exclude_modules)) {
        PF_TRY(pf_pattern_new(&r->exclude, key_of(r, "exclude_modules"), "",
                              c->exclude_modules.list.items[0], "", true, err));
    }
    PF_TRY(new_list(&r->saved, c->modules_to_save.list.n, err));
    for (; r->n_saved < c->modules_to_save.list.n; r->n_saved++) {
        PF_TRY(pf_pattern_new(&r->saved[r->n_saved], key_of(r, "modules_to_save"),
                              "(?:^|.*\\.)(?:", c->modules_to_save.list.items[r->n_saved],
                              ")(?:$|\\..*)", false, err));
    }
    PF_TRY(make_layers(r, err));
    PF_TRY(make_map(&c->rank_pattern, key_of(r, "rank_pattern"), &r->rank, &r->n_rank, err));
    PF_TRY(make_map(&c->alpha_pattern, key_of(r, "alpha_pattern"), &r->alpha, &r->n_alpha, err));

    size_t n = (size_t)r->targets.n, e = (size_t)c->exclude_modules.list.n, s = (size_t)r->n_saved;
    r->target_hit = pf_calloc(n + e + s + (size_t)r->n_rank + (size_t)r->n_alpha + 1, sizeof(bool));
    PF_CHECK_ALLOC(r->target_hit, err);
    r->exclude_hit = r->target_hit + n;
    r->saved_hit = r->exclude_hit + e;
    r->rank_hit = r->saved_hit + s;
    r->alpha_hit = r->rank_hit + r->n_rank;
    return PEFT_OK;
}

/* ---- one site -------------------------------------------------------------------------------- */

static bool list_matches(const pf_strlist *l, const char *path, bool *hit) {
    bool any = false;
    for (int i = 0; i < l->n; i++) {
        if (!pf_path_has_suffix(path, l->items[i])) continue;
        hit[i] = any = true;
    }
    return any;
}

/* peft trains a module whole when its path ends in the entry (without a dot before it: "norm" means
 * every norm); all that is inside goes with it. */
static bool is_saved_whole(rules *r, const pf_site *site) {
    const pf_strlist *l = &r->cfg->modules_to_save.list;
    const char *path = site->name;
    bool any = site->always_trained;
    for (int i = 0; i < l->n; i++) {
        size_t k = strlen(l->items[i]);
        for (size_t end = k; k > 0 && end <= strlen(path); end++) {
            if (path[end] != '.' && path[end] != 0) continue;
            if (memcmp(path + end - k, l->items[i], k) == 0) r->saved_hit[i] = any = true;
        }
    }
    return any;
}

static peft_status is_excluded(rules *r, const char *path, bool *out, peft_error *err) {
    if (r->exclude != NULL) {
        PF_TRY(pf_pattern_match(r->exclude, path, out, NULL, err));
        if (*out) r->exclude_hit[0] = true;
    } else {
        *out = list_matches(&r->cfg->exclude_modules.list, path, r->exclude_hit);
    }
    for (int i = 0; i < r->n_saved && !*out; i++)
        PF_TRY(pf_pattern_match(r->saved[i], path, out, NULL, err));
    return PEFT_OK;
}

static peft_status layer_is_wanted(const rules *r, const char *path, bool *out, peft_error *err) {
    const pf_cfg_ints *layers = &r->cfg->layers_to_transform;
    int64_t number = -1;
    bool hit = false;
    *out = layers->n == 0;
    if (*out) return PEFT_OK;
    for (int i = 0; i < r->n_layers && !hit; i++) {
        PF_TRY(pf_pattern_match(r->layers[i], path, &hit, &number, err));
    }
    for (int i = 0; i < layers->n; i++) {
        if (hit && layers->items[i] == number) *out = true;
    }
    return PEFT_OK;
}

static peft_status is_target(rules *r, const pf_site *site, bool *out, peft_error *err) {
    *out = false;
    if (r->all_linear) {
        *out = site->kind == PF_SITE_LINEAR;
    } else if (r->target != NULL) {
        PF_TRY(pf_pattern_match(r->target, site->name, out, NULL, err));
    } else {
        *out = list_matches(&r->targets, site->name, r->target_hit);
    }
    /* a whole path means its module whatever the layers are, as in peft: lm_head, too */
    const bool whole_path = r->target == NULL && pf_strlist_has(&r->targets, site->name);
    if (*out && r->target == NULL && !whole_path) PF_TRY(layer_is_wanted(r, site->name, out, err));
    return PEFT_OK;
}

/* The value of the first key that matches, or def. */
static peft_status from_pattern(const pf_cfg_map *map, pf_pattern *const *list, bool *hits,
                                const char *path, double def, double *out, peft_error *err) {
    *out = def;
    for (int i = 0; i < map->n; i++) {
        bool hit;
        PF_TRY(pf_pattern_match(list[i], path, &hit, NULL, err));
        if (!hit) continue;
        hits[i] = true;
        *out = map->items[i].number;
        return PEFT_OK;
    }
    return PEFT_OK;
}

static peft_status judge(rules *r, const pf_site *site, pf_target *t, peft_error *err) {
    bool excluded, target;
    double rank;
    t->whole = site->weight != NULL && is_saved_whole(r, site);
    if (r->cfg->kinds == 0) return PEFT_OK;
    PF_TRY(is_excluded(r, site->name, &excluded, err));
    excluded = excluded || site->always_trained; /* modules_to_save, as peft adds it */
    PF_TRY(is_target(r, site, &target, err));
    if (target && excluded) r->any_excluded = true;
    t->hit = target && !excluded;
    if (!t->hit) return PEFT_OK;
    if ((r->cfg->kinds >> site->kind & 1) == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG, "%s.target_modules: %s is a%s %s; %s acts on %s%s",
                       r->cfg->key, site->name,
                       strchr("aeiou", *pf_site_kind_name(site->kind)) != NULL ? "n" : "",
                       pf_site_kind_name(site->kind), r->cfg->what, r->cfg->acts_on,
                       site->kind == PF_SITE_NORM ? " (modules_to_save trains it whole)" : "");
    }
    if (t->whole) {
        return PF_FAIL(
            err, PEFT_E_CONFIG,
            "%s: %s is in target_modules and, by modules_to_save, trained whole; it can be one "
            "of them",
            r->cfg->key, site->name);
    }
    if (r->cfg->r == 0) return PEFT_OK; /* a method without ranks */
    PF_TRY(from_pattern(&r->cfg->rank_pattern, r->rank, r->rank_hit, site->name, (double)r->cfg->r,
                        &rank, err));
    PF_TRY(from_pattern(&r->cfg->alpha_pattern, r->alpha, r->alpha_hit, site->name, r->cfg->alpha,
                        &t->alpha, err));
    t->r = (int64_t)rank;
    if (t->r < 1 || t->r > 65536 || (double)t->r != rank) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: the rank of %s is %g; it should be a whole number, 8 is usual",
                       r->cfg->key, site->name, rank);
    }
    return PEFT_OK;
}

/* ---- strictness ------------------------------------------------------------------------------ */

/* The end of a path that has as many parts as the name: what a misspelt name could have meant. */
static const char *same_depth(const char *path, const char *name) {
    int dots = 0;
    for (const char *p = name; *p != 0; p++) dots += *p == '.';
    const char *at = path + strlen(path);
    while (at > path) {
        if (at[-1] == '.' && dots-- == 0) break;
        at--;
    }
    return at;
}

static peft_status fail_unmatched(const rules *r, const char *key, const char *name,
                                  peft_error *err) {
    const pf_model *m = r->ad->model;
    pf_strlist known = {0};
    pf_arena scratch;
    pf_buf hint = {0};
    peft_status status = PEFT_OK;
    pf_arena_init(&scratch, "scratch");
    for (int i = 0; i < m->n_sites && status == PEFT_OK; i++) {
        const char *part = same_depth(m->sites[i]->name, name);
        if (m->sites[i]->weight != NULL && !pf_strlist_has(&known, part)) {
            status = pf_strlist_add(&known, &scratch, part, err);
        }
    }
    int near = pf_nearest(name, known.items, known.n);
    if (near >= 0) {
        pf_buf_addf(&hint, "did you mean '%s'?", known.items[near]);
    } else {
        pf_buf_adds(&hint, "it has");
        for (int i = 0; i < known.n && i < 12; i++) {
            pf_buf_addf(&hint, "%s %s", i == 0 ? "" : ",", known.items[i]);
        }
        if (known.n > 12) pf_buf_adds(&hint, ", ...");
    }
    if (status == PEFT_OK) {
        status = PF_FAIL(err, PEFT_E_CONFIG, "%s.%s: '%s' matches no module of %s (%s); %s",
                         r->cfg->key, key, name, m->name, m->architecture, pf_buf_str(&hint));
    }
    pf_buf_free(&hint);
    pf_arena_release(&scratch);
    return status;
}

/* The usual mistake: one name where a list was meant. */
static peft_status fail_expression(const rules *r, peft_error *err) {
    const pf_model *m = r->ad->model;
    const char *text = r->targets.items[0], *example = "";
    for (int i = 0; i < m->n_sites; i++) {
        if (m->sites[i]->kind == PF_SITE_LINEAR) example = m->sites[i]->name;
        if (pf_path_has_suffix(m->sites[i]->name, text)) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "%s.target_modules: '%s' is one text, so a regular expression for whole "
                           "paths, and %s is no whole path; write [%s] for every module of that "
                           "name",
                           r->cfg->key, text, text, text);
        }
    }
    return PF_FAIL(
        err, PEFT_E_CONFIG,
        "%s.target_modules: the expression '%s' matches no whole path of %s (%s), such as "
        "%s",
        r->cfg->key, text, m->name, m->architecture, example);
}

static peft_status check_list(const rules *r, const char *key, const pf_strlist *names,
                              const bool *hit, peft_error *err) {
    for (int i = 0; i < names->n; i++) {
        if (!hit[i]) return fail_unmatched(r, key, names->items[i], err);
    }
    return PEFT_OK;
}

static peft_status check_map(const rules *r, const char *key, const pf_cfg_map *map,
                             const bool *hit, peft_error *err) {
    for (int i = 0; i < map->n; i++) {
        if (hit[i]) continue;
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s.%s: '%s' matches none of the modules that %s acts on", r->cfg->key, key,
                       map->items[i].key, r->cfg->what);
    }
    return PEFT_OK;
}

static peft_status check_layers(const rules *r, peft_error *err) {
    const pf_cfg_ints *layers = &r->cfg->layers_to_transform;
    for (int i = 0; i < layers->n; i++) {
        if (layers->items[i] >= 0 && layers->items[i] < r->ad->model->n_layers) continue;
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s.layers_to_transform: there is no layer %lld; %s has 0 to %d",
                       r->cfg->key, (long long)layers->items[i], r->ad->model->name,
                       r->ad->model->n_layers - 1);
    }
    return PEFT_OK;
}

static peft_status check_hits(const rules *r, int n_hit, peft_error *err) {
    const pf_target_rules *c = r->cfg;
    const pf_model *m = r->ad->model;
    if (c->kinds == 0) {
        return r->ad->strict
                   ? check_list(r, "modules_to_save", &c->modules_to_save.list, r->saved_hit, err)
                   : PEFT_OK;
    }
    if (r->ad->strict) {
        if (r->target == NULL && !r->all_linear) {
            PF_TRY(check_list(r, "target_modules", &r->targets, r->target_hit, err));
        }
        PF_TRY(check_list(r, "exclude_modules", &c->exclude_modules.list, r->exclude_hit, err));
        PF_TRY(check_list(r, "modules_to_save", &c->modules_to_save.list, r->saved_hit, err));
        PF_TRY(check_layers(r, err));
    }
    if (n_hit == 0) {
        if (r->any_excluded) {
            return PF_FAIL(
                err, PEFT_E_CONFIG,
                "%s: every module that target_modules names is taken away by exclude_modules "
                "or modules_to_save",
                c->key);
        }
        if (r->target != NULL) return fail_expression(r, err);
        return PF_FAIL(err, PEFT_E_CONFIG, "%s.target_modules matches no module of %s (%s)%s",
                       c->key, m->name, m->architecture,
                       c->layers_to_transform.n > 0 ? " in layers_to_transform" : "");
    }
    if (r->ad->strict) {
        PF_TRY(check_map(r, "rank_pattern", &c->rank_pattern, r->rank_hit, err));
        PF_TRY(check_map(r, "alpha_pattern", &c->alpha_pattern, r->alpha_hit, err));
    }
    return PEFT_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static peft_status judge_all(rules *r, pf_target *targets, peft_error *err) {
    const pf_model *m = r->ad->model;
    int n_hit = 0;
    PF_TRY(make_rules(r, err));
    for (int i = 0; i < m->n_sites; i++) {
        PF_TRY(judge(r, m->sites[i], &targets[i], err));
        n_hit += targets[i].hit;
    }
    return check_hits(r, n_hit, err);
}

peft_status pf_find_targets(pf_adapter *ad, const pf_target_rules *cfg, pf_target **out,
                            peft_error *err) {
    rules r = {.ad = ad, .cfg = cfg};
    *out = PF_NEW_ARRAY(&ad->arena, pf_target, ad->model->n_sites);
    PF_CHECK_ALLOC(*out, err);
    peft_status status = judge_all(&r, *out, err);
    release_rules(&r);
    return status;
}

peft_status pf_target_names(const pf_adapter *ad, const pf_target_rules *cfg, pf_arena *a,
                            pf_strlist *names, bool *single, peft_error *err) {
    const pf_model *m = ad->model;
    const char *const *usual = usual_targets(ad, cfg);
    *names = cfg->target_modules.list;
    *single = is_expression(&cfg->target_modules) && !is_all_linear(&cfg->target_modules);
    if (names->n > 0 && !is_all_linear(&cfg->target_modules)) return PEFT_OK;
    *names = (pf_strlist){0};
    for (int i = 0; cfg->target_modules.list.n == 0 && usual[i] != NULL; i++) {
        PF_TRY(pf_strlist_add(names, a, usual[i], err));
    }
    for (int i = 0; cfg->target_modules.list.n > 0 && i < m->n_sites; i++) {
        const char *dot = strrchr(m->sites[i]->name, '.');
        const char *last = dot == NULL ? m->sites[i]->name : dot + 1;
        if (m->sites[i]->kind == PF_SITE_LINEAR && !pf_strlist_has(names, last)) {
            PF_TRY(pf_strlist_add(names, a, last, err));
        }
    }
    return PEFT_OK;
}

peft_status pf_attach_whole(pf_adapter *ad, pf_site *site, peft_error *err) {
    if (ad->method->state_dict) { /* the base's own tensors, in place */
        PF_TRY(pf_adapter_train_whole(ad, site, false, site->weight->name, false, err));
        if (site->bias == NULL) return PEFT_OK;
        return pf_adapter_train_whole(ad, site, true, site->bias->name, false, err);
    }
    const char *prefix =
        ad->method->whole_prefix != NULL ? ad->method->whole_prefix : PF_ADAPTER_PREFIX;
    if (ad->method->is_adapterhub != NULL) prefix = ""; /* the model's own names */
    const char *name = pf_arena_printf(&ad->arena, "%s%s.weight", prefix, site->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_adapter_train_whole(ad, site, false, name, true, err));
    if (site->bias == NULL) return PEFT_OK;
    name = pf_arena_printf(&ad->arena, "%s%s.bias", prefix, site->name);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_train_whole(ad, site, true, name, true, err);
}
