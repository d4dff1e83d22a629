/* csv.c - one pass over the bytes; a field is a slice of the text unless quotes in it are doubled.
 */
#include "text/csv.h"

#include "base/map.h"
#include "base/mem.h"

#include <string.h>

#include "base/banned.h"

static bool is_line_end(char ch) {
    return ch == '\n' || ch == '\r';
}

/* Step over one LF, CRLF or CR. */
static void skip_line_end(pf_csv *c) {
    if (c->text[c->at] == '\r' && c->at + 1 < c->n && c->text[c->at + 1] == '\n') c->at++;
    c->at++;
    c->next_line++;
}

static peft_status add_field(pf_csv *c, int *count, pf_str field, peft_error *err) {
    if (*count == PF_CSV_MAX_COLUMNS)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: more than %d fields in one row; is the delimiter right?", c->name,
                       (long long)c->line, PF_CSV_MAX_COLUMNS);
    if (*count == c->cap_fields) {
        int cap = c->cap_fields > 0 ? c->cap_fields * 2 : 16;
        pf_str *grown = pf_realloc(c->fields, (size_t)cap * sizeof *grown);
        PF_CHECK_ALLOC(grown, err);
        c->fields = grown;
        c->cap_fields = cap;
    }
    c->fields[(*count)++] = field;
    return PEFT_OK;
}

/* A quoted field; c->at stands on the opening quote and afterwards behind the closing one. */
static peft_status quoted_field(pf_csv *c, pf_str *field, peft_error *err) {
    int64_t opened = c->next_line;
    size_t start = ++c->at, doubled = 0;
    for (;; c->at++) {
        const char *p = c->text + c->at;
        if (c->at >= c->n)
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s:%lld: a quote (\") opens in this line and never closes", c->name,
                           (long long)opened);
        if (*p == '"') {
            if (c->at + 1 >= c->n || p[1] != '"') break;
            doubled++;
            c->at++;
        } else if (*p == '\n' || (*p == '\r' && (c->at + 1 >= c->n || p[1] != '\n'))) {
            c->next_line++;
        }
    }
    *field = (pf_str){c->text + start, c->at - start};
    c->at++;
    if (doubled == 0) return PEFT_OK;
    char *flat = pf_arena_alloc(&c->row, field->n - doubled + 1);
    PF_CHECK_ALLOC(flat, err);
    size_t w = 0;
    for (size_t i = 0; i < field->n; i++) {
        flat[w++] = field->p[i];
        if (field->p[i] == '"') i++;
    }
    *field = (pf_str){flat, w};
    return PEFT_OK;
}

/* One row into c->fields; count 0 at the end of the text. */
static peft_status read_row(pf_csv *c, int *count, peft_error *err) {
    *count = 0;
    pf_arena_reset(&c->row);
    while (c->at < c->n && is_line_end(c->text[c->at])) skip_line_end(c);
    if (c->at >= c->n) return PEFT_OK;
    c->line = c->next_line;
    size_t row_start = c->at;
    for (;;) {
        pf_str field = {0};
        if (!c->no_quotes && c->at < c->n && c->text[c->at] == '"') {
            PF_TRY(quoted_field(c, &field, err));
            if (c->at < c->n && c->text[c->at] != c->delimiter && !is_line_end(c->text[c->at]))
                return PF_FAIL(
                    err, PEFT_E_FORMAT,
                    "%s:%lld: text follows a closing quote in field %d; a quote inside a "
                    "quoted field is written twice (\"\")",
                    c->name, (long long)c->next_line, *count + 1);
        } else {
            size_t start = c->at;
            while (c->at < c->n && c->text[c->at] != c->delimiter && !is_line_end(c->text[c->at]))
                c->at++;
            field = (pf_str){c->text + start, c->at - start};
        }
        PF_TRY(add_field(c, count, field, err));
        if (c->at >= c->n || c->text[c->at] != c->delimiter) break;
        c->at++;
    }
    size_t bad = 0, length = c->at - row_start;
    const char *nul = memchr(c->text + row_start, 0, length);
    bool utf8 = pf_utf8_valid(c->text + row_start, length, &bad);
    if (nul != NULL || !utf8) {
        size_t where = nul != NULL ? (size_t)(nul - c->text) : row_start + bad;
        int64_t line = c->line;
        for (size_t i = row_start; i < where; i++)
            line += c->text[i] == '\n' ||
                    (c->text[i] == '\r' && (i + 1 >= c->n || c->text[i + 1] != '\n'));
        if (nul != NULL)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: a NUL byte; is this a text file in UTF-8?",
                           c->name, (long long)line);
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: byte 0x%02x is not UTF-8", c->name,
                       (long long)line, (unsigned char)c->text[where]);
    }
    if (c->at < c->n) skip_line_end(c);
    return PEFT_OK;
}

