/* reader.h - a data file -> records: column names and text values, row by row.
 *
 * A value is text whatever the file had: strings as they are, numbers and booleans as JSON spells
 * them, lists of those joined with ", ", other lists and objects as JSON on one line. Rows and
 * lines are counted from 1 and kept for messages. The whole file stands in memory (mapped, or
 * unpacked when it is .gz); records point into it and live until the next one.
 *
 * open -> next* -> close. Not thread-safe. */
#ifndef PF_READER_H
#define PF_READER_H

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/str.h"

typedef struct pf_field {
    pf_str name, value; /* value.p is NULL where the file has null */
} pf_field;

typedef struct pf_items {
    const pf_str *v; /* NULL: the value is no list of texts */
    int n;
    int wrong; /* of a list: its first member that is no text, from 1; -1: the value is an object */
} pf_items;

typedef struct pf_record {
    const char *path;
    int64_t row, line;
    const pf_field *fields;
    int n;
    const pf_items *lists; /* (n) where pf_reader_options.lists asks for them; else NULL */
} pf_record;

typedef struct pf_reader_options {
    const char *format; /* name of a reader, or "tsv"; NULL or "auto": by extension and content */
    const char *field;  /* JSON: member that holds the rows; NULL: "data", or the only list */
    const pf_strlist *columns; /* CSV and TSV without a header row; NULL: the first row has them */
    char delimiter;            /* CSV; 0: by the name, else guessed from the header */
    bool no_quotes;            /* CSV: a quote is a character as any other */
    bool lists;                /* JSON: keep lists of texts as lists, too */
} pf_reader_options;

typedef struct pf_data_file pf_data_file;

typedef struct pf_reader {
    const char *name;
    const char *title;             /* "CSV or TSV", for messages */
    const char *const *extensions; /* ".csv", ..., NULL at the end */
    /* Does a file of another or no extension look like mine? `ours`: the extension is in the list
     * above; false then hands the file to the readers after this one. */
    bool (*probe)(const char *text, size_t n, bool ours);
    peft_status (*open)(pf_data_file *f, peft_error *err);
    peft_status (*next)(pf_data_file *f, pf_record *out, bool *more, peft_error *err);
    void (*close)(pf_data_file *f);
} pf_reader;

struct pf_data_file {
    const pf_reader *reader;
    const char *path; /* in `arena`, as are the options */
    const char *text; /* content, unpacked */
    size_t n;
    pf_reader_options opt;
    int64_t rows;               /* records given so far */
    char sha256[PF_SHA256_HEX]; /* of the file's bytes */
    void *state;                /* the reader's */
    pf_arena arena;             /* until close */
    pf_arena row;               /* until the next record */
    pf_mapping map;
    pf_buf unpacked;
};

peft_status pf_data_file_open(pf_data_file *f, const char *path, const pf_reader_options *opt,
                              peft_error *err);
/* The same over bytes in memory, which the caller keeps until close; path is what messages say. */
peft_status pf_data_text_open(pf_data_file *f, const char *path, const void *data, size_t n,
                              const pf_reader_options *opt, peft_error *err);
/* *more is false at the end. */
peft_status pf_data_file_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err);
void pf_data_file_close(pf_data_file *f);

/* First character behind a byte order mark and white space; 0 if there is none. */
char pf_data_first_char(const char *text, size_t n);

const pf_field *pf_record_find(const pf_record *r, const char *name); /* or NULL */
/* "question, answer, id", at most so many bytes. */
char *pf_record_columns(const pf_record *r, char *out, size_t n);

extern const pf_reader *const pf_readers[]; /* NULL at the end */

#endif
