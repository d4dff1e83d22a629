/* cfg_read.c - the merged tree into structs: every scalar typed by its row, every mistake
 * collected. */
#include "config/cfg.h"

#include "base/cpu.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/banned.h"

/* ---- words for messages
 * ---------------------------------------------------------------------------------------------- */

const char *pf_cfg_shown(const pf_yaml_node *node, char *out, size_t n) {
    if (node->kind != PF_YAML_SCALAR) {
        snprintf(out, n, "%s", pf_yaml_kind_name(node));
        return out;
    }
    double number;
    int64_t whole;
    const char *t = node->text;
    if (!node->quoted && (pf_parse_int(t, &whole) || pf_parse_float(t, &number)) &&
        strlen(t) < 40) {
        snprintf(out, n, "%s", t);
        return out;
    }
    size_t at = 0, len = strlen(t), i = 0;
    if (n < 16) return "";
    out[at++] = '"';
    while (i < len && at < 60 && at + 8 < n) {
        uint32_t cp = 0;
        int w = pf_utf8_decode(t + i, len - i, &cp);
        if (w <= 0) w = 1, cp = '?';
        if (cp == '\n') {
            out[at++] = '\\';
            out[at++] = 'n';
        } else if (cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            out[at++] = '?';
        } else {
            at += (size_t)pf_utf8_encode(cp, out + at);
        }
        i += (size_t)w;
    }
    snprintf(out + at, n - at, "%s\"", i < len ? "..." : "");
    return out;
}

static int nearest_path(const pf_cfg *c, const char *name, bool full) {
    const char **names = PF_NEW_ARRAY(c->arena, const char *, c->n > 0 ? c->n : 1);
    if (names == NULL) return -1;
    for (int i = 0; i < c->n; i++) names[i] = full ? c->items[i].path : c->items[i].row->name;
    return pf_nearest(name, names, c->n);
}

/* The keys of a section, and what is near among them; or that list itself. */
static int nearest_neighbour(const pf_cfg *c, int parent, const char *name, const char **names,
                             int *count) {
    *count = 0;
    int i = parent < 0 ? 0 : parent + 1, end = parent < 0 ? c->n : c->items[parent].end;
    for (; i < end; i = c->items[i].end) names[(*count)++] = c->items[i].row->name;
    return pf_nearest(name, names, *count);
}

/* The very key in other sections (up to three); false: there is none. */
static bool elsewhere(const pf_cfg *c, const char *name, char *out, size_t n) {
    size_t at = 0;
    int found = 0;
    for (int i = 0; i < c->n && found < 3 && at + 96 < n; i++) {
        if (!pf_cfg_row_is(c->items[i].row, name)) continue;
        at += (size_t)snprintf(out + at, n - at, "%s%s", found++ == 0 ? "; did you mean " : " or ",
                               c->items[i].path);
    }
    if (found > 0) snprintf(out + at, n - at, "?");
    return found > 0;
}

void pf_cfg_suggest(const pf_cfg *c, int parent, const char *name, char *out, size_t n) {
    out[0] = 0;
    if (c->n_diags >= PF_CFG_MAX_DIAGS) return;
    for (const char *dot; (dot = strchr(name, '.')) != NULL;) { /* as far as the path is known */
        char first[128];
        snprintf(first, sizeof first, "%.*s", (int)(dot - name < 127 ? dot - name : 127), name);
        int child = pf_cfg_child(c, parent, first);
        if (child < 0 || !pf_cfg_is_section(c->items[child].row)) break;
        parent = child;
        name = dot + 1;
    }
    pf_arena_mark mark = pf_arena_get_mark(c->arena);
    const char **near = PF_NEW_ARRAY(c->arena, const char *, c->n > 0 ? c->n : 1);
    if (near == NULL) return;
    const bool dotted = strchr(name, '.') != NULL;
    int count = 0, best = nearest_neighbour(c, parent, name, near, &count);
    /* "name" of a section that has "name_or_path" is that, whoever else has a "name" */
    const size_t len = strlen(name);
    const bool begins =
        parent >= 0 && best >= 0 && pf_starts_with(near[best], name) && near[best][len] == '_';
    if (!begins && elsewhere(c, name, out, n)) {
        pf_arena_rewind(c->arena, mark);
        return;
    }
    if (best >= 0 && !dotted) {
        snprintf(out, n, "; did you mean %s%s%s?", parent >= 0 ? c->items[parent].path : "",
                 parent >= 0 ? "." : "", near[best]);
    } else if ((best = nearest_path(c, name, dotted)) >= 0) {
        snprintf(out, n, "; did you mean %s?", c->items[best].path);
    } else {
        size_t at = (size_t)snprintf(out, n, "; known %s:", parent < 0 ? "sections" : "here");
        for (int k = 0; k < count && at + 48 < n; k++)
            at += (size_t)snprintf(out + at, n - at, "%s %s", k > 0 ? "," : "", near[k]);
    }
    pf_arena_rewind(c->arena, mark);
}

