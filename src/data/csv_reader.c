/* csv_reader.c - comma, semicolon or tab separated rows under a header; the parsing is text/csv.c.
 */
#include "data/reader.h"

#include "text/csv.h"

#include <string.h>
#include <strings.h>

typedef struct csv_state {
    pf_csv csv;
    pf_field *fields;
} csv_state;

/* A text with a separator in its first line. */
static bool csv_probe(const char *text, size_t n, bool ours) {
    if (ours) return true;
    const char *end = memchr(text, '\n', n);
    size_t line = end == NULL ? n : (size_t)(end - text);
    char c = pf_data_first_char(text, n);
    return c != '{' && c != '[' &&
           (memchr(text, ',', line) != NULL || memchr(text, '\t', line) != NULL) &&
           pf_utf8_valid(text, line, NULL);
}

static bool named_tsv(const char *path) {
    static const char *const ends[] = {".tsv", ".tab", ".tsv.gz", ".tab.gz"};
    size_t n = strlen(path);
    for (size_t i = 0; i < PF_COUNT(ends); i++) {
        size_t k = strlen(ends[i]);
        if (n >= k && strcasecmp(path + n - k, ends[i]) == 0) return true;
    }
    return false;
}

static peft_status csv_open(pf_data_file *f, peft_error *err) {
    csv_state *s = PF_NEW(&f->arena, csv_state);
    PF_CHECK_ALLOC(s, err);
    pf_csv_options opt = {
        .columns = f->opt.columns, .delimiter = f->opt.delimiter, .no_quotes = f->opt.no_quotes};
    if (opt.delimiter == 0 && named_tsv(f->path)) opt.delimiter = '\t';
    PF_TRY(pf_csv_open(&s->csv, f->text, f->n, f->path, &opt, err));
    s->fields = PF_NEW_ARRAY(&f->arena, pf_field, s->csv.n_columns);
    if (s->fields == NULL) {
        pf_csv_close(&s->csv);
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", f->path);
    }
    for (int i = 0; i < s->csv.n_columns; i++) s->fields[i].name = s->csv.columns[i];
    f->state = s;
    return PEFT_OK;
}

static peft_status csv_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err) {
    csv_state *s = f->state;
    PF_TRY(pf_csv_next(&s->csv, more, err));
    if (!*more) return PEFT_OK;
    for (int i = 0; i < s->csv.n_columns; i++) s->fields[i].value = s->csv.fields[i];
    out->line = s->csv.line;
    out->fields = s->fields;
    out->n = s->csv.n_columns;
    return PEFT_OK;
}

static void csv_close(pf_data_file *f) {
    csv_state *s = f->state;
    pf_csv_close(&s->csv);
}

static const char *const extensions[] = {".csv", ".tsv", ".tab", NULL};

const pf_reader pf_reader_csv = {
    .name = "csv",
    .title = "CSV or TSV",
    .extensions = extensions,
    .probe = csv_probe,
    .open = csv_open,
    .next = csv_next,
    .close = csv_close,
};
