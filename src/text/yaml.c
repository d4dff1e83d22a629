/* yaml.c - libyaml events into a tree. The stack is an array of PF_YAML_MAX_DEPTH, so nothing
 * recurses on input. */
#include "text/yaml.h"

#include "base/file.h"
#include "base/map.h"

#include <string.h>
#include <yaml.h>

#include "base/banned.h"

typedef struct builder {
    pf_arena *arena;
    const char *name;
    peft_error *err;
    pf_map seen; /* (mapping's number, key): finds duplicate keys in one look-up */
    pf_buf scratch;
    pf_yaml_node *root;
    pf_yaml_node *stack[PF_YAML_MAX_DEPTH];
    uint32_t ids[PF_YAML_MAX_DEPTH];       /* the number of each mapping on the stack */
    pf_yaml_node *keys[PF_YAML_MAX_DEPTH]; /* the key whose value comes next, per mapping */
    pf_yaml_node *last[PF_YAML_MAX_DEPTH]; /* youngest child */
    int depth;
    uint32_t n_nodes;
    int documents;
} builder;

static peft_status fail_at(builder *b, const yaml_mark_t *m, const char *what) {
    return PF_FAIL(b->err, PEFT_E_FORMAT, "%s:%zu:%zu: %s", b->name, m->line + 1, m->column + 1,
                   what);
}

static peft_status new_node(builder *b, pf_yaml_node **out, pf_yaml_kind kind,
                            const yaml_mark_t *at) {
    if (b->n_nodes == PF_YAML_MAX_NODES)
        return PF_FAIL(b->err, PEFT_E_FORMAT, "%s:%zu:%zu: more than %d values in one file",
                       b->name, at->line + 1, at->column + 1, PF_YAML_MAX_NODES);
    b->n_nodes++;
    pf_yaml_node *n = PF_NEW(b->arena, pf_yaml_node);
    PF_CHECK_ALLOC(n, b->err);
    n->kind = kind;
    n->source = b->name;
    n->line = (int)at->line + 1;
    n->column = (int)at->column + 1;
    *out = n;
    return PEFT_OK;
}

/* Every key of every mapping goes into one table under "number of the mapping, key". */
static peft_status check_duplicate(builder *b, const pf_yaml_node *key) {
    uint32_t id = b->ids[b->depth - 1];
    pf_buf_clear(&b->scratch);
    pf_buf_add(&b->scratch, &id, sizeof id);
    pf_buf_adds(&b->scratch, key->text);
    if (!pf_buf_ok(&b->scratch)) return PF_FAIL(b->err, PEFT_E_NOMEM, "out of memory");
    const pf_map_entry *old = pf_map_find(&b->seen, b->scratch.data, b->scratch.len);
    if (old != NULL)
        return PF_FAIL(b->err, PEFT_E_FORMAT,
                       "%s:%d:%d: the key \"%.60s\" stands here twice; the first is in line %lld",
                       b->name, key->line, key->column, key->text, (long long)old->value);
    return pf_map_put(&b->seen, b->scratch.data, b->scratch.len, key->line, NULL, NULL, b->err);
}

/* Hang a finished or opening node where it belongs: it is the root, an item, a key or the value of
 * the last key. */
static peft_status place(builder *b, pf_yaml_node *n, const yaml_mark_t *at) {
    if (b->depth == 0) {
        b->root = n;
        return PEFT_OK;
    }
    pf_yaml_node *parent = b->stack[b->depth - 1];
    pf_yaml_node **key = &b->keys[b->depth - 1];
    if (parent->kind == PF_YAML_MAP && *key == NULL) {
        if (n->kind != PF_YAML_SCALAR)
            return fail_at(b, at,
                           "a key is a list or a mapping; it should be a word. A value that "
                           "begins with { or [ as text needs quotes");
        if (!n->quoted && strcmp(n->text, "<<") == 0)
            return fail_at(b, at, "merge keys (<<) are not taken; write the keys out");
        PF_TRY(check_duplicate(b, n));
        *key = n;
        return PEFT_OK;
    }
    if (parent->kind == PF_YAML_MAP) {
        n->key = *key;
        *key = NULL;
    }
    pf_yaml_node **last = &b->last[b->depth - 1];
    if (*last == NULL)
        parent->first = n;
    else
        (*last)->next = n;
    *last = n;
    parent->n++;
    return PEFT_OK;
}