/* ---- one value
 * ---------------------------------------------------------------------------------------------------------
 */

static void wrong(pf_cfg *c, const pf_cfg_item *item, const pf_yaml_node *node, bool without_type) {
    char shown[96], expected[640], hint[160] = "";
    pf_cfg_expected(item->row, item->choices, without_type, expected, sizeof expected);
    if (item->row->type == PF_CFG_T_ENUM && node->kind == PF_YAML_SCALAR) {
        pf_strlist names = {0};
        if (pf_cfg_choice_names(item->choices, &names, c->arena, NULL) == PEFT_OK) {
            int best = pf_nearest(node->text, names.items, names.n);
            if (best >= 0) snprintf(hint, sizeof hint, "; did you mean %s?", names.items[best]);
        }
    }
    pf_cfg_complain_at(c, node, "%s is %s; it should be %s%s", item->path,
                       pf_cfg_shown(node, shown, sizeof shown), expected, hint);
}

static bool in_bounds(const pf_cfg_row *row, double v) {
    if (row->flags & PF_CFG_ABOVE_MIN ? !(v > row->min) : !(v >= row->min)) return false;
    return row->flags & PF_CFG_BELOW_MAX ? v < row->max : v <= row->max;
}

/* 8, 1_000, and 8.0 or 1e3, which are whole too. */
static bool parse_whole(const char *text, int64_t *out) {
    double d = 0;
    if (pf_parse_int(text, out)) return true;
    if (!pf_parse_float(text, &d) || d != floor(d) || fabs(d) >= 9007199254740992.0) return false;
    *out = (int64_t)d;
    return true;
}

static bool parse_bool(const char *text, bool *out) {
    static const char *const words[2][3] = {{"false", "no", "off"}, {"true", "yes", "on"}};
    for (int v = 0; v < 2; v++)
        for (int i = 0; i < 3; i++)
            if (strcasecmp(text, words[v][i]) == 0) {
                *out = v == 1;
                return true;
            }
    return false;
}

/* "60%" of this machine's memory. */
static bool parse_share(const char *text, uint64_t *out) {
    char number[32];
    const size_t n = strcspn(text, "%");
    double percent;
    if (n >= sizeof number || text[n] != '%' || text[n + 1] != '\0') return false;
    memcpy(number, text, n);
    number[n] = '\0';
    if (!pf_parse_float(number, &percent) || !(percent > 0 && percent <= 100)) return false;
    *out = (uint64_t)(percent / 100 * (double)pf_memory_total());
    return true;
}

static void read_number(pf_cfg *c, pf_cfg_item *item, const pf_yaml_node *node) {
    const pf_cfg_row *row = item->row;
    int64_t whole = 0;
    double number = 0;
    bool is_int = row->type == PF_CFG_T_INT;
    if (is_int ? !parse_whole(node->text, &whole) : !pf_parse_float(node->text, &number)) {
        wrong(c, item, node, false);
        return;
    }
    if (is_int) number = (double)whole;
    if (!in_bounds(row, number)) {
        wrong(c, item, node, true);
        return;
    }
    if (is_int && row->size == sizeof(int64_t))
        *(int64_t *)item->at = whole;
    else if (is_int)
        *(int *)item->at = (int)whole; /* the bounds of a row for an int lie within an int */
    else if (row->size == sizeof(double))
        *(double *)item->at = number;
    else
        *(float *)item->at = (float)number;
}

static void read_strings(pf_cfg *c, pf_cfg_item *item, const pf_yaml_node *node) {
    pf_cfg_strings list = {.single = node->kind == PF_YAML_SCALAR};
    const pf_yaml_node *child = node->kind == PF_YAML_SCALAR ? node : node->first;
    for (; child != NULL; child = list.single ? NULL : child->next) {
        if (child->kind != PF_YAML_SCALAR || pf_yaml_is_null(child)) {
            char shown[96];
            pf_cfg_complain_at(c, child, "%s holds %s; its items should be words", item->path,
                               pf_cfg_shown(child, shown, sizeof shown));
            return;
        }
        if (pf_strlist_add(&list.list, c->arena, child->text, NULL) != PEFT_OK) c->no_memory = true;
    }
    *(pf_cfg_strings *)item->at = list;
}

