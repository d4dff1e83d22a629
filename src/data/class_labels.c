/* class_labels.c - see class_labels.h. */
#include "data/class_labels.h"

#include "base/buf.h"
#include "base/map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CLASSES 10000 /* a column with more different values is no label */

/* The value of a whole number without sign and leading zeros; -1. */
static int64_t number_of(const char *s, size_t n) {
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || (i > 0 && v == 0) || v > INT32_MAX) return -1;
        v = 10 * v + (s[i] - '0');
    }
    return n > 0 ? v : -1;
}

int64_t pf_label_find(const pf_strlist *labels, const char *name, size_t n) {
    for (int i = 0; i < labels->n; i++)
        if (strlen(labels->items[i]) == n && memcmp(labels->items[i], name, n) == 0) return i;
    const int64_t id = number_of(name, n);
    return id < labels->n ? id : -1;
}

char *pf_labels_text(const pf_strlist *labels, char *out, size_t n) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < labels->n; i++) {
        const int k = snprintf(out + at, n - at, "%s%s", i == 0 ? "" : ", ", labels->items[i]);
        if (k < 0 || (size_t)k + 8 >= n - at) {
            snprintf(out + at, n - at, ", ...");
            break;
        }
        at += (size_t)k;
    }
    return out;
}

peft_status pf_label_id(const pf_strlist *labels, pf_str name, const pf_record *r,
                        const char *column, int32_t *id, peft_error *err) {
    const int64_t found = pf_label_find(labels, name.p, name.n);
    *id = (int32_t)found;
    if (found >= 0) return PEFT_OK;
    char shown[80], names[240];
    snprintf(shown, sizeof shown, "%.*s", name.n < 60 ? (int)name.n : 60, name.p);
    const int near = pf_nearest(shown, labels->items, labels->n);
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld: %s is \"%s\", which is none of the %d classes: %s%s%s%s",
                   r->path, (long long)r->line, (long long)r->row, column, shown, labels->n,
                   pf_labels_text(labels, names, sizeof names),
                   near >= 0 ? "; did you mean \"" : "", near >= 0 ? labels->items[near] : "",
                   near >= 0 ? "\"?" : "");
}

static peft_status find(const pf_record *r, const char *name, const char *key, const pf_field **out,
                        peft_error *err) {
    char columns[256];
    *out = pf_record_find(r, name);
    if (*out != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld has no column \"%s\", which %s asks for; it has: %s", r->path,
                   (long long)r->line, (long long)r->row, name, key,
                   r->n > 0 ? pf_record_columns(r, columns, sizeof columns) : "none");
}

peft_status pf_record_label(const pf_record *r, const char *column, pf_str *out, peft_error *err) {
    const pf_field *field;
    PF_TRY(find(r, column, "data.label", &field, err));
    *out = field->value.p == NULL ? (pf_str){0} : pf_str_trim(field->value);
    if (out->n > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is empty; each row needs its class",
                   r->path, (long long)r->line, (long long)r->row, column);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

peft_status pf_record_check_list(const pf_record *r, const pf_field *field, peft_error *err) {
    const int wrong = r->lists != NULL ? r->lists[field - r->fields].wrong : 0;
    if (wrong == 0) return PEFT_OK;
    if (wrong < 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld: %.*s is an object; it should be a text or a list of "
                       "texts",
                       r->path, (long long)r->line, (long long)r->row, (int)field->name.n,
                       field->name.p);
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld: member %d of %.*s is no text; null, lists and objects have "
                   "no place there",
                   r->path, (long long)r->line, (long long)r->row, wrong, (int)field->name.n,
                   field->name.p);
}

