/* cfg_override.c - `a.b=c` and `~a.b` from the command line, PEFT_A__B=c from the environment.
 *
 * Both edit the tree before it is read, so that an override is checked, typed and reported as if it
 * stood in the file. How the text of a value is taken depends on the row: a scalar is taken as it
 * is (no quoting rules; a value in quotes is a YAML string, so that '"Q: {q}\nA:"' can hold a line
 * end); lists and mappings are YAML ([q_proj, v_proj], {num_cycles: 2}), and a list of plain words
 * may be written a,b,c.
 *
 * A path may reach into a list of one-key mappings by the name of the kind
 * (callbacks.early_stopping.patience) or by its index (callbacks.0.early_stopping.patience), and
 * into a list of words by index. */
#include "config/cfg.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/banned.h"

typedef struct edit {
    pf_cfg *c;
    const char *source; /* "command line" or "environment PEFT_..." */
    const char *text;   /* the argument, for messages */
    pf_yaml_node at;    /* a position for complaints: source, no line */
} edit;

static pf_yaml_node *new_node(edit *e, pf_yaml_kind kind, const char *text) {
    pf_yaml_node *n = pf_yaml_new(e->c->arena, kind, text, &e->at);
    if (n == NULL) e->c->no_memory = true;
    return n;
}

static void no_lines(pf_yaml_node *n, const char *source, int depth) {
    n->source = source;
    n->line = n->column = 0;
    if (n->key != NULL) {
        n->key->source = source;
        n->key->line = n->key->column = 0;
    }
    for (pf_yaml_node *k = n->first; k != NULL && depth < PF_YAML_MAX_DEPTH; k = k->next)
        no_lines(k, source, depth + 1);
}

/* ---- the text of a value
 * --------------------------------------------------------------------------------------------- */

static pf_yaml_node *parse_value(edit *e, const char *text) {
    pf_yaml_node *n = NULL;
    peft_error err = {0};
    const char *name = pf_arena_printf(e->c->arena, "%s: %s", e->source, e->text);
    if (name == NULL) {
        e->c->no_memory = true;
        return NULL;
    }
    if (pf_yaml_parse(&n, e->c->arena, text, strlen(text), name, &err) != PEFT_OK) {
        const char *what = err.message; /* "<name>:1:9: what": the position counts from the "=" */
        size_t skip = strlen(name);
        if (strncmp(what, name, skip) == 0 && what[skip] == ':') {
            what += skip + 1;
            what += strspn(what, "0123456789:");
            what += strspn(what, " ");
        }
        pf_cfg_complain_at(e->c, &e->at, "%s: %s", e->text, what);
        return NULL;
    }
    if (n == NULL) return new_node(e, PF_YAML_SCALAR, "");
    no_lines(n, e->source, 0);
    return n;
}

/* a,b,c of names of modules, columns, numbers: no regular expression looks like that */
static bool is_word_list(const char *s) {
    bool comma = false;
    for (const char *p = s; *p != 0; p++) {
        if (*p == ',') {
            if (p == s || p[1] == 0 || p[1] == ',') return false;
            comma = true;
        } else if (!isalnum((unsigned char)*p) && strchr("_-.", *p) == NULL) {
            return false;
        }
    }
    return comma;
}

static pf_yaml_node *value_node(edit *e, const pf_cfg_row *row, const char *text) {
    const bool list = row->type == PF_CFG_T_STRLIST || row->type == PF_CFG_T_INTLIST;
    const bool deep =
        row->type == PF_CFG_T_MAP || row->type == PF_CFG_T_NUMMAP || pf_cfg_is_section(row);
    const size_t n = strlen(text);
    if ((list && text[0] == '[') || (deep && (text[0] == '[' || text[0] == '{')))
        return parse_value(e, text);
    if (n >= 2 && (text[0] == '"' || text[0] == '\'') && text[n - 1] == text[0])
        return parse_value(e, text);
    if (!list || !is_word_list(text)) return new_node(e, PF_YAML_SCALAR, text);
    pf_yaml_node *seq = new_node(e, PF_YAML_SEQ, NULL);
    for (const char *p = text; seq != NULL;) {
        size_t len = strcspn(p, ",");
        char *word = pf_arena_strndup(e->c->arena, p, len);
        pf_yaml_node *item = word != NULL ? new_node(e, PF_YAML_SCALAR, word) : NULL;
        if (item == NULL) {
            e->c->no_memory = true;
            return NULL;
        }
        pf_yaml_append(seq, item);
        if (p[len] == 0) break;
        p += len + 1;
    }
    return seq;
}