static peft_status open_node(builder *b, pf_yaml_kind kind, const yaml_mark_t *at) {
    if (b->depth == PF_YAML_MAX_DEPTH)
        return PF_FAIL(b->err, PEFT_E_FORMAT, "%s:%zu:%zu: nested more than %d deep", b->name,
                       at->line + 1, at->column + 1, PF_YAML_MAX_DEPTH);
    pf_yaml_node *n = NULL;
    PF_TRY(new_node(b, &n, kind, at));
    PF_TRY(place(b, n, at));
    b->keys[b->depth] = b->last[b->depth] = NULL;
    b->ids[b->depth] = b->n_nodes;
    b->stack[b->depth++] = n;
    return PEFT_OK;
}

static peft_status scalar(builder *b, const yaml_event_t *e) {
    const char *value = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    if (memchr(value, 0, n) != NULL)
        return fail_at(b, &e->start_mark, "a text holds a NUL character (\\0)");
    pf_yaml_node *node = NULL;
    PF_TRY(new_node(b, &node, PF_YAML_SCALAR, &e->start_mark));
    node->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = pf_arena_strndup(b->arena, value, n);
    PF_CHECK_ALLOC(node->text, b->err);
    return place(b, node, &e->start_mark);
}

static peft_status take(builder *b, const yaml_event_t *e) {
    const yaml_mark_t *at = &e->start_mark;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        break;
    default:
        break;
    }
    if (anchor != NULL)
        return fail_at(b, at,
                       "anchors (&name) are not taken; write the value out where it is "
                       "used, or put it in quotes if the & is text");
    if (tag != NULL)
        return fail_at(b, at,
                       "tags (!name) are not taken; put the value in quotes if the ! is text");
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->documents++ > 0)
            return fail_at(b, at, "a second document begins here (---); one file holds one");
        break;
    case YAML_ALIAS_EVENT:
        return fail_at(b, at,
                       "aliases (*name) are not taken; write the value out, or put it in "
                       "quotes if the * is text");
    case YAML_SCALAR_EVENT:
        return scalar(b, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_node(b, PF_YAML_SEQ, at);
    case YAML_MAPPING_START_EVENT:
        return open_node(b, PF_YAML_MAP, at);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        break;
    default:
        break;
    }
    return PEFT_OK;
}

/* libyaml's own complaint, with the place it gives; its reader gives a byte offset only. */
static peft_status parser_error(builder *b, const yaml_parser_t *p, const char *text, size_t n) {
    if (p->error == YAML_MEMORY_ERROR) return PF_FAIL(b->err, PEFT_E_NOMEM, "out of memory");
    const char *problem = p->problem != NULL ? p->problem : "not valid YAML";
    yaml_mark_t at = p->problem_mark;
    if (p->error == YAML_READER_ERROR) {
        at.line = at.column = 0;
        for (size_t i = 0; i < p->problem_offset && i < n; i++) {
            at.column += ((unsigned char)text[i] & 0xc0) != 0x80;
            if (text[i] == '\n') {
                at.line++;
                at.column = 0;
            }
        }
    }
    const char *hint = "";
    if (strstr(problem, "found character that cannot start any token") != NULL)
        hint = at.index < n && text[at.index] == '\t' ? " (indent with spaces, not with a tab)"
                                                      : " (put the text in quotes)";
    else if (strstr(problem, "mapping values are not allowed") != NULL)
        hint = " (a text with \": \" in it needs quotes; or the indentation is off)";
    if (p->context != NULL)
        return PF_FAIL(b->err, PEFT_E_FORMAT, "%s:%zu:%zu: %s, %s%s", b->name, at.line + 1,
                       at.column + 1, p->context, problem, hint);
    return PF_FAIL(b->err, PEFT_E_FORMAT, "%s:%zu:%zu: %s%s", b->name, at.line + 1, at.column + 1,
                   problem, hint);
}

