/* class_labels.h - names of classes: ids of names, and the names that a data file has.
 *
 * A class is written by its name, or by its number where no class is called so. What is found in a
 * file stands in this order: numbers 0, 1, 2, ... as they are; other numbers, or names, sorted, as
 * run_glue and run_ner of transformers do. */
#ifndef PF_CLASS_LABELS_H
#define PF_CLASS_LABELS_H

#include "data/reader.h"

/* Where a row has its class, or a class for each of its words. */
typedef struct pf_class_columns {
    const char *label; /* NULL: the targets are no classes */
    const char *words; /* column of a list of words; NULL: the class belongs to the whole row */
    /* of targets that are several classes or numbers (label_values.h): */
    const pf_strlist *many; /* columns in place of label; NULL: one */
    const char *delimiter;  /* between the classes of a field; NULL: there is none */
} pf_class_columns;

int64_t pf_label_find(const pf_strlist *labels, const char *name, size_t n); /* id, or -1 */
/* Fails with the nearest name, or the names that there are. */
peft_status pf_label_id(const pf_strlist *labels, pf_str name, const pf_record *r,
                        const char *column, int32_t *id, peft_error *err);
char *pf_labels_text(const pf_strlist *labels, char *out, size_t n); /* "negative, positive" */

/* Fails where a JSON value is an object, or a list with something in it that is no text. */
peft_status pf_record_check_list(const pf_record *r, const pf_field *field, peft_error *err);
/* The words of a list: members of a JSON list, or what white space separates. In the arena. */
peft_status pf_record_words(const pf_record *r, const char *column, const char *key, pf_arena *a,
                            const pf_str **words, int *n, peft_error *err);
/* The value of a column, without white space at its ends. */
peft_status pf_record_label(const pf_record *r, const char *column, pf_str *out, peft_error *err);

/* Adds a name that is not there yet; fails where there are too many. */
peft_status pf_labels_note(pf_strlist *l, pf_arena *a, const pf_record *r, pf_str name,
                           const char *column, peft_error *err);
/* In the order of their ids. */
peft_status pf_labels_order(pf_strlist *l, pf_arena *a, peft_error *err);
/* All names in a file, in the order of their ids. */
peft_status pf_labels_scan(const char *path, const pf_reader_options *reader,
                           const pf_class_columns *columns, int64_t max_rows, pf_arena *a,
                           pf_strlist *out, peft_error *err);

#endif