static void read_ints(pf_cfg *c, pf_cfg_item *item, const pf_yaml_node *node) {
    const bool single = node->kind == PF_YAML_SCALAR;
    pf_cfg_ints list = {0};
    list.items = PF_NEW_ARRAY(c->arena, int64_t, single ? 1 : node->n + 1);
    if (list.items == NULL) {
        c->no_memory = true;
        return;
    }
    const pf_yaml_node *child = single ? node : node->first;
    for (; child != NULL; child = single ? NULL : child->next) {
        int64_t v = 0;
        if (child->kind != PF_YAML_SCALAR || !parse_whole(child->text, &v) ||
            !in_bounds(item->row, (double)v)) {
            wrong(c, item, child, false);
            return;
        }
        list.items[list.n++] = v;
    }
    *(pf_cfg_ints *)item->at = list;
}

static void read_map(pf_cfg *c, pf_cfg_item *item, const pf_yaml_node *node) {
    pf_cfg_map map = {0};
    map.items = PF_NEW_ARRAY(c->arena, pf_cfg_pair, node->n + 1);
    if (map.items == NULL) {
        c->no_memory = true;
        return;
    }
    for (const pf_yaml_node *child = node->first; child != NULL; child = child->next) {
        char shown[96], expected[160];
        pf_cfg_pair *pair = &map.items[map.n];
        *pair = (pf_cfg_pair){.key = child->key->text, .text = child->text};
        if (child->kind != PF_YAML_SCALAR || pf_yaml_is_null(child)) {
            pf_cfg_complain_at(c, child, "%s.%s is %s; it should be %s", item->path, pair->key,
                               pf_cfg_shown(child, shown, sizeof shown),
                               item->row->type == PF_CFG_T_NUMMAP ? "a number" : "one value");
            return;
        }
        pair->is_number = pf_parse_float(child->text, &pair->number);
        if (item->row->type == PF_CFG_T_NUMMAP) {
            const bool whole = item->row->flags & PF_CFG_WHOLE;
            if (!pair->is_number || !in_bounds(item->row, pair->number) ||
                (whole && pair->number != floor(pair->number))) {
                pf_cfg_row one = *item->row;
                one.type = whole ? PF_CFG_T_INT : PF_CFG_T_FLOAT;
                one.flags |= PF_CFG_UNSET;
                pf_cfg_expected(&one, NULL, false, expected, sizeof expected);
                pf_cfg_complain_at(c, child, "%s.%s is %s; it should be %s", item->path, pair->key,
                                   pf_cfg_shown(child, shown, sizeof shown), expected);
                return;
            }
        }
        map.n++;
    }
    *(pf_cfg_map *)item->at = map;
}

static bool fits_kind(const pf_cfg_row *row, const pf_yaml_node *node) {
    switch (row->type) {
    case PF_CFG_T_STRLIST:
    case PF_CFG_T_INTLIST:
        return node->kind != PF_YAML_MAP;
    case PF_CFG_T_MAP:
    case PF_CFG_T_NUMMAP:
        return node->kind == PF_YAML_MAP;
    default:
        return node->kind == PF_YAML_SCALAR;
    }
}

static void read_value(pf_cfg *c, pf_cfg_item *item, const pf_yaml_node *node) {
    if (!fits_kind(item->row, node)) {
        wrong(c, item, node, false);
        return;
    }
    switch (item->row->type) {
    case PF_CFG_T_INT:
    case PF_CFG_T_FLOAT:
        read_number(c, item, node);
        break;
    case PF_CFG_T_BOOL:
        if (!parse_bool(node->text, item->at)) wrong(c, item, node, false);
        break;
    case PF_CFG_T_STR:
        *(const char **)item->at = node->text;
        break;
    case PF_CFG_T_ENUM: {
        const char *choice = pf_cfg_choice(item->choices, node->text, c->arena);
        if (choice != NULL)
            *(const char **)item->at = choice;
        else
            wrong(c, item, node, false);
        break;
    }
    case PF_CFG_T_SIZE:
        if (!pf_parse_size(node->text, item->at) &&
            !((item->row->flags & PF_CFG_MEMORY) && parse_share(node->text, item->at)))
            wrong(c, item, node, false);
        break;
    case PF_CFG_T_STRLIST:
        read_strings(c, item, node);
        break;
    case PF_CFG_T_INTLIST:
        read_ints(c, item, node);
        break;
    case PF_CFG_T_MAP:
    case PF_CFG_T_NUMMAP:
        read_map(c, item, node);
        break;
    case PF_CFG_T_SECTION:
    case PF_CFG_T_KINDS:
    case PF_CFG_T_END:
        break;
    }
}

/* ---- sections
 * ------------------------------------------------------------------------------------------------------------
 */

static void read_section(pf_cfg *c, int section, const pf_yaml_node *node);

static pf_cfg_from from_of(const pf_yaml_node *node) {
    if (node->line > 0 || node->source == NULL) return PF_CFG_FROM_FILE;
    return pf_starts_with(node->source, "environment ") ? PF_CFG_FROM_ENV : PF_CFG_FROM_CLI;
}