static char guess_delimiter(const char *text, size_t n, bool no_quotes) {
    static const char candidates[3] = {',', ';', '\t'};
    size_t counts[3] = {0};
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"' && !no_quotes) quoted = !quoted;
        if (quoted) continue;
        if (is_line_end(text[i])) break;
        for (int k = 0; k < 3; k++) counts[k] += text[i] == candidates[k];
    }
    int best = 0;
    for (int k = 1; k < 3; k++)
        if (counts[k] > counts[best]) best = k;
    return candidates[best];
}

static peft_status take_header(pf_csv *c, const pf_strlist *given, peft_error *err) {
    int count = given != NULL ? given->n : 0;
    if (given == NULL) PF_TRY(read_row(c, &count, err));
    if (count == 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: is empty; its first row should hold the names of the columns", c->name);
    c->columns = PF_NEW_ARRAY(&c->arena, pf_str, count);
    PF_CHECK_ALLOC(c->columns, err);
    c->n_columns = count;
    pf_map names;
    pf_map_init(&names);
    peft_status status = PEFT_OK;
    for (int i = 0; i < count && status == PEFT_OK; i++) {
        pf_str name = pf_str_trim(given != NULL ? pf_str_of(given->items[i]) : c->fields[i]);
        char *copy = pf_arena_strndup(&c->arena, name.p, name.n);
        if (copy == NULL) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
            break;
        }
        c->columns[i] = (pf_str){copy, name.n};
        if (name.n == 0) continue;
        bool existed = false;
        status = pf_map_put(&names, copy, name.n, i, NULL, &existed, err);
        if (status == PEFT_OK && existed)
            status = PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: two columns have the name \"%.60s\"",
                             c->name, (long long)(c->line > 0 ? c->line : 1), copy);
    }
    pf_map_release(&names);
    return status;
}

peft_status pf_csv_open(pf_csv *c, const char *text, size_t n, const char *name,
                        const pf_csv_options *opt, peft_error *err) {
    *c = (pf_csv){.text = text, .name = name, .n = n, .next_line = 1};
    pf_arena_init(&c->arena, "csv header");
    pf_arena_init(&c->row, "csv row");
    if (n >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: is UTF-16; save it as UTF-8", name);
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) c->at = 3;
    c->no_quotes = opt != NULL && opt->no_quotes;
    c->delimiter = opt != NULL ? opt->delimiter : 0;
    if (c->delimiter == 0) {
        /* the first line that is not empty has to tell */
        size_t at = c->at;
        while (at < n && is_line_end(text[at])) at++;
        c->delimiter = n > at ? guess_delimiter(text + at, n - at, c->no_quotes) : ',';
    }
    if (c->delimiter == '"' || is_line_end(c->delimiter) || (unsigned char)c->delimiter >= 0x80)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: the delimiter should be one ASCII character, no quote and no line end",
                       name);
    peft_status status = take_header(c, opt != NULL ? opt->columns : NULL, err);
    if (status != PEFT_OK) pf_csv_close(c);
    return status;
}

void pf_csv_close(pf_csv *c) {
    if (c == NULL) return;
    pf_free(c->fields);
    pf_arena_release(&c->arena);
    pf_arena_release(&c->row);
    *c = (pf_csv){0};
}

peft_status pf_csv_next(pf_csv *c, bool *more, peft_error *err) {
    *more = false;
    int count = 0;
    PF_TRY(read_row(c, &count, err));
    if (count == 0) return PEFT_OK;
    if (count != c->n_columns)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: this row has %d field%s, the header has %d; a field with the "
                       "delimiter in it needs quotes",
                       c->name, (long long)c->line, count, count == 1 ? "" : "s", c->n_columns);
    c->rows++;
    *more = true;
    return PEFT_OK;
}

int pf_csv_column(const pf_csv *c, const char *column) {
    pf_str name = pf_str_of(column);
    for (int i = 0; i < c->n_columns; i++)
        if (pf_str_eq(c->columns[i], name)) return i;
    return -1;
}