static peft_status run(builder *b, const char *text, size_t n) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return PF_FAIL(b->err, PEFT_E_NOMEM, "out of memory");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    peft_status status = PEFT_OK;
    for (bool end = false; !end && status == PEFT_OK;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            status = parser_error(b, &parser, text, n);
            break;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        status = take(b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

peft_status pf_yaml_parse(pf_yaml_node **root, pf_arena *a, const char *text, size_t n,
                          const char *name, peft_error *err) {
    *root = NULL;
    if (n > PF_YAML_MAX_BYTES)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: has %zu bytes; a configuration has at most %d",
                       name, n, PF_YAML_MAX_BYTES);
    size_t bad = 0;
    if (!pf_utf8_valid(text, n, &bad)) {
        if (n >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s:1:1: is UTF-16; save it as UTF-8", name);
        size_t line = 1, column = 1;
        for (size_t i = 0; i < bad; i++) {
            column += ((unsigned char)text[i] & 0xc0) != 0x80;
            if (text[i] == '\n') {
                line++;
                column = 1;
            }
        }
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%zu:%zu: byte 0x%02x is not UTF-8", name, line,
                       column, (unsigned char)text[bad]);
    }
    builder b = {.arena = a, .name = name, .err = err};
    pf_map_init(&b.seen);
    peft_status status = run(&b, n > 0 ? text : "", n);
    pf_map_release(&b.seen);
    pf_buf_free(&b.scratch);
    if (status == PEFT_OK) *root = b.root;
    return status;
}

peft_status pf_yaml_load(pf_yaml_node **root, pf_arena *a, const char *path, peft_error *err) {
    *root = NULL;
    const char *name = pf_arena_strdup(a, path);
    PF_CHECK_ALLOC(name, err);
    pf_buf text = {0};
    peft_status status = pf_read_file(&text, path, PF_YAML_MAX_BYTES, err);
    if (status == PEFT_OK) status = pf_yaml_parse(root, a, pf_buf_str(&text), text.len, name, err);
    pf_buf_free(&text);
    return status;
}

bool pf_yaml_is_null(const pf_yaml_node *n) {
    if (n == NULL) return true;
    if (n->kind != PF_YAML_SCALAR || n->quoted) return false;
    const char *t = n->text;
    return t[0] == 0 || strcmp(t, "~") == 0 || strcmp(t, "null") == 0 || strcmp(t, "Null") == 0 ||
           strcmp(t, "NULL") == 0;
}

pf_yaml_node *pf_yaml_find(const pf_yaml_node *map, const char *key) {
    if (map == NULL || map->kind != PF_YAML_MAP) return NULL;
    for (pf_yaml_node *n = map->first; n != NULL; n = n->next)
        if (n->key != NULL && strcmp(n->key->text, key) == 0) return n;
    return NULL;
}

const char *pf_yaml_kind_name(const pf_yaml_node *n) {
    switch (n->kind) {
    case PF_YAML_MAP:
        return "a mapping";
    case PF_YAML_SEQ:
        return "a list";
    case PF_YAML_SCALAR:
        break;
    }
    return pf_yaml_is_null(n) ? "empty" : "text";
}

pf_yaml_node *pf_yaml_new(pf_arena *a, pf_yaml_kind kind, const char *text,
                          const pf_yaml_node *like) {
    pf_yaml_node *n = PF_NEW(a, pf_yaml_node);
    if (n == NULL) return NULL;
    n->kind = kind;
    if (text != NULL && (n->text = pf_arena_strdup(a, text)) == NULL) return NULL;
    if (like != NULL) {
        n->source = like->source;
        n->line = like->line;
        n->column = like->column;
    }
    return n;
}

void pf_yaml_append(pf_yaml_node *parent, pf_yaml_node *child) {
    pf_yaml_node **at = &parent->first;
    while (*at != NULL) at = &(*at)->next;
    *at = child;
    child->next = NULL;
    parent->n++;
}

void pf_yaml_remove(pf_yaml_node *parent, pf_yaml_node *child) {
    for (pf_yaml_node **at = &parent->first; *at != NULL; at = &(*at)->next) {
        if (*at != child) continue;
        *at = child->next;
        parent->n--;
        return;
    }
}
