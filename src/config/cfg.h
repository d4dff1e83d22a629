/* cfg.h - a configuration: rows, the values that a file, the environment and the command line gave
 * them, and where each value comes from.
 *
 * Opening lays all rows out as one array of items in pre-order and fills the caller's structs with
 * defaults. Reading merges the sources into one tree (command line over environment over file) and
 * reads the tree into the structs. Mistakes are collected, not returned: the reader, the caller's
 * own checks (pf_cfg_complain) and the overrides all add to one list, and pf_cfg_finish gives them
 * together, in the order of the file.
 *
 *   pf_cfg_open(&c, arena, rows, &run, ext, n_ext, err)
 *   pf_cfg_read(&c, &source, err)        fails only where there is nothing to read (no file, not
 * YAML)
 *   ... pf_cfg_complain(&c, "training.bf16", "is true and so is fp16; give one") ...
 *   pf_cfg_finish(&c, err)               PEFT_E_CONFIG and one line per mistake
 *
 * null (or nothing) as a value means "as if the key were not there". Everything lives in the
 * caller's arena. */
#ifndef PF_CFG_H
#define PF_CFG_H

#include "base/buf.h"
#include "config/schema.h"
#include "text/yaml.h"

/* Where a value comes from, lowest precedence first. */
typedef enum pf_cfg_from {
    PF_CFG_FROM_DEFAULT,
    PF_CFG_FROM_DERIVED, /* follows from other values */
    PF_CFG_FROM_FILE,
    PF_CFG_FROM_ENV,
    PF_CFG_FROM_CLI
} pf_cfg_from;

typedef struct pf_cfg_item {
    const pf_cfg_row *row;
    const char *path;    /* "training.learning_rate" */
    const char *choices; /* ENUM, with those that follow from the sections beside it */
    void *at;            /* the field; of a section: its struct */
    bool *given_flag;    /* of an optional section, or NULL */
    int parent;          /* index of the section it stands in, -1 at the top */
    int end;             /* one past its last descendant */
    pf_cfg_from from;
    const char *
        where; /* "run.yaml:14:8", "command line", "environment PEFT_SEED", or why it was derived */
    const pf_yaml_node *node; /* what was read; NULL when nothing */
    bool used;                /* pf_cfg_use has named it */
} pf_cfg_item;

typedef struct pf_cfg_diag {
    const char *source;
    int line, column;
    const char *text; /* whole line, position included */
} pf_cfg_diag;

enum { PF_CFG_MAX_DIAGS = 100 };

typedef struct pf_cfg {
    pf_arena *arena;
    const pf_cfg_ext *ext; /* borrowed while opening */
    int n_ext;
    pf_cfg_item *items;
    int n;
    const char *name;   /* what messages call the file; NULL without one */
    pf_yaml_node *tree; /* a mapping, all sources merged */
    pf_cfg_diag *diags;
    int n_diags, cap_diags;
    int more_diags;   /* beyond PF_CFG_MAX_DIAGS: counted, not kept */
    pf_strlist notes; /* one line each, in the order in which they came up */
    bool no_memory;   /* sticky; pf_cfg_finish reports it */
} pf_cfg;

typedef struct pf_cfg_source {
    const char *path; /* the YAML file; NULL: none */
    const char *text; /* in place of a file */
    size_t text_len;
    const char *text_name;        /* what messages call it */
    const char *const *overrides; /* "a.b=c" and "~a.b", in order */
    int n_overrides;
    const char *const
        *env; /* "NAME=value" strings ending in NULL, as environ; NULL: no environment */
} pf_cfg_source;

peft_status pf_cfg_open(pf_cfg *c, pf_arena *a, const pf_cfg_row *rows, void *root,
                        const pf_cfg_ext *ext, int n_ext, peft_error *err);
peft_status pf_cfg_read(pf_cfg *c, const pf_cfg_source *source, peft_error *err);

/* ---- items
 * -------------------------------------------------------------------------------------------------------
 */
pf_cfg_item *pf_cfg_find(const pf_cfg *c, const char *path); /* aliases too; NULL when unknown */
/* Did a file, the environment or the command line give it? Of a section: it, or anything in it. */
bool pf_cfg_given(const pf_cfg *c, const char *path);
void *pf_cfg_section(const pf_cfg *c, const char *path); /* its struct, or NULL */
/* The value now follows from something else; `why` reads behind "derived: ". The caller has set the
 * field. */
void pf_cfg_derive(pf_cfg *c, const char *path, const char *why, ...) PEFT_PRINTF(3, 4);
/* Back to the default, because of `why`. */
void pf_cfg_unset(pf_cfg *c, const char *path, const char *why, ...) PEFT_PRINTF(3, 4);

/* ---- mistakes and notes
 * -------------------------------------------------------------------------------------------- */
/* "<where it was given>: <path> <text>". A key that was not given is reported at its section, or at
 * the file. */
void pf_cfg_complain(pf_cfg *c, const char *path, const char *text, ...) PEFT_PRINTF(3, 4);
void pf_cfg_complain_at(pf_cfg *c, const pf_yaml_node *at, const char *text, ...) PEFT_PRINTF(3, 4);
void pf_cfg_note(pf_cfg *c, const char *text, ...) PEFT_PRINTF(2, 3);
/* PEFT_OK, or PEFT_E_CONFIG with all complaints, one per line (as many as fit, then how many more).
 * Also adds the notes of rows whose key was given to c->notes. */
peft_status pf_cfg_finish(pf_cfg *c, peft_error *err);

/* ---- what was read by whom
 * ------------------------------------------------------------------------------------------ A key
 * that is accepted but has no effect is a bug. Recipes name what they read: a key, or a section
 * with all below. */
void pf_cfg_use(pf_cfg *c, const char *path);
/* Given keys that nobody named; each a path. */
peft_status pf_cfg_unused(const pf_cfg *c, pf_strlist *out, peft_error *err);

/* ---- for people
 * ---------------------------------------------------------------------------------------------------
 */
/* Nested JSON: every key with {"value": ..., "origin": ...}; ends in a line end. */
void pf_cfg_dump(const pf_cfg *c, pf_buf *out);
void pf_cfg_dump_value(const pf_cfg_item *item, pf_buf *out); /* as JSON */
/* --explain KEY: a key, a section, or everything for "" and NULL. */
peft_status pf_cfg_explain(const pf_cfg *c, const char *path, pf_buf *out, peft_error *err);
/* The tables of docs/config.md. */
void pf_cfg_markdown(const pf_cfg *c, pf_buf *out);

/* ---- between the files of this folder
 * --------------------------------------------------------------------------------- */
peft_status pf_cfg_apply_env(pf_cfg *c, const char *const *env, peft_error *err);
peft_status pf_cfg_apply_overrides(pf_cfg *c, const char *const *args, int n, peft_error *err);
/* Sections written as lists (pf_cfg_row.parts) become the one section that they mean. */
void pf_cfg_fold_parts(pf_cfg *c);
/* The item that `name` names inside section `parent` (-1: the top), or -1. */
int pf_cfg_child(const pf_cfg *c, int parent, const char *name);
/* ": did you mean learning_rate?" for a name that section `parent` does not know. */
void pf_cfg_suggest(const pf_cfg *c, int parent, const char *name, char *out, size_t n);
void pf_cfg_set_default(pf_cfg *c, pf_cfg_item *item);
const char *pf_cfg_where(pf_cfg *c, const pf_yaml_node *node);
/* A value of a message: 8, or "text" with control characters shown and cut to a line's length. */
const char *pf_cfg_shown(const pf_yaml_node *node, char *out, size_t n);

#endif