peft_status pf_record_words(const pf_record *r, const char *column, const char *key, pf_arena *a,
                            const pf_str **words, int *n, peft_error *err) {
    const pf_field *field;
    PF_TRY(find(r, column, key, &field, err));
    const pf_items *list_of = r->lists != NULL ? &r->lists[field - r->fields] : NULL;
    *n = 0;
    PF_TRY(pf_record_check_list(r, field, err));
    if (field->value.p == NULL)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is null; it should be a list",
                       r->path, (long long)r->line, (long long)r->row, column);
    if (list_of != NULL && list_of->v != NULL) {
        *n = list_of->n;
        *words = list_of->v;
        return PEFT_OK;
    }
    const pf_str text = field->value;
    if (text.n > INT32_MAX / 2) return PF_FAIL(err, PEFT_E_FORMAT, "%s: too long", r->path);
    pf_str *list = PF_NEW_ARRAY(a, pf_str, text.n / 2 + 1);
    PF_CHECK_ALLOC(list, err);
    for (size_t at = 0; at < text.n;) {
        while (at < text.n && is_blank(text.p[at])) at++;
        const size_t from = at;
        while (at < text.n && !is_blank(text.p[at])) at++;
        if (at > from) list[(*n)++] = (pf_str){text.p + from, at - from};
    }
    *words = list;
    return PEFT_OK;
}

/* ---- the names of a file --------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_number(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    const int64_t m = number_of(x, strlen(x)), n = number_of(y, strlen(y));
    return m < n ? -1 : m > n;
}

/* Numbers from 0 on are ids: a class that a file happens not to have keeps its place. */
peft_status pf_labels_order(pf_strlist *l, pf_arena *a, peft_error *err) {
    int64_t largest = -1;
    bool numbers = l->n > 0;
    for (int i = 0; i < l->n && numbers; i++) {
        const int64_t v = number_of(l->items[i], strlen(l->items[i]));
        numbers = v >= 0;
        if (v > largest) largest = v;
    }
    qsort(l->items, (size_t)l->n, sizeof *l->items, numbers ? by_number : by_name);
    if (!numbers || largest >= MAX_CLASSES || largest >= 2 * l->n) return PEFT_OK;
    pf_strlist all = {0};
    for (int64_t i = 0; i <= largest; i++) {
        char name[24];
        snprintf(name, sizeof name, "%lld", (long long)i);
        PF_TRY(pf_strlist_add(&all, a, name, err));
    }
    *l = all;
    return PEFT_OK;
}

peft_status pf_labels_note(pf_strlist *l, pf_arena *a, const pf_record *r, pf_str name,
                           const char *column, peft_error *err) {
    for (int i = l->n - 1; i >= 0; i--)
        if (strlen(l->items[i]) == name.n && memcmp(l->items[i], name.p, name.n) == 0)
            return PEFT_OK;
    if (l->n == MAX_CLASSES)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: column \"%s\" has more than %d different values up to row %lld; "
                       "it holds no classes",
                       r->path, (long long)r->line, column, MAX_CLASSES, (long long)r->row);
    const char *copy = pf_arena_strndup(a, name.p, name.n);
    PF_CHECK_ALLOC(copy, err);
    return pf_strlist_add(l, a, copy, err);
}

static peft_status scan_row(const pf_record *r, const pf_class_columns *c, pf_arena *row,
                            pf_arena *a, pf_strlist *out, peft_error *err) {
    pf_str one;
    const pf_str *tags;
    int n;
    if (c->words == NULL) {
        PF_TRY(pf_record_label(r, c->label, &one, err));
        return pf_labels_note(out, a, r, one, c->label, err);
    }
    PF_TRY(pf_record_words(r, c->label, "data.label", row, &tags, &n, err));
    for (int i = 0; i < n; i++) PF_TRY(pf_labels_note(out, a, r, tags[i], c->label, err));
    return PEFT_OK;
}

peft_status pf_labels_scan(const char *path, const pf_reader_options *reader,
                           const pf_class_columns *columns, int64_t max_rows, pf_arena *a,
                           pf_strlist *out, peft_error *err) {
    pf_data_file f;
    pf_reader_options with_lists = *reader;
    *out = (pf_strlist){0};
    with_lists.lists = columns->words != NULL;
    PF_TRY(pf_data_file_open(&f, path, &with_lists, err));
    peft_status status = PEFT_OK;
    while (status == PEFT_OK && (max_rows == 0 || f.rows < max_rows)) {
        pf_record r;
        bool more;
        status = pf_data_file_next(&f, &r, &more, err);
        if (status != PEFT_OK || !more) break;
        status = scan_row(&r, columns, &f.row, a, out, err);
    }
    pf_data_file_close(&f);
    return status == PEFT_OK ? pf_labels_order(out, a, err) : status;
}
