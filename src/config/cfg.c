/* cfg.c - items: laid out from rows, found by path, given their defaults; and the list of
 * complaints. */
#include "config/cfg.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

/* ---- layout
 * --------------------------------------------------------------------------------------------------------
 */

static bool brings_to(const pf_cfg_ext *ext, const char *path) {
    return strcmp(ext->section, path) == 0;
}

/* How many items the rows of section `path` make, with those of the sections that other folders
 * bring; -1: no memory */
static int count_rows(const pf_cfg *c, const pf_cfg_row *rows, const char *path) {
    int n = 0;
    for (const pf_cfg_row *r = rows; r != NULL && r->type != PF_CFG_T_END; r++) {
        n++;
        if (!pf_cfg_is_section(r)) continue;
        const char *sub = pf_arena_printf(c->arena, "%s%s%s", path, path[0] ? "." : "", r->name);
        int below = sub != NULL ? count_rows(c, r->rows, sub) : -1;
        if (below < 0) return -1;
        n += below;
    }
    for (int i = 0; i < c->n_ext; i++) {
        if (!brings_to(&c->ext[i], path)) continue;
        const char *sub = pf_arena_printf(c->arena, "%s.%s", path, c->ext[i].name);
        int below = sub != NULL ? count_rows(c, c->ext[i].rows, sub) : -1;
        if (below < 0) return -1;
        n += 1 + below;
    }
    return n;
}

static peft_status add_item(pf_cfg *c, const pf_cfg_row *row, int parent, void *base,
                            peft_error *err) {
    int index = c->n++;
    pf_cfg_item *item = &c->items[index];
    *item = (pf_cfg_item){.row = row, .parent = parent, .choices = row->choices};
    item->path = parent < 0 ? row->name
                            : pf_arena_printf(c->arena, "%s.%s", c->items[parent].path, row->name);
    PF_CHECK_ALLOC(item->path, err);
    item->at = (char *)base + row->offset;
    if (row->given > 0) item->given_flag = (bool *)(void *)((char *)base + row->given - 1);
    item->end = c->n;
    if (!pf_cfg_is_section(row)) {
        pf_cfg_set_default(c, item);
        return c->no_memory ? PF_FAIL(err, PEFT_E_NOMEM, "out of memory") : PEFT_OK;
    }
    for (const pf_cfg_row *r = row->rows; r != NULL && r->type != PF_CFG_T_END; r++)
        PF_TRY(add_item(c, r, index, item->at, err));
    for (int i = 0; i < c->n_ext; i++) {
        if (!brings_to(&c->ext[i], item->path)) continue;
        pf_cfg_row *section = PF_NEW(c->arena, pf_cfg_row);
        void *value = pf_arena_alloc(c->arena, c->ext[i].size);
        PF_CHECK_ALLOC(section, err);
        PF_CHECK_ALLOC(value, err);
        *section = (pf_cfg_row){.name = c->ext[i].name,
                                .type = PF_CFG_T_SECTION,
                                .size = c->ext[i].size,
                                .rows = c->ext[i].rows,
                                .help = c->ext[i].help};
        PF_TRY(add_item(c, section, index, value, err));
    }
    c->items[index].end = c->n;
    return PEFT_OK;
}

/* ENUM rows without choices choose among the sections beside them: peft.method. */
static peft_status fill_choices(pf_cfg *c, peft_error *err) {
    for (int i = 0; i < c->n; i++) {
        if (c->items[i].row->type != PF_CFG_T_ENUM || c->items[i].choices != NULL) continue;
        const char *names = "";
        for (int k = 0; k < c->n && names != NULL; k++)
            if (c->items[k].parent == c->items[i].parent && pf_cfg_is_section(c->items[k].row))
                names = pf_arena_printf(c->arena, "%s%s%s", names, names[0] != 0 ? " " : "",
                                        c->items[k].row->name);
        PF_CHECK_ALLOC(names, err);
        c->items[i].choices = names;
    }
    return PEFT_OK;
}

