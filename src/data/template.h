/* template.h - "Q: {question}\nA:" -> text of a record. {name} is a column, {{ and }} are braces;
 * {name?} is a column that a row may lack or have null in, and is empty there. Compiled once; a
 * mistake in it is found before the first row. Rendering is not thread-safe: a template remembers
 * where it found its columns in the record before. */
#ifndef PF_TEMPLATE_H
#define PF_TEMPLATE_H

#include "base/buf.h"
#include "data/reader.h"

typedef struct pf_template_part {
    pf_str text;          /* literal, or the name of a column */
    pf_str bare;          /* of {name?}: name; a column that is called "name?" goes first */
    bool is_column, seen; /* seen: some record had it */
    int hint;             /* where the column was in the last record */
} pf_template_part;

typedef struct pf_template {
    const char *key;    /* "data.prompt", for messages */
    const char *source; /* NULL: no template, renders nothing */
    pf_template_part *parts;
    int n_parts;
} pf_template;

/* Copies source into the arena. key is borrowed. */
peft_status pf_template_compile(pf_template *t, pf_arena *a, const char *key, const char *source,
                                peft_error *err);
/* Appends the text of the record. A column that is not there is an error that names those that are;
 * null in one is an error, too. */
peft_status pf_template_render(pf_template *t, const pf_record *r, pf_buf *out, peft_error *err);
/* A {name?} that no record had, probably misspelt; no characters: there is none. */
pf_str pf_template_unseen(const pf_template *t);

#endif
