/* template.c - see template.h. */
#include "data/template.h"

#include <stdio.h>
#include <string.h>

/* Place in the source as people count: characters from 1. */
static int column_of(const char *source, size_t at) {
    int column = 1;
    for (size_t i = 0; i < at; i++) column += (source[i] & 0xc0) != 0x80;
    return column;
}

peft_status pf_template_compile(pf_template *t, pf_arena *a, const char *key, const char *source,
                                peft_error *err) {
    *t = (pf_template){.key = key};
    size_t n = strlen(source), bad = 0;
    if (!pf_utf8_valid(source, n, &bad))
        return PF_FAIL(err, PEFT_E_CONFIG, "%s: not UTF-8 text at byte %zu", key, bad + 1);
    char *copy =
        pf_arena_strndup(a, source, n); /* literals point into it, so braces stay single parts */
    size_t braces = 0;
    for (size_t i = 0; i < n; i++) braces += source[i] == '{' || source[i] == '}';
    pf_template_part *parts = PF_NEW_ARRAY(a, pf_template_part, 2 * braces + 1);
    if (copy == NULL || parts == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", key);
    int n_parts = 0;
    size_t from = 0; /* of the literal in hand */
    for (size_t i = 0; i <= n;) {
        if (i < n && copy[i] != '{' && copy[i] != '}') {
            i++;
            continue;
        }
        bool doubled = i < n && copy[i + 1] == copy[i];
        size_t literal = i + doubled - from; /* of a doubled brace the first one belongs to it */
        if (literal > 0) parts[n_parts++] = (pf_template_part){.text = {copy + from, literal}};
        if (i == n) break;
        if (doubled) {
            from = i += 2;
            continue;
        }
        if (copy[i] == '}')
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "%s: character %d is } without a {; write }} for the character itself",
                           key, column_of(copy, i));
        size_t end = i + 1 + strcspn(copy + i + 1, "{}");
        pf_str name = pf_str_trim((pf_str){copy + i + 1, end - i - 1});
        if (copy[end] != '}')
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "%s: the { at character %d is never closed; write {{ for the character "
                           "itself",
                           key, column_of(copy, i));
        if (name.n == 0)
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "%s: {} at character %d names no column; write {{}} for the characters "
                           "themselves",
                           key, column_of(copy, i));
        parts[n_parts] = (pf_template_part){.text = name, .is_column = true};
        if (name.n > 1 && name.p[name.n - 1] == '?')
            parts[n_parts].bare = pf_str_trim((pf_str){name.p, name.n - 1});
        n_parts++;
        from = i = end + 1;
    }
    t->source = copy;
    t->parts = parts;
    t->n_parts = n_parts;
    return PEFT_OK;
}

static peft_status no_column(const pf_template *t, pf_str name, const pf_record *r,
                             peft_error *err) {
    char columns[600], wanted[200], near[240] = "";
    size_t n = name.n < sizeof wanted - 1 ? name.n : sizeof wanted - 1;
    memcpy(wanted, name.p, n);
    wanted[n] = 0;
    pf_arena a;
    pf_arena_init(&a, "columns");
    const char **names = PF_NEW_ARRAY(&a, const char *, r->n);
    int n_names = 0;
    for (int i = 0; names != NULL && i < r->n && i < 200; i++) {
        names[n_names] = pf_arena_strndup(&a, r->fields[i].name.p, r->fields[i].name.n);
        if (names[n_names] != NULL) n_names++;
    }
    int best = names == NULL ? -1 : pf_nearest(wanted, names, n_names);
    if (best >= 0) snprintf(near, sizeof near, "; did you mean {%.200s}?", names[best]);
    pf_arena_release(&a);
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld has no column \"%s\", which %s asks for; "
                   "it has: %s%s",
                   r->path, (long long)r->line, (long long)r->row, wanted, t->key,
                   r->n > 0 ? pf_record_columns(r, columns, sizeof columns) : "none", near);
}

static bool is_named(const pf_record *r, int i, pf_str name) {
    return i < r->n && pf_str_eq(r->fields[i].name, name);
}

static int find_column(const pf_template_part *p, const pf_record *r) {
    if (is_named(r, p->hint, p->text)) return p->hint;
    for (int i = 0; i < r->n; i++) {
        if (is_named(r, i, p->text)) return i;
    }
    for (int i = 0; p->bare.n > 0 && i < r->n; i++) {
        if (is_named(r, i, p->bare)) return i;
    }
    return -1;
}

static peft_status null_in(const pf_template *t, pf_str name, const pf_record *r, peft_error *err) {
    const int n = name.n < 200 ? (int)name.n : 200;
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld has null in the column \"%.*s\", which %s asks for; write "
                   "{%.*s?} there if no text is meant, or give the row a value",
                   r->path, (long long)r->line, (long long)r->row, n, name.p, t->key, n, name.p);
}

peft_status pf_template_render(pf_template *t, const pf_record *r, pf_buf *out, peft_error *err) {
    for (int k = 0; k < t->n_parts; k++) {
        pf_template_part *p = &t->parts[k];
        if (!p->is_column) {
            pf_buf_add(out, p->text.p, p->text.n);
            continue;
        }
        const int at = find_column(p, r);
        if (at >= 0) {
            const pf_str value = r->fields[at].value;
            p->hint = at;
            p->seen = true;
            if (value.p != NULL)
                pf_buf_add(out, value.p, value.n);
            else if (p->bare.n == 0)
                return null_in(t, p->text, r, err);
        } else if (p->bare.n == 0) {
            return no_column(t, p->text, r, err);
        }
    }
    if (!pf_buf_ok(out))
        return PF_FAIL(err, PEFT_E_NOMEM, "%s:%lld: out of memory for row %lld", r->path,
                       (long long)r->line, (long long)r->row);
    return PEFT_OK;
}

pf_str pf_template_unseen(const pf_template *t) {
    for (int k = 0; k < t->n_parts; k++) {
        if (t->parts[k].bare.n > 0 && !t->parts[k].seen) return t->parts[k].bare;
    }
    return (pf_str){0};
}