peft_status pf_cfg_open(pf_cfg *c, pf_arena *a, const pf_cfg_row *rows, void *root,
                        const pf_cfg_ext *ext, int n_ext, peft_error *err) {
    *c = (pf_cfg){.arena = a, .ext = ext, .n_ext = n_ext};
    int total = count_rows(c, rows, "");
    if (total < 0) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    c->items = PF_NEW_ARRAY(a, pf_cfg_item, total > 0 ? total : 1);
    PF_CHECK_ALLOC(c->items, err);
    for (const pf_cfg_row *r = rows; r->type != PF_CFG_T_END; r++)
        PF_TRY(add_item(c, r, -1, root, err));
    PF_ASSERT(c->n == total);
    c->tree = pf_yaml_new(a, PF_YAML_MAP, NULL, NULL);
    PF_CHECK_ALLOC(c->tree, err);
    return fill_choices(c, err);
}

/* ---- defaults
 * ------------------------------------------------------------------------------------------------------
 */

static void default_strings(pf_cfg *c, const char *text, pf_cfg_strings *out) {
    *out = (pf_cfg_strings){0};
    while (text != NULL && *text != 0) {
        size_t len = strcspn(text, ",");
        char *word = pf_arena_strndup(c->arena, text, len);
        if (word == NULL || pf_strlist_add(&out->list, c->arena, word, NULL) != PEFT_OK) {
            c->no_memory = true;
            return;
        }
        text += len + (text[len] == ',' ? 1 : 0);
    }
}

void pf_cfg_set_default(pf_cfg *c, pf_cfg_item *item) {
    const pf_cfg_row *row = item->row;
    switch (row->type) {
    case PF_CFG_T_INT:
        PF_ASSERT(row->size == sizeof(int) || row->size == sizeof(int64_t));
        if (row->size == sizeof(int64_t))
            *(int64_t *)item->at = (int64_t)row->number;
        else
            *(int *)item->at = (int)row->number;
        break;
    case PF_CFG_T_FLOAT:
        PF_ASSERT(row->size == sizeof(float) || row->size == sizeof(double));
        if (row->size == sizeof(double))
            *(double *)item->at = row->number;
        else
            *(float *)item->at = (float)row->number;
        break;
    case PF_CFG_T_BOOL:
        PF_ASSERT(row->size == sizeof(bool));
        *(bool *)item->at = row->number != 0;
        break;
    case PF_CFG_T_STR:
    case PF_CFG_T_ENUM:
        PF_ASSERT(row->size == sizeof(const char *));
        *(const char **)item->at = row->text;
        break;
    case PF_CFG_T_SIZE:
        PF_ASSERT(row->size == sizeof(uint64_t));
        *(uint64_t *)item->at = 0;
        if (row->text != NULL) PF_ASSERT(pf_parse_size(row->text, (uint64_t *)item->at));
        break;
    case PF_CFG_T_STRLIST:
        PF_ASSERT(row->size == sizeof(pf_cfg_strings));
        default_strings(c, row->text, item->at);
        break;
    case PF_CFG_T_INTLIST:
        PF_ASSERT(row->size == sizeof(pf_cfg_ints));
        *(pf_cfg_ints *)item->at = (pf_cfg_ints){0};
        break;
    case PF_CFG_T_MAP:
    case PF_CFG_T_NUMMAP:
        PF_ASSERT(row->size == sizeof(pf_cfg_map));
        *(pf_cfg_map *)item->at = (pf_cfg_map){0};
        break;
    case PF_CFG_T_SECTION:
    case PF_CFG_T_KINDS:
    case PF_CFG_T_END:
        break;
    }
}

/* ---- looking up
 * ----------------------------------------------------------------------------------------------------
 */

int pf_cfg_child(const pf_cfg *c, int parent, const char *name) {
    int i = parent < 0 ? 0 : parent + 1, end = parent < 0 ? c->n : c->items[parent].end;
    for (; i < end; i = c->items[i].end)
        if (pf_cfg_row_is(c->items[i].row, name)) return i;
    return -1;
}