/* ---- finding the place in the tree
 * -------------------------------------------------------------------------------------- */

static pf_yaml_node *find_row(const pf_yaml_node *map, const pf_cfg_row *row) {
    if (map == NULL || map->kind != PF_YAML_MAP) return NULL;
    for (pf_yaml_node *n = map->first; n != NULL; n = n->next)
        if (pf_cfg_row_is(row, n->key->text)) return n;
    return NULL;
}

/* Put `value` under the row's name; what stood there (under any spelling, any number of times)
 * goes. */
static void put(edit *e, pf_yaml_node *map, const char *name, const pf_cfg_row *row,
                pf_yaml_node *value) {
    pf_yaml_node *old = NULL;
    while ((old = row != NULL ? find_row(map, row) : pf_yaml_find(map, name)) != NULL)
        pf_yaml_remove(map, old);
    value->key = new_node(e, PF_YAML_SCALAR, name);
    if (value->key != NULL) pf_yaml_append(map, value);
}

/* The item of a list of kinds that holds `row`, made a one-key mapping if it was a bare word; NULL:
 * none. */
static pf_yaml_node *kind_item(edit *e, pf_yaml_node *seq, const pf_cfg_row *row) {
    for (pf_yaml_node *n = seq->first; n != NULL; n = n->next) {
        if (n->kind == PF_YAML_MAP && find_row(n, row) != NULL) return n;
        if (n->kind != PF_YAML_SCALAR || !pf_cfg_row_is(row, n->text)) continue;
        pf_yaml_node *value = new_node(e, PF_YAML_SCALAR, "");
        pf_yaml_node *key = new_node(e, PF_YAML_SCALAR, row->name);
        if (value == NULL || key == NULL) return NULL;
        n->kind = PF_YAML_MAP;
        n->text = NULL;
        value->key = key;
        pf_yaml_append(n, value);
        return n;
    }
    return NULL;
}

/* The mapping (or list) that holds the keys of section `row`, inside `parent`; made where it is
 * missing and `make`. */
static pf_yaml_node *enter(edit *e, pf_yaml_node *parent, const pf_cfg_row *row, bool make) {
    if (parent->kind == PF_YAML_SEQ) {
        pf_yaml_node *item = kind_item(e, parent, row);
        if (item == NULL) {
            if (!make || (item = new_node(e, PF_YAML_MAP, NULL)) == NULL) return NULL;
            pf_yaml_append(parent, item);
        }
        parent = item;
    }
    if (parent->kind != PF_YAML_MAP) return NULL;
    pf_yaml_node *found = find_row(parent, row);
    if (found != NULL && found->kind == PF_YAML_MAP) return found;
    if (found != NULL && found->kind == PF_YAML_SEQ && row->type == PF_CFG_T_KINDS) return found;
    if (!make || (found != NULL && !pf_yaml_is_null(found))) return NULL;
    pf_yaml_node *map = new_node(e, PF_YAML_MAP, NULL);
    if (map != NULL) put(e, parent, row->name, row, map);
    return map;
}

typedef struct target {
    int item; /* index, -1 when not found */
    pf_yaml_node
        *holder;    /* mapping or list that holds (or will hold) the item's node; NULL: not there */
    char rest[256]; /* of the path: key of a MAP, index of a list; or empty */
} target;

static bool all_digits(const char *s) {
    return s[0] != 0 && strspn(s, "0123456789") == strlen(s);
}

static pf_yaml_node *nth(const pf_yaml_node *list, const char *index) {
    int64_t k = -1;
    if (!pf_parse_int(index, &k)) return NULL;
    pf_yaml_node *n = list->first;
    for (; n != NULL && k > 0; k--) n = n->next;
    return n;
}

