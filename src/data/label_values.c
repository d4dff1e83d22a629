/* label_values.c - see label_values.h. */
#include "data/label_values.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct parts { /* of one row's target */
    const pf_str *v;
    int n;
    bool list; /* of any length: columns, a JSON list, what delimiters separate */
} parts;

static peft_status no_column(const pf_record *r, const char *name, const char *key,
                             peft_error *err) {
    char columns[256];
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld has no column \"%s\", which %s asks for; it has: %s", r->path,
                   (long long)r->line, (long long)r->row, name, key,
                   r->n > 0 ? pf_record_columns(r, columns, sizeof columns) : "none");
}

static peft_status split(pf_str text, const char *delimiter, pf_arena *a, parts *out,
                         peft_error *err) {
    const size_t d = strlen(delimiter);
    pf_str *v = PF_NEW_ARRAY(a, pf_str, text.n / d + 1);
    PF_CHECK_ALLOC(v, err);
    for (size_t from = 0, at = 0; at <= text.n; at++) {
        const bool end = at == text.n,
                   here = !end && at + d <= text.n && memcmp(text.p + at, delimiter, d) == 0;
        if (!end && !here) continue;
        const pf_str part = pf_str_trim((pf_str){text.p + from, at - from});
        if (part.n > 0) v[out->n++] = part;
        from = at + d;
        at += here ? d - 1 : 0;
    }
    out->v = v;
    return PEFT_OK;
}

/* An empty field has no parts; null has none either, and is no list. */
static peft_status parts_of(const pf_class_columns *c, const pf_record *r, pf_arena *a, parts *out,
                            peft_error *err) {
    *out = (parts){.list = c->many != NULL || c->delimiter != NULL};
    const int n = c->many != NULL ? c->many->n : 1;
    pf_str *v = PF_NEW_ARRAY(a, pf_str, n);
    PF_CHECK_ALLOC(v, err);
    for (int i = 0; i < n; i++) {
        const char *name = c->many != NULL ? c->many->items[i] : c->label;
        const pf_field *f = pf_record_find(r, name);
        if (f == NULL)
            return no_column(r, name, c->many != NULL ? "data.label_columns" : "data.label", err);
        PF_TRY(pf_record_check_list(r, f, err));
        const pf_items *items = r->lists != NULL ? &r->lists[f - r->fields] : NULL;
        if (c->many == NULL && items != NULL && items->v != NULL) {
            *out = (parts){items->v, items->n, true};
            return PEFT_OK;
        }
        v[i] = f->value.p == NULL ? (pf_str){0} : pf_str_trim(f->value);
    }
    if (c->many == NULL && v[0].p == NULL)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is null; each row needs its %s",
                       r->path, (long long)r->line, (long long)r->row, c->label,
                       c->delimiter != NULL ? "classes, or an empty text for none" : "class");
    if (c->delimiter != NULL) return split(v[0], c->delimiter, a, out, err);
    out->v = v;
    out->n = c->many == NULL && v[0].n == 0 ? 0 : n;
    return PEFT_OK;
}

static bool number_of(pf_str s, double *out) {
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof text) return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    for (size_t i = 0; i < s.n; i++) /* no hexadecimal numbers, no names of infinities */
        if (strchr("+-.0123456789eE", text[i]) == NULL) return false;
    *out = strtod(text, &end);
    return *end == 0 && isfinite(*out) && fabs(*out) <= 1e30;
}

/* 0 or 1, as JSON and CSV files spell it. */
static bool bit_of(pf_str s, double *out) {
    *out = pf_str_eq(s, pf_str_of("true")) || pf_str_eq(s, pf_str_of("True"));
    if (*out == 1 || pf_str_eq(s, pf_str_of("false")) || pf_str_eq(s, pf_str_of("False")))
        return true;
    return number_of(s, out) && (*out == 0 || *out == 1);
}

/* Is it written as a number that may have a fraction, "1.0" or "1e3"? */
static bool has_point(pf_str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '.' || s.p[i] == 'e' || s.p[i] == 'E') return true;
    return false;
}

/* ---- a whole file ---------------------------------------------------------------------------- */

typedef struct looks {
    bool lists, numbers, fractions, bits, skipped;
    int width; /* parts of every row; -1: they differ */
    char fraction[40];
    int64_t rows;
} looks;

