/* json_reader.c - a JSON array of objects, at the top or as a member of the object at the top.
 *
 * The array is walked element by element: brackets and quotes say where one ends, then jansson
 * checks and reads it. So memory holds one row at a time and every row knows its line. When an
 * element turns out to be broken, the whole text is parsed once to get jansson's message with the
 * right line and column. */
#include "data/json_record.h"

#include <stdio.h>
#include <string.h>

typedef struct json_state {
    size_t at; /* before an element, or before the bracket that ends the array */
    int64_t line;
    bool first, done;
    bool top; /* the array is the whole text */
} json_state;

static bool json_probe(const char *text, size_t n, bool ours) {
    char c = pf_data_first_char(text, n);
    return c == '[' || (ours && (c != '{' || pf_json_is_single(text, n)));
}

/* What is wrong with the text as a whole, or `what` when JSON finds nothing. */
static peft_status broken(const pf_data_file *f, int64_t line, const char *what, peft_error *err) {
    json_t *v = NULL;
    PF_TRY(pf_json_parse(&v, f->text, f->n, f->path, err));
    json_decref(v);
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: %s", f->path, (long long)line, what);
}

/* The object at the top: find the member that holds the rows. s->at stands at its brace. */
static peft_status find_member(pf_data_file *f, json_state *s, peft_error *err) {
    size_t at = s->at + 1, found = 0;
    int64_t line = s->line, found_line = 0;
    int lists = 0;
    bool by_name = false;
    pf_buf names = {0};
    peft_status status = PEFT_OK;
    const char *wanted = f->opt.field != NULL ? f->opt.field : "data";
    for (;;) {
        at = pf_json_skip_space(f->text, f->n, at, &line);
        if (at >= f->n || f->text[at] != '"') break; /* the end, or broken: seen below */
        size_t key = at;
        at = pf_json_skip_value(f->text, f->n, at, &line);
        json_t *name = NULL;
        status = pf_json_parse(&name, f->text + key, at - key, f->path, NULL);
        if (status != PEFT_OK) break;
        bool match = strcmp(json_string_value(name), wanted) == 0;
        if (names.len < 300)
            pf_buf_addf(&names, "%s%s", names.len > 0 ? ", " : "", json_string_value(name));
        json_decref(name);
        at = pf_json_skip_space(f->text, f->n, at, &line);
        if (at >= f->n || f->text[at] != ':') break;
        at = pf_json_skip_space(f->text, f->n, at + 1, &line);
        bool list = at < f->n && f->text[at] == '[';
        if (list && !by_name) {
            found = at;
            found_line = line;
            lists++;
        }
        by_name = by_name || (list && match);
        size_t value = at;
        at = pf_json_skip_value(f->text, f->n, at, &line);
        if (!list) {
            json_t *v = NULL;
            status = pf_json_parse(&v, f->text + value, at - value, f->path, NULL);
            json_decref(v);
            if (status != PEFT_OK) break;
        }
        at = pf_json_skip_space(f->text, f->n, at, &line);
        if (at >= f->n || f->text[at] != ',') break;
        at++;
    }
    bool whole = at < f->n && f->text[at] == '}';
    if (whole) whole = pf_json_skip_space(f->text, f->n, at + 1, &line) == f->n;
    if (status != PEFT_OK || !whole) {
        pf_buf_free(&names);
        return broken(f, line, "not valid JSON", err);
    }
    if (!by_name && (f->opt.field != NULL || lists != 1)) {
        char what[640];
        snprintf(what, sizeof what,
                 "the object at the top has no list \"%s\" to take rows from; it has: %s. Set "
                 "data.field to the member that holds them",
                 wanted, names.len > 0 ? pf_buf_str(&names) : "nothing");
        status = broken(f, s->line, what, err);
    }
    pf_buf_free(&names);
    s->at = found;
    s->line = found_line;
    return status;
}

static peft_status json_open(pf_data_file *f, peft_error *err) {
    json_state *s = PF_NEW(&f->arena, json_state);
    PF_CHECK_ALLOC(s, err);
    s->line = 1;
    s->first = true;
    if (f->n >= 3 && memcmp(f->text, "\xef\xbb\xbf", 3) == 0) s->at = 3;
    s->at = pf_json_skip_space(f->text, f->n, s->at, &s->line);
    s->top = f->text[s->at] != '{';
    if (!s->top) PF_TRY(find_member(f, s, err));
    if (f->text[s->at] != '[') return broken(f, s->line, "expected a list of objects", err);
    s->at++;
    f->state = s;
    return PEFT_OK;
}

static peft_status json_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err) {
    json_state *s = f->state;
    if (s->done) return PEFT_OK;
    s->at = pf_json_skip_space(f->text, f->n, s->at, &s->line);
    char c = s->at < f->n ? f->text[s->at] : 0;
    if (c == ']') {
        s->done = true;
        if (s->top && pf_json_skip_space(f->text, f->n, s->at + 1, &s->line) != f->n)
            return broken(f, s->line, "there is more behind the list of rows", err);
        return PEFT_OK;
    }
    if (!s->first) {
        if (c != ',') return broken(f, s->line, "expected , or ] after a row", err);
        s->at = pf_json_skip_space(f->text, f->n, s->at + 1, &s->line);
    }
    s->first = false;
    size_t from = s->at;
    int64_t line = s->line;
    s->at = pf_json_skip_value(f->text, f->n, from, &s->line);
    json_t *row = NULL;
    peft_status status = pf_json_parse(&row, f->text + from, s->at - from, f->path, err);
    if (status == PEFT_E_NOMEM) return status;
    if (status != PEFT_OK) return broken(f, line, "not valid JSON", err);
    *more = true;
    status = pf_json_to_record(f, row, line, out, err);
    json_decref(row);
    return status;
}

static void json_close(pf_data_file *f) {
    (void)f;
}

static const char *const extensions[] = {".json", NULL};

const pf_reader pf_reader_json = {
    .name = "json",
    .title = "JSON",
    .extensions = extensions,
    .probe = json_probe,
    .open = json_open,
    .next = json_next,
    .close = json_close,
};