/* Walk `path` through rows and tree together. False: a complaint has been made. */
static bool walk(edit *e, const char *path, bool make, target *t) {
    pf_cfg *c = e->c;
    *t = (target){.item = -1, .holder = c->tree};
    pf_yaml_node *into = c->tree; /* what holds the keys of the section reached so far */
    for (const char *p = path;;) {
        size_t len = strcspn(p, ".");
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(len < 127 ? len : 127), p);
        const bool in_kinds = t->item >= 0 && c->items[t->item].row->type == PF_CFG_T_KINDS;
        if (in_kinds && all_digits(name) && p[len] == '.') {
            const char *kind = p + len + 1;
            char next[128];
            snprintf(next, sizeof next, "%.*s", (int)strcspn(kind, "."), kind);
            int index = pf_cfg_child(c, t->item, next);
            pf_yaml_node *item = into != NULL && into->kind == PF_YAML_SEQ ? nth(into, name) : NULL;
            const pf_cfg_row *row = index >= 0 ? c->items[index].row : NULL;
            if (item == NULL || row == NULL ||
                !((item->kind == PF_YAML_SCALAR && pf_cfg_row_is(row, item->text)) ||
                  find_row(item, row) != NULL)) {
                pf_cfg_complain_at(c, &e->at, "%s: item %s of %s is not %s", e->text, name,
                                   c->items[t->item].path, next);
                return false;
            }
            p = kind;
            continue;
        }
        int index = pf_cfg_child(c, t->item, name);
        if (index < 0) {
            char hint[512];
            pf_cfg_suggest(c, t->item, p, hint, sizeof hint);
            pf_cfg_complain_at(c, &e->at, "%s is not a known key%s", path, hint);
            return false;
        }
        t->item = index;
        t->holder = into;
        const pf_cfg_row *row = c->items[index].row;
        if (p[len] == 0) return true;
        p += len + 1;
        if (!pf_cfg_is_section(row)) {
            const bool map = row->type == PF_CFG_T_MAP || row->type == PF_CFG_T_NUMMAP;
            const bool list = row->type == PF_CFG_T_STRLIST || row->type == PF_CFG_T_INTLIST;
            if ((!map && !(list && all_digits(p))) || strlen(p) >= sizeof t->rest || *p == 0) {
                pf_cfg_complain_at(c, &e->at, "%s: %s is one value and has no key \"%.60s\"",
                                   e->text, c->items[index].path, p);
                return false;
            }
            snprintf(t->rest, sizeof t->rest, "%s", p);
            return true;
        }
        if (into == NULL) continue;
        pf_yaml_node *inner = enter(e, into, row, make);
        if (inner == NULL && make) {
            if (!c->no_memory)
                pf_cfg_complain_at(c, &e->at, "%s: %s is not a section in %s", e->text,
                                   c->items[index].path, c->name != NULL ? c->name : "the file");
            return false;
        }
        into = inner;
    }
}

/* ---- set and remove
 * --------------------------------------------------------------------------------------------------------
 */

static void set(edit *e, const char *path, const char *text) {
    target t;
    if (!walk(e, path, true, &t)) return;
    const pf_cfg_item *item = &e->c->items[t.item];
    pf_yaml_node *holder = t.holder;
    if (t.rest[0] == 0) {
        pf_yaml_node *value = value_node(e, item->row, text);
        if (value == NULL) return;
        if (holder->kind == PF_YAML_SEQ) { /* a whole kind: callbacks.early_stopping={...} */
            pf_yaml_node *one = kind_item(e, holder, item->row);
            if (one == NULL && (one = new_node(e, PF_YAML_MAP, NULL)) != NULL)
                pf_yaml_append(holder, one);
            holder = one;
        }
        if (holder != NULL) put(e, holder, item->row->name, item->row, value);
        return;
    }
    /* one entry of a mapping or list */
    pf_yaml_node *old = find_row(holder, item->row);
    pf_yaml_node *value = new_node(e, PF_YAML_SCALAR, text);
    if (value == NULL) return;
    if (item->row->type == PF_CFG_T_MAP || item->row->type == PF_CFG_T_NUMMAP) {
        if (old == NULL || old->kind != PF_YAML_MAP) {
            if ((old = new_node(e, PF_YAML_MAP, NULL)) == NULL) return;
            put(e, holder, item->row->name, item->row, old);
        }
        put(e, old, t.rest, NULL, value);
        return;
    }
    pf_yaml_node *at = old != NULL && old->kind == PF_YAML_SEQ ? nth(old, t.rest) : NULL;
    if (at == NULL) {
        pf_cfg_complain_at(e->c, &e->at, "%s: %s has no item %s in %s", e->text, item->path, t.rest,
                           e->c->name != NULL ? e->c->name : "the file");
        return;
    }
    at->kind = PF_YAML_SCALAR;
    at->text = value->text;
    at->first = NULL;
    at->n = 0;
    at->quoted = false;
    no_lines(at, e->source, 0);
}

