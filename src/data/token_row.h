/* token_row.h - a row that holds token ids in place of text, as data sets tokenized by other tools
 * do: input_ids, and (if given) labels, where a label is the id at its own place, or -100 for a
 * token that is not learned. The shift by one is the model's business, not the file's.
 *
 * Rows stand without padding. Lists are read from a record's text ("1, 2, 3", brackets are fine),
 * so every reader can bring them. */
#ifndef PF_TOKEN_ROW_H
#define PF_TOKEN_ROW_H

#include "base/buf.h"
#include "data/reader.h"

typedef struct pf_token_columns {
    const char *ids;    /* name of a column; NULL: rows are text */
    const char *labels; /* NULL: "labels" where the first row has it, else every token is learned */
    int64_t vocab;      /* ids are below it; 0: unknown */
} pf_token_columns;

typedef struct pf_token_row {
    int32_t n_tokens;
    int32_t first_label, end_label; /* both n_tokens when nothing is learned */
    int32_t n_learned;              /* fewer than end_label - first_label: there are gaps */
} pf_token_row;

/* The column of labels, by the first row; NULL: there is none. */
const char *pf_token_labels_column(const pf_token_columns *c, const pf_record *first);

/* Appends the ids (int32_t) of a record and one byte per id, 1 where it is learned. `labels` is
 * what pf_token_labels_column said. */
peft_status pf_token_row_read(const pf_token_columns *c, const char *labels, const pf_record *r,
                              pf_buf *ids, pf_buf *learned, pf_token_row *out, peft_error *err);
/* What is left of a row when only its first n tokens are kept. */
pf_token_row pf_token_row_cut(const pf_token_row *row, const unsigned char *learned, int32_t n);

#endif
