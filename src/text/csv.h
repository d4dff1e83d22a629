/* csv.h - rows of a delimited text, one after the other (RFC 4180, with what spreadsheets and
 * pandas also write).
 *
 * The text stays with the caller (a mapped file); fields that hold doubled quotes are unfolded into
 * the reader's arena and live until the next row, all others point into the text. Lines end in LF,
 * CRLF or CR; a byte order mark is skipped; empty lines are passed over. A quote opens a quoted
 * field only at the start of a field; elsewhere it is itself. Every row has as many fields as the
 * header, or the reader says which line has not. Nothing is repaired: a quote that never closes,
 * text behind a closing quote, NUL bytes and bytes that are not UTF-8 are errors with their line.
 */
#ifndef PF_CSV_H
#define PF_CSV_H

#include "base/arena.h"
#include "base/str.h"

#include <stdbool.h>

enum { PF_CSV_MAX_COLUMNS = 10000 };

typedef struct pf_csv_options {
    char delimiter; /* 0: whichever of , ; and tab the header has most of; a comma if none */
    bool no_quotes; /* a quote is a character as any other (plain TSV) */
    const pf_strlist
        *columns; /* names for a text without a header row; NULL: the first row has them */
} pf_csv_options;

typedef struct pf_csv {
    const char *text, *name; /* borrowed */
    size_t n, at;
    char delimiter;
    bool no_quotes;
    int64_t next_line; /* line in which the text at `at` stands */
    int64_t line;      /* line in which the current row begins, from 1 */
    int64_t rows;      /* rows given so far, the header not counted */
    pf_str *columns;   /* header names, white space off both ends; in `arena` */
    pf_str *fields;    /* the current row, n_columns of them; valid until the next row */
    int n_columns, cap_fields;
    pf_arena arena; /* header */
    pf_arena row;   /* unfolded fields of the current row */
} pf_csv;

/* Reads the header. Empty and duplicate header names: several columns may be nameless, no two have
 * one name. */
peft_status pf_csv_open(pf_csv *c, const char *text, size_t n, const char *name,
                        const pf_csv_options *opt, peft_error *err);
void pf_csv_close(pf_csv *c);
/* *more is false at the end of the text. */
peft_status pf_csv_next(pf_csv *c, bool *more, peft_error *err);
/* Index of a column, or -1. */
int pf_csv_column(const pf_csv *c, const char *column);

#endif