static peft_status look_row(const pf_class_columns *c, const pf_record *r, const parts *p,
                            bool names, looks *l, pf_arena *a, pf_strlist *out, peft_error *err) {
    if (p->n == 0 && !p->list)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is empty; each row needs its %s",
                       r->path, (long long)r->line, (long long)r->row, c->label,
                       l->numbers && l->fractions ? "number" : "class");
    if (l->rows++ == 0) l->width = p->n;
    if (l->width != p->n) l->width = -1;
    l->lists |= p->list;
    for (int i = 0; i < p->n; i++) {
        double v;
        const bool number = number_of(p->v[i], &v);
        l->numbers &= number;
        l->bits &= bit_of(p->v[i], &v);
        if (number && !l->fractions && has_point(p->v[i])) {
            l->fractions = true;
            snprintf(l->fraction, sizeof l->fraction, "%.*s", p->v[i].n < 32 ? (int)p->v[i].n : 32,
                     p->v[i].p);
        }
    }
    if (c->many != NULL) return PEFT_OK;
    if (!names && l->numbers && l->fractions) { /* they will hardly be classes */
        l->skipped = true;
        return PEFT_OK;
    }
    for (int i = 0; i < p->n; i++) PF_TRY(pf_labels_note(out, a, r, p->v[i], c->label, err));
    return PEFT_OK;
}

static peft_status look(const char *path, const pf_reader_options *reader,
                        const pf_class_columns *c, bool names, looks *l, pf_arena *a,
                        pf_strlist *out, peft_error *err) {
    pf_data_file f;
    pf_reader_options with_lists = *reader;
    *out = (pf_strlist){0};
    *l = (looks){.numbers = true, .bits = true};
    with_lists.lists = true;
    PF_TRY(pf_data_file_open(&f, path, &with_lists, err));
    peft_status status = PEFT_OK;
    for (;;) {
        pf_record r;
        parts p;
        bool more;
        status = pf_data_file_next(&f, &r, &more, err);
        if (status != PEFT_OK || !more) break;
        status = parts_of(c, &r, &f.row, &p, err);
        if (status == PEFT_OK) status = look_row(c, &r, &p, names, l, a, out, err);
        if (status != PEFT_OK) break;
    }
    pf_data_file_close(&f);
    return status;
}

static void judge(const pf_class_columns *c, const looks *l, pf_label_look *out) {
    const bool same = l->width >= (c->many != NULL ? 1 : 2);
    out->problem = PF_PROBLEM_SINGLE;
    out->one_hot = l->lists && l->bits && same && c->delimiter == NULL && c->many == NULL;
    if (l->rows == 0) return;
    if (c->many != NULL) {
        out->problem = l->bits || !l->numbers ? PF_PROBLEM_MULTI : PF_PROBLEM_REGRESSION;
        snprintf(out->why, sizeof out->why, "data.label_columns names %d columns, of %s",
                 c->many->n, l->bits ? "zeros and ones" : "numbers");
    } else if (l->lists && !out->one_hot && l->numbers && l->fractions && l->width >= 1) {
        out->problem = PF_PROBLEM_REGRESSION;
        snprintf(out->why, sizeof out->why, "%s has lists of %d numbers, such as %s", c->label,
                 l->width, l->fraction);
    } else if (l->lists) {
        out->problem = PF_PROBLEM_MULTI;
        snprintf(out->why, sizeof out->why,
                 c->delimiter != NULL ? "data.label_delimiter is given"
                 : out->one_hot       ? "%s has lists with 0 or 1 for each of %d classes"
                                      : "%s has lists of classes",
                 c->label, l->width);
    } else if (l->numbers && l->fractions) {
        out->problem = PF_PROBLEM_REGRESSION;
        snprintf(out->why, sizeof out->why, "%s has numbers with a fraction, such as %s", c->label,
                 l->fraction);
    }
}

static peft_status default_names(int n, pf_arena *a, pf_strlist *out, peft_error *err) {
    *out = (pf_strlist){0};
    for (int i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "LABEL_%d", i);
        PF_TRY(pf_strlist_add(out, a, name, err));
    }
    return PEFT_OK;
}

