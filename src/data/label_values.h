/* label_values.h - targets of a row that are several classes or numbers: how a file writes them,
 * what a file looks like, and a row's target as numbers.
 *
 * Several classes: a JSON list of names or ids; a list with 0 or 1 for each class, where all lists
 * of the file are as long as each other and have nothing else; names with a delimiter between them;
 * a column for each class. Numbers: one, a JSON list of them, a column for each. */
#ifndef PF_LABEL_VALUES_H
#define PF_LABEL_VALUES_H

#include "data/class_row.h"

typedef struct pf_label_look { /* at a whole file */
    pf_problem problem;        /* what it looks like, unless told */
    char why[200];             /* for people; "" for SINGLE */
    pf_strlist names;          /* of what is told, by id */
    bool one_hot;              /* lists have a 0 or 1 for each class */
} pf_label_look;

/* told: what the targets are, AUTO: by their looks. */
peft_status pf_label_look_at(const char *path, const pf_reader_options *reader,
                             const pf_class_columns *columns, pf_problem told, pf_arena *a,
                             pf_label_look *out, peft_error *err);

/* The target of a row by the rules' problem: out (rules->labels->n) numbers. Scratch in the arena.
 */
peft_status pf_label_values(const pf_class_rules *rules, const pf_record *r, pf_arena *a,
                            float *out, peft_error *err);
/* As people read it: "joy, love"; "3.8". */
void pf_label_values_text(pf_problem problem, const pf_strlist *names, const float *values,
                          pf_buf *out);

#endif