pf_cfg_item *pf_cfg_find(const pf_cfg *c, const char *path) {
    int at = -1;
    for (const char *p = path;;) {
        size_t len = strcspn(p, ".");
        char name[128];
        if (len == 0 || len >= sizeof name) return NULL;
        memcpy(name, p, len);
        name[len] = 0;
        at = pf_cfg_child(c, at, name);
        if (at < 0) return NULL;
        if (p[len] == 0) return &c->items[at];
        p += len + 1;
    }
}

bool pf_cfg_given(const pf_cfg *c, const char *path) {
    const pf_cfg_item *item = pf_cfg_find(c, path);
    if (item == NULL) return false;
    for (int i = (int)(item - c->items); i < item->end; i++)
        if (c->items[i].from >= PF_CFG_FROM_FILE) return true;
    return false;
}

void *pf_cfg_section(const pf_cfg *c, const char *path) {
    const pf_cfg_item *item = pf_cfg_find(c, path);
    return item != NULL && pf_cfg_is_section(item->row) ? item->at : NULL;
}

static void derive(pf_cfg *c, const char *path, bool back_to_default, const char *why, va_list ap) {
    pf_cfg_item *item = pf_cfg_find(c, path);
    PF_ASSERT(item != NULL);
    char text[256];
    vsnprintf(text, sizeof text, why, ap);
    item->from = PF_CFG_FROM_DERIVED;
    item->where = pf_arena_strdup(c->arena, text);
    if (item->where == NULL) c->no_memory = true;
    if (back_to_default) pf_cfg_set_default(c, item);
}

void pf_cfg_derive(pf_cfg *c, const char *path, const char *why, ...) {
    va_list ap;
    va_start(ap, why);
    derive(c, path, false, why, ap);
    va_end(ap);
}

void pf_cfg_unset(pf_cfg *c, const char *path, const char *why, ...) {
    va_list ap;
    va_start(ap, why);
    derive(c, path, true, why, ap);
    va_end(ap);
}

void pf_cfg_use(pf_cfg *c, const char *path) {
    pf_cfg_item *item = pf_cfg_find(c, path);
    PF_ASSERT(item != NULL);
    for (int i = (int)(item - c->items); i < item->end; i++) c->items[i].used = true;
}

peft_status pf_cfg_unused(const pf_cfg *c, pf_strlist *out, peft_error *err) {
    for (int i = 0; i < c->n; i++) {
        const pf_cfg_item *item = &c->items[i];
        if (item->from < PF_CFG_FROM_FILE || item->used || pf_cfg_is_section(item->row)) continue;
        PF_TRY(pf_strlist_add(out, c->arena, item->path, err));
    }
    return PEFT_OK;
}

/* ---- complaints
 * ----------------------------------------------------------------------------------------------------
 */

const char *pf_cfg_where(pf_cfg *c, const pf_yaml_node *node) {
    const char *source = node->source != NULL ? node->source : "configuration";
    const char *s = node->line > 0
                        ? pf_arena_printf(c->arena, "%s:%d:%d", source, node->line, node->column)
                        : source;
    if (s == NULL) c->no_memory = true;
    return s != NULL ? s : "";
}

static void add_diag(pf_cfg *c, const pf_yaml_node *at, const char *subject, const char *text) {
    if (c->n_diags == PF_CFG_MAX_DIAGS) {
        c->more_diags++;
        return;
    }
    if (c->n_diags == c->cap_diags) {
        int cap = c->cap_diags > 0 ? c->cap_diags * 2 : 16;
        pf_cfg_diag *grown = PF_NEW_ARRAY(c->arena, pf_cfg_diag, cap);
        if (grown == NULL) {
            c->no_memory = true;
            return;
        }
        if (c->n_diags > 0) memcpy(grown, c->diags, (size_t)c->n_diags * sizeof *grown);
        c->diags = grown;
        c->cap_diags = cap;
    }
    const char *where = at != NULL ? pf_cfg_where(c, at) : c->name;
    char *line =
        pf_arena_printf(c->arena, "%s%s%s%s%s", where != NULL ? where : "",
                        where != NULL ? ": " : "", subject, subject[0] != 0 ? " " : "", text);
    if (line == NULL) {
        c->no_memory = true;
        return;
    }
    c->diags[c->n_diags++] = (pf_cfg_diag){.source = at != NULL ? at->source : c->name,
                                           .line = at != NULL ? at->line : 0,
                                           .column = at != NULL ? at->column : 0,
                                           .text = line};
}

