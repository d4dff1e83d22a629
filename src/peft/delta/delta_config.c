/* delta_config.c - adapter_config.json for the methods of this folder: the rows of a section read
 * and write it, for the keys are peft's. Missing keys have the row's default, which is peft's;
 * unknown keys are passed over, but for those that the method names as refused. */
#include "base/str.h"
#include "peft/delta/delta_parts.h"
#include "peft/peft_json.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

/* ---- reading --------------------------------------------------------------------------------- */

const char *const pf_delta_bias_keys[] = {"bias", NULL};

static peft_status refuse(const pf_delta_kind *k, const json_t *c, const char *where,
                          peft_error *err) {
    for (int i = 0; k->refused != NULL && k->refused[i] != NULL; i++) {
        if (!pf_peft_is_off(json_object_get(c, k->refused[i])))
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: %s is set, which %s here does not have",
                           where, k->refused[i], k->what);
    }
    return PEFT_OK;
}

/* The first spelling of the choice that this word is one of ("true=yes=on false=no bat"). */
static const char *choice(pf_arena *a, const char *choices, const char *word) {
    const size_t n = strlen(word);
    for (const char *p = choices; *p != 0;) {
        const size_t group = strcspn(p, " "), first = strcspn(p, " =");
        for (const char *w = p; w < p + group;) {
            const size_t len = strcspn(w, " =");
            if (len == n && memcmp(w, word, n) == 0)
                return pf_arena_printf(a, "%.*s", (int)first, p);
            w += len + 1;
        }
        p += group + (p[group] == ' ');
    }
    return NULL;
}

static peft_status read_choice(pf_arena *a, const json_t *c, const char *where,
                               const pf_cfg_row *row, const char **out, peft_error *err) {
    const json_t *v = json_object_get(c, row->name);
    const char *word = json_is_true(v)                ? "true"
                       : json_is_false(v)             ? "false"
                       : v == NULL || json_is_null(v) ? row->text
                                                      : json_string_value(v);
    *out = word == NULL ? NULL : choice(a, row->choices, word);
    if (*out != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: %s is %s%s%s, which is not one of: %s", where,
                   row->name, word == NULL ? pf_json_kind(v) : "'", word == NULL ? "" : word,
                   word == NULL ? "" : "'", row->choices);
}

static peft_status check_bounds(const pf_cfg_row *row, const char *where, double v,
                                peft_error *err) {
    if (v >= row->min && v <= row->max) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be from %g to %g", where, row->name,
                   v, row->min, row->max);
}

static peft_status read_row(pf_arena *a, const json_t *c, const char *where, const pf_cfg_row *row,
                            void *at, peft_error *err) {
    switch (row->type) {
    case PF_CFG_T_INT:
        PF_TRY(pf_json_opt_int(c, where, row->name, (int64_t)row->number, (int64_t)row->min,
                               (int64_t)row->max, at, err));
        return PEFT_OK;
    case PF_CFG_T_FLOAT:
        PF_TRY(pf_json_opt_real(c, where, row->name, row->number, at, err));
        return check_bounds(row, where, *(double *)at, err);
    case PF_CFG_T_BOOL:
        return pf_json_opt_bool(c, where, row->name, row->number != 0, at, err);
    case PF_CFG_T_ENUM:
        return read_choice(a, c, where, row, at, err);
    case PF_CFG_T_STRLIST:
        return pf_peft_get_strings(a, c, where, row->name, at, err);
    case PF_CFG_T_INTLIST:
        return pf_peft_get_ints(a, c, where, row->name, at, err);
    default:
        PF_ASSERT(row->type == PF_CFG_T_NUMMAP);
        PF_TRY(pf_peft_get_map(a, c, where, row->name, at, err));
        for (int i = 0; i < ((pf_cfg_map *)at)->n; i++)
            PF_TRY(check_bounds(row, where, ((pf_cfg_map *)at)->items[i].number, err));
        return PEFT_OK;
    }
}

peft_status pf_delta_read_config(const pf_delta_kind *kind, pf_arena *a, const struct json_t *c,
                                 const char *where, const void **method_cfg, peft_error *err) {
    char *cfg = pf_arena_alloc(a, kind->cfg_size);
    PF_CHECK_ALLOC(cfg, err);
    memset(cfg, 0, kind->cfg_size);
    PF_TRY(refuse(kind, c, where, err));
    for (const pf_cfg_row *row = kind->rows; row->type != PF_CFG_T_END; row++)
        PF_TRY(read_row(a, c, where, row, cfg + row->offset, err));
    *method_cfg = cfg;
    return PEFT_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *word_value(const char *word) {
    if (pf_streq(word, "true")) return json_true();
    if (pf_streq(word, "false")) return json_false();
    return json_string(word);
}

static int write_row(json_t *c, const pf_cfg_row *row, const char *at) {
    switch (row->type) {
    case PF_CFG_T_INT:
        return json_object_set_new(c, row->name, json_integer(*(const int64_t *)(const void *)at));
    case PF_CFG_T_FLOAT:
        return json_object_set_new(c, row->name, pf_peft_number(*(const double *)(const void *)at));
    case PF_CFG_T_BOOL:
        return json_object_set_new(c, row->name, json_boolean(*(const bool *)(const void *)at));
    case PF_CFG_T_ENUM:
        return json_object_set_new(c, row->name,
                                   word_value(*(const char *const *)(const void *)at));
    case PF_CFG_T_NUMMAP: {
        const pf_cfg_map *m = (const void *)at;
        const bool is_rule =
            pf_streq(row->name, "rank_pattern") || pf_streq(row->name, "alpha_pattern");
        return is_rule || m->n == 0 ? 0 : json_object_set_new(c, row->name, pf_peft_map(m));
    }
    default: /* lists: target rules */
        return 0;
    }
}

peft_status pf_delta_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err) {
    const pf_delta_kind *k = ((const pf_delta_state *)ad->state)->kind;
    const char *cfg = ad->cfg.method_cfg;
    const pf_target_rules rules = pf_delta_rules(k, cfg);
    int bad = 0;
    PF_TRY(pf_targets_to_json(ad, &rules, c, err));
    for (const pf_cfg_row *row = k->rows; row->type != PF_CFG_T_END; row++)
        bad |= write_row(c, row, cfg + row->offset);
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}
