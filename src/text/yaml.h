/* yaml.h - a YAML file as a small tree, over libyaml's events.
 *
 * What configurations need and no more: mappings with plain keys, lists, scalars. Scalars stay
 * text; whoever knows the type reads them (`2e-4` is a number where a number is wanted, `no` is
 * text where text is wanted). Refused, each with file:line:column: anchors, aliases, tags, merge
 * keys, duplicate keys, keys that are not scalars, several documents, bytes that are not UTF-8, NUL
 * characters, more than PF_YAML_MAX_* of anything.
 *
 * A tree lives in the caller's arena. It may be edited (command-line overrides do), which is why
 * nodes say themselves where they come from. */
#ifndef PF_YAML_H
#define PF_YAML_H

#include "base/arena.h"
#include "base/str.h"

#include <stdbool.h>

enum {
    PF_YAML_MAX_BYTES = 1 << 20,
    PF_YAML_MAX_DEPTH = 32,
    PF_YAML_MAX_NODES = 100000,
};

typedef enum pf_yaml_kind { PF_YAML_SCALAR, PF_YAML_SEQ, PF_YAML_MAP } pf_yaml_kind;

typedef struct pf_yaml_node pf_yaml_node;
struct pf_yaml_node {
    pf_yaml_kind kind;
    bool quoted;         /* scalar in quotes or a block (| or >): never null, always text */
    const char *text;    /* scalar; terminated, valid UTF-8, no NUL inside */
    pf_yaml_node *key;   /* of a value in a mapping: its key, a scalar; else NULL */
    pf_yaml_node *first; /* SEQ and MAP: children in order (of a mapping: the values) */
    pf_yaml_node *next;  /* sibling */
    int n;               /* how many children */
    const char *source;  /* file name as messages give it; borrowed */
    int line, column;    /* from 1; line 0 when the source has no lines */
};

/* *root is NULL when the text holds no document. `name` is borrowed by the nodes. */
peft_status pf_yaml_parse(pf_yaml_node **root, pf_arena *a, const char *text, size_t n,
                          const char *name, peft_error *err);
peft_status pf_yaml_load(pf_yaml_node **root, pf_arena *a, const char *path, peft_error *err);

/* null, Null, NULL, ~ or nothing, without quotes. */
bool pf_yaml_is_null(const pf_yaml_node *n);
/* The value of a key in a mapping, or NULL. */
pf_yaml_node *pf_yaml_find(const pf_yaml_node *map, const char *key);
/* "a mapping", "a list", "text" for messages. */
const char *pf_yaml_kind_name(const pf_yaml_node *n);

/* Editing. New nodes carry the position of `like` (may be NULL). */
pf_yaml_node *pf_yaml_new(pf_arena *a, pf_yaml_kind kind, const char *text,
                          const pf_yaml_node *like);            /* NULL when memory is out */
void pf_yaml_append(pf_yaml_node *parent, pf_yaml_node *child); /* child->key set for a mapping */
void pf_yaml_remove(pf_yaml_node *parent, pf_yaml_node *child);

#endif