peft_status pf_label_look_at(const char *path, const pf_reader_options *reader,
                             const pf_class_columns *c, pf_problem told, pf_arena *a,
                             pf_label_look *out, peft_error *err) {
    looks l;
    *out = (pf_label_look){0};
    const bool all = told != PF_PROBLEM_AUTO && told != PF_PROBLEM_REGRESSION;
    PF_TRY(look(path, reader, c, all, &l, a, &out->names, err));
    if (l.skipped && !l.numbers && told != PF_PROBLEM_REGRESSION)
        PF_TRY(look(path, reader, c, true, &l, a, &out->names, err));
    judge(c, &l, out);
    if (told != PF_PROBLEM_AUTO) out->problem = told;
    if (c->many != NULL && pf_problem_has_values(out->problem)) {
        out->names = *c->many;
        return PEFT_OK;
    }
    if (out->problem == PF_PROBLEM_REGRESSION || out->one_hot)
        return default_names(l.width >= 1 ? l.width : 1, a, &out->names, err);
    return pf_labels_order(&out->names, a, err);
}

/* ---- one row --------------------------------------------------------------------------------- */

static peft_status wrong(const pf_record *r, const char *column, pf_str found, const char *expected,
                         peft_error *err) {
    if (found.n == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is empty; it should be %s",
                       r->path, (long long)r->line, (long long)r->row, column, expected);
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is \"%.*s\"; it should be %s",
                   r->path, (long long)r->line, (long long)r->row, column,
                   found.n < 60 ? (int)found.n : 60, found.p, expected);
}

static const char *column_of(const pf_class_columns *c, int i) {
    return c->many != NULL ? c->many->items[i] : c->label;
}

static peft_status wrong_count(const pf_record *r, const pf_class_columns *c, int found, int wanted,
                               const char *what, peft_error *err) {
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s has %d value%s; the model has %d %s",
                   r->path, (long long)r->line, (long long)r->row,
                   c->many != NULL ? "data.label_columns" : c->label, found, found == 1 ? "" : "s",
                   wanted, what);
}

static peft_status numbers(const pf_class_rules *rules, const pf_record *r, const parts *p,
                           float *out, peft_error *err) {
    const int K = rules->labels->n;
    static const char expected[] = "a number (model.problem_type is regression)";
    if (p->n == 0 && !p->list) return wrong(r, rules->columns.label, (pf_str){0}, expected, err);
    if (p->n != K)
        return wrong_count(r, &rules->columns, p->n, K, K == 1 ? "output" : "outputs", err);
    for (int i = 0; i < K; i++) {
        double v;
        if (!number_of(p->v[i], &v))
            return wrong(r, column_of(&rules->columns, i), p->v[i], expected, err);
        out[i] = (float)v;
    }
    return PEFT_OK;
}

static peft_status bits(const pf_class_rules *rules, const pf_record *r, const parts *p, float *out,
                        peft_error *err) {
    const pf_class_columns *c = &rules->columns;
    const int K = rules->labels->n;
    if (p->n != K) return wrong_count(r, c, p->n, K, "classes", err);
    for (int i = 0; i < p->n; i++) {
        double v;
        int32_t id = i;
        if (!bit_of(p->v[i], &v))
            return wrong(r, column_of(c, i), p->v[i],
                         "0 or 1 (model.problem_type is multi_label_classification)", err);
        if (c->many != NULL)
            PF_TRY(pf_label_id(rules->labels, pf_str_of(c->many->items[i]), r,
                               "a column of data.label_columns", &id, err));
        out[id] = (float)v;
    }
    return PEFT_OK;
}

peft_status pf_label_values(const pf_class_rules *rules, const pf_record *r, pf_arena *a,
                            float *out, peft_error *err) {
    const pf_class_columns *c = &rules->columns;
    parts p;
    PF_TRY(parts_of(c, r, a, &p, err));
    memset(out, 0, (size_t)rules->labels->n * sizeof *out);
    if (rules->problem == PF_PROBLEM_REGRESSION) return numbers(rules, r, &p, out, err);
    if (c->many != NULL || rules->one_hot) return bits(rules, r, &p, out, err);
    if (p.n == 0 && !p.list)
        return wrong(r, c->label, (pf_str){0}, "the name of a class, or several", err);
    for (int i = 0; i < p.n; i++) {
        int32_t id;
        PF_TRY(pf_label_id(rules->labels, p.v[i], r, c->label, &id, err));
        out[id] = 1;
    }
    return PEFT_OK;
}

void pf_label_values_text(pf_problem problem, const pf_strlist *names, const float *values,
                          pf_buf *out) {
    bool any = false;
    for (int k = 0; k < names->n; k++) {
        if (problem == PF_PROBLEM_REGRESSION) {
            pf_buf_addf(out, "%s%.7g", k > 0 ? ", " : "", (double)values[k]);
        } else if (values[k] > 0) {
            pf_buf_addf(out, "%s%s", any ? ", " : "", names->items[k]);
            any = true;
        }
    }
}