/* One key of a mapping, in section `section` (-1: the top). */
static void read_key(pf_cfg *c, int section, const pf_yaml_node *node) {
    const char *name = node->key->text;
    int index = pf_cfg_child(c, section, name);
    if (index < 0) {
        char hint[512], shown[96];
        pf_cfg_suggest(c, section, name, hint, sizeof hint);
        pf_cfg_shown(node->key, shown, sizeof shown);
        pf_cfg_complain_at(c, node->key, "%s%s%s is not a known key%s",
                           section >= 0 ? c->items[section].path : "", section >= 0 ? "." : "",
                           strpbrk(name, " \n\t\"") != NULL || strlen(name) > 60 ? shown : name,
                           hint);
        return;
    }
    pf_cfg_item *item = &c->items[index];
    if (item->node != NULL) {
        pf_cfg_complain_at(c, node->key, "%s is given twice (%s, first at %s)", item->path, name,
                           pf_cfg_where(c, item->node));
        return;
    }
    item->node = node;
    if (pf_cfg_is_section(item->row)) {
        read_section(c, index, node);
        return;
    }
    if (pf_yaml_is_null(node)) return;
    item->from = from_of(node);
    item->where = pf_cfg_where(c, node);
    read_value(c, item, node);
}

static void read_section(pf_cfg *c, int section, const pf_yaml_node *node) {
    pf_cfg_item *item = &c->items[section];
    if (pf_yaml_is_null(node)) {
        /* "mlflow:" with nothing under it opens the section; "mlflow: null" does not */
        if (node->text[0] == 0 && item->given_flag != NULL) *item->given_flag = true;
        return;
    }
    if (node->kind == PF_YAML_MAP) {
        if (item->given_flag != NULL) *item->given_flag = true;
        for (const pf_yaml_node *n = node->first; n != NULL; n = n->next) read_key(c, section, n);
        return;
    }
    if (item->row->type != PF_CFG_T_KINDS || node->kind != PF_YAML_SEQ) {
        char shown[96], hint[512];
        size_t at = 0;
        hint[0] = 0;
        for (int i = section + 1, k = 0; i < item->end && k < 4; i = c->items[i].end, k++)
            at += (size_t)snprintf(hint + at, sizeof hint - at, "%s%s", k > 0 ? ", " : "",
                                   c->items[i].row->name);
        pf_cfg_complain_at(c, node, "%s is %s; it should be a section with keys such as %s",
                           item->path, pf_cfg_shown(node, shown, sizeof shown), hint);
        return;
    }
    for (const pf_yaml_node *n = node->first; n != NULL; n = n->next) {
        if (n->kind == PF_YAML_MAP) {
            for (const pf_yaml_node *k = n->first; k != NULL; k = k->next) read_key(c, section, k);
        } else if (n->kind == PF_YAML_SCALAR && !pf_yaml_is_null(n)) {
            /* "- early_stopping": the kind with all its defaults */
            pf_yaml_node *key = pf_yaml_new(c->arena, PF_YAML_SCALAR, n->text, n);
            pf_yaml_node *empty = pf_yaml_new(c->arena, PF_YAML_SCALAR, "", n);
            if (key == NULL || empty == NULL) {
                c->no_memory = true;
                return;
            }
            empty->key = key;
            read_key(c, section, empty);
        } else {
            pf_cfg_complain_at(c, n, "%s holds %s; its items should be names or name: {key: value}",
                               item->path, pf_yaml_kind_name(n));
        }
    }
}

peft_status pf_cfg_read(pf_cfg *c, const pf_cfg_source *source, peft_error *err) {
    pf_yaml_node *root = NULL;
    if (source->path != NULL) {
        c->name = pf_arena_strdup(c->arena, source->path);
        PF_CHECK_ALLOC(c->name, err);
        PF_TRY(pf_yaml_load(&root, c->arena, source->path, err));
    } else if (source->text != NULL) {
        c->name = source->text_name != NULL ? source->text_name : "configuration";
        PF_TRY(pf_yaml_parse(&root, c->arena, source->text, source->text_len, c->name, err));
    }
    if (root != NULL && root->kind == PF_YAML_MAP)
        c->tree = root;
    else if (root != NULL && !pf_yaml_is_null(root))
        pf_cfg_complain_at(c, root,
                           "is %s; a configuration is a mapping with sections such as "
                           "model: and training:",
                           pf_yaml_kind_name(root));
    pf_cfg_fold_parts(c);
    if (source->env != NULL) PF_TRY(pf_cfg_apply_env(c, source->env, err));
    PF_TRY(pf_cfg_apply_overrides(c, source->overrides, source->n_overrides, err));
    for (const pf_yaml_node *n = c->tree->first; n != NULL; n = n->next) read_key(c, -1, n);
    if (c->no_memory) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return PEFT_OK;
}