void pf_cfg_complain_at(pf_cfg *c, const pf_yaml_node *at, const char *text, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, text);
    vsnprintf(line, sizeof line, text, ap);
    va_end(ap);
    add_diag(c, at, "", line);
}

void pf_cfg_complain(pf_cfg *c, const char *path, const char *text, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, text);
    vsnprintf(line, sizeof line, text, ap);
    va_end(ap);
    const pf_cfg_item *item = pf_cfg_find(c, path);
    PF_ASSERT(item != NULL);
    const pf_cfg_item *at = item;
    while (at->node == NULL && at->parent >= 0) at = &c->items[at->parent];
    /* of a section, the word that opens it is the better place */
    const pf_yaml_node *node = at->node;
    if (node != NULL && pf_cfg_is_section(at->row)) node = node->key;
    add_diag(c, node, item->path, line);
}

void pf_cfg_note(pf_cfg *c, const char *text, ...) {
    char line[1024];
    va_list ap;
    va_start(ap, text);
    vsnprintf(line, sizeof line, text, ap);
    va_end(ap);
    if (pf_strlist_has(&c->notes, line)) return;
    const char *copy = pf_arena_strdup(c->arena, line);
    if (copy == NULL || pf_strlist_add(&c->notes, c->arena, copy, NULL) != PEFT_OK)
        c->no_memory = true;
}

/* By place: what has no line (file as a whole, environment, command line) stands behind, in the
 * order it came up. */
static int by_place(const void *a, const void *b) {
    const pf_cfg_diag *x = *(const pf_cfg_diag *const *)a, *y = *(const pf_cfg_diag *const *)b;
    if ((x->line > 0) != (y->line > 0)) return x->line > 0 ? -1 : 1;
    if (x->line != y->line) return x->line < y->line ? -1 : 1;
    if (x->column != y->column) return x->column < y->column ? -1 : 1;
    return x < y ? -1 : x > y;
}

peft_status pf_cfg_finish(pf_cfg *c, peft_error *err) {
    for (int i = 0; i < c->n; i++) {
        const pf_cfg_item *item = &c->items[i];
        if (item->row->note != NULL && item->from >= PF_CFG_FROM_FILE)
            pf_cfg_note(c, "%s: %s", item->path, item->row->note);
    }
    if (c->no_memory) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (c->n_diags == 0) return PEFT_OK;
    const pf_cfg_diag **sorted = PF_NEW_ARRAY(c->arena, const pf_cfg_diag *, c->n_diags);
    PF_CHECK_ALLOC(sorted, err);
    for (int i = 0; i < c->n_diags; i++) sorted[i] = &c->diags[i];
    qsort(sorted, (size_t)c->n_diags, sizeof *sorted, by_place);
    pf_buf all = {0};
    int shown = 0;
    for (int i = 0; i < c->n_diags; i++) {
        if (all.len + strlen(sorted[i]->text) > PEFT_ERROR_MAX - 64) break;
        pf_buf_addf(&all, "%s%s", i > 0 ? "\n" : "", sorted[i]->text);
        shown++;
    }
    if (shown < c->n_diags + c->more_diags)
        pf_buf_addf(&all, "\n... and %d more", c->n_diags + c->more_diags - shown);
    peft_status status = pf_buf_ok(&all) ? PF_FAIL(err, PEFT_E_CONFIG, "%s", pf_buf_str(&all))
                                         : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&all);
    return status;
}