static void take_away(edit *e, const char *path) {
    target t;
    if (!walk(e, path, false, &t) || t.holder == NULL) return;
    const pf_cfg_row *row = e->c->items[t.item].row;
    pf_yaml_node *holder = t.holder, *old = NULL;
    if (holder->kind == PF_YAML_SEQ) { /* a list of kinds: the whole item goes */
        pf_yaml_node *item = kind_item(e, holder, row);
        if (item != NULL && item->n == 1) {
            pf_yaml_remove(holder, item);
            return;
        }
        holder = item;
    }
    if (t.rest[0] == 0) {
        while ((old = find_row(holder, row)) != NULL) pf_yaml_remove(holder, old);
        return;
    }
    pf_yaml_node *value = find_row(holder, row);
    if (value != NULL && value->kind == PF_YAML_MAP)
        old = pf_yaml_find(value, t.rest);
    else if (value != NULL && value->kind == PF_YAML_SEQ)
        old = nth(value, t.rest);
    if (old != NULL) pf_yaml_remove(value, old);
}

peft_status pf_cfg_apply_overrides(pf_cfg *c, const char *const *args, int n, peft_error *err) {
    for (int i = 0; i < n; i++) {
        const char *arg = args[i];
        size_t bad = 0;
        edit e = {.c = c, .source = "command line", .text = arg};
        e.at.source = e.source;
        if (!pf_utf8_valid(arg, strlen(arg), &bad)) {
            e.text = "an override";
            pf_cfg_complain_at(c, &e.at, "argument %d is not UTF-8", i + 1);
            continue;
        }
        const char *equals = strchr(arg, '=');
        if (arg[0] == '~' && equals == NULL && arg[1] != 0) {
            take_away(&e, arg + 1);
        } else if (equals != NULL && equals != arg && arg[0] != '~') {
            char *path = pf_arena_strndup(c->arena, arg, (size_t)(equals - arg));
            PF_CHECK_ALLOC(path, err);
            e.text = path;
            set(&e, path, equals + 1);
        } else {
            pf_cfg_complain_at(c, &e.at, "\"%.80s\" is neither key.path=value nor ~key.path", arg);
        }
    }
    return PEFT_OK;
}

/* PEFT_TRAINING__LEARNING_RATE -> training.learning_rate. Names without "__" are ours only where
 * they name a key that stands at the top (PEFT_SEED); others (PEFT_ISA, ...) steer the program
 * itself. */
peft_status pf_cfg_apply_env(pf_cfg *c, const char *const *env, peft_error *err) {
    for (; *env != NULL; env++) {
        const char *equals = strchr(*env, '=');
        if (equals == NULL || !pf_starts_with(*env, "PEFT_")) continue;
        char *name = pf_arena_strndup(c->arena, *env, (size_t)(equals - *env));
        char *path = name != NULL ? pf_arena_strdup(c->arena, name + strlen("PEFT_")) : NULL;
        PF_CHECK_ALLOC(path, err);
        size_t w = 0;
        bool dotted = false;
        for (size_t i = 0; path[i] != 0; i++) {
            if (path[i] == '_' && path[i + 1] == '_' && i > 0 && path[i + 2] != 0) {
                path[w++] = '.';
                dotted = true;
                i++;
            } else {
                path[w++] = (char)tolower((unsigned char)path[i]);
            }
        }
        path[w] = 0;
        if (!dotted) {
            int top = pf_cfg_child(c, -1, path);
            if (top < 0 || pf_cfg_is_section(c->items[top].row)) continue;
        }
        edit e = {.c = c, .text = path};
        e.source = pf_arena_printf(c->arena, "environment %s", name);
        PF_CHECK_ALLOC(e.source, err);
        e.at.source = e.source;
        size_t bad = 0;
        if (!pf_utf8_valid(equals + 1, strlen(equals + 1), &bad) ||
            !pf_utf8_valid(path, strlen(path), &bad)) {
            pf_cfg_complain_at(c, &e.at, "is not UTF-8");
            continue;
        }
        set(&e, path, equals + 1);
    }
    return PEFT_OK;
}
