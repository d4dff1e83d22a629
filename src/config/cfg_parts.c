/* cfg_parts.c - a section that may be written as a list of sections (peft: of methods that train
 * side by side), told as the one section that it means:
 *
 *   peft:                                    peft:
 *     - method: lora                           method: lora
 *       lora: {r: 8}               ->          also: [ia3]
 *     - method: ia3                            lora: {r: 8}
 *       ia3: {target_modules: [down_proj]}     ia3: {target_modules: [down_proj]}
 *
 * so that overrides, defaults and messages know one form. */
#include "config/cfg.h"

#include <string.h>

#include "base/banned.h"

typedef struct fold {
    pf_cfg *c;
    const pf_cfg_row *row; /* of the section */
    const char *kind;      /* the key that names a part: "method" */
    pf_yaml_node *map;     /* what it becomes */
    pf_yaml_node *further; /* the list of the parts behind the first */
    int n;
} fold;

static void take_kind(fold *f, pf_yaml_node *v) {
    if (v->kind != PF_YAML_SCALAR) {
        pf_cfg_complain_at(f->c, v, "%s[%d].%s is %s; it should be one word", f->row->name, f->n,
                           f->kind, pf_yaml_kind_name(v));
        return;
    }
    if (f->n == 0) {
        pf_yaml_append(f->map, v);
        return;
    }
    v->key = NULL;
    pf_yaml_append(f->further, v);
}

static void take_part(fold *f, pf_yaml_node *part) {
    if (part->kind != PF_YAML_MAP || pf_yaml_find(part, f->kind) == NULL) {
        pf_cfg_complain_at(
            f->c, part,
            "%s[%d] is %s; each item of the list should be a section with the key "
            "%s",
            f->row->name, f->n,
            part->kind == PF_YAML_MAP ? "a section without it" : pf_yaml_kind_name(part), f->kind);
        return;
    }
    for (pf_yaml_node *v = part->first, *next; v != NULL; v = next) {
        next = v->next;
        v->next = NULL;
        const pf_yaml_node *before = pf_yaml_find(f->map, v->key->text);
        if (strcmp(v->key->text, f->kind) == 0)
            take_kind(f, v);
        else if (before != NULL)
            pf_cfg_complain_at(f->c, v->key, "%s.%s is given twice (first at %s)", f->row->name,
                               v->key->text, pf_cfg_where(f->c, before));
        else
            pf_yaml_append(f->map, v);
    }
}

static void fold_section(pf_cfg *c, const pf_cfg_row *row, pf_yaml_node *list) {
    char kind[32];
    const size_t len = strcspn(row->parts, " ");
    PF_ASSERT(len < sizeof kind && row->parts[len] == ' ');
    memcpy(kind, row->parts, len);
    kind[len] = 0;
    fold f = {.c = c, .row = row, .kind = kind};
    f.map = pf_yaml_new(c->arena, PF_YAML_MAP, NULL, list);
    f.further = pf_yaml_new(c->arena, PF_YAML_SEQ, NULL, list);
    pf_yaml_node *key = pf_yaml_new(c->arena, PF_YAML_SCALAR, row->parts + len + 1, list);
    if (f.map == NULL || f.further == NULL || key == NULL) {
        c->no_memory = true;
        return;
    }
    f.further->key = key;
    for (pf_yaml_node *part = list->first, *next; part != NULL; part = next, f.n++) {
        next = part->next;
        take_part(&f, part);
    }
    if (f.further->n > 0) pf_yaml_append(f.map, f.further);
    list->kind = PF_YAML_MAP;
    list->first = f.map->first;
    list->n = f.map->n;
}

void pf_cfg_fold_parts(pf_cfg *c) {
    for (int i = 0; i < c->n; i = c->items[i].end) {
        const pf_cfg_row *row = c->items[i].row;
        pf_yaml_node *node = row->parts != NULL ? pf_yaml_find(c->tree, row->name) : NULL;
        if (node != NULL && node->kind == PF_YAML_SEQ && node->n > 0) fold_section(c, row, node);
    }
}
