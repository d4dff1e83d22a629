/* json_record.c - see json_record.h. */
#include "data/json_record.h"

#include <string.h>

static bool is_text(const json_t *v) { /* of its own or as JSON spells it */
    return !json_is_object(v) && !json_is_array(v) && !json_is_null(v);
}

static peft_status add_value(pf_buf *text, const json_t *v, peft_error *err) {
    if (json_is_string(v)) {
        pf_buf_add(text, json_string_value(v), json_string_length(v));
        return PEFT_OK;
    }
    if (json_is_array(v)) {
        size_t i, n = json_array_size(v);
        for (i = 0; i < n && is_text(json_array_get(v, i)); i++) {
        }
        if (i == n) {
            for (i = 0; i < n; i++) {
                if (i > 0) pf_buf_adds(text, ", ");
                PF_TRY(add_value(text, json_array_get(v, i), err)); /* one level deep */
            }
            return PEFT_OK;
        }
    }
    return pf_json_dump(text, v, 0, 0, err);
}

/* The members of a list of texts, each by itself. */
static peft_status keep_items(pf_data_file *f, const json_t *v, pf_buf *text, pf_items *out,
                              peft_error *err) {
    const size_t n = json_is_array(v) ? json_array_size(v) : 0;
    if (json_is_object(v)) out->wrong = -1;
    if (!json_is_array(v)) return PEFT_OK;
    pf_str *items = PF_NEW_ARRAY(&f->row, pf_str, n + 1);
    PF_CHECK_ALLOC(items, err);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(v, i);
        if (!is_text(item)) {
            out->wrong = (int)i + 1;
            return PEFT_OK;
        }
        pf_buf_clear(text);
        PF_TRY(add_value(text, item, err));
        items[i] = (pf_str){pf_arena_strndup(&f->row, pf_buf_str(text), text->len), text->len};
        PF_CHECK_ALLOC(items[i].p, err);
    }
    *out = (pf_items){.v = items, .n = (int)n};
    return PEFT_OK;
}

peft_status pf_json_to_record(pf_data_file *f, const json_t *row, int64_t line, pf_record *out,
                              peft_error *err) {
    if (!json_is_object(row))
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld is %s; it should be an object with one member per column",
                       f->path, (long long)line, (long long)out->row, pf_json_kind(row));
    pf_field *fields = PF_NEW_ARRAY(&f->row, pf_field, json_object_size(row));
    pf_items *lists = f->opt.lists ? PF_NEW_ARRAY(&f->row, pf_items, json_object_size(row)) : NULL;
    PF_CHECK_ALLOC(fields, err);
    if (f->opt.lists) PF_CHECK_ALLOC(lists, err);
    pf_buf text = {0};
    peft_status status = PEFT_OK;
    const char *key;
    json_t *value;
    int n = 0;
    json_object_foreach((json_t *)row, key, value) {
        pf_buf_clear(&text);
        const bool is_null = json_is_null(value);
        if (!is_null) status = add_value(&text, value, err);
        if (status != PEFT_OK) break;
        char *name = pf_arena_strdup(&f->row, key);
        char *p = is_null ? NULL : pf_arena_strndup(&f->row, pf_buf_str(&text), text.len);
        if (name == NULL || (p == NULL && !is_null) || !pf_buf_ok(&text)) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", f->path);
            break;
        }
        fields[n] = (pf_field){.name = pf_str_of(name), .value = {p, text.len}};
        if (lists != NULL) status = keep_items(f, value, &text, &lists[n], err);
        n++;
        if (status != PEFT_OK) break;
    }
    pf_buf_free(&text);
    out->line = line;
    out->fields = fields;
    out->n = n;
    out->lists = lists;
    return status;
}

size_t pf_json_skip_space(const char *text, size_t n, size_t at, int64_t *line) {
    for (; at < n; at++) {
        if (text[at] == '\n')
            ++*line;
        else if (text[at] != ' ' && text[at] != '\t' && text[at] != '\r')
            break;
    }
    return at;
}

size_t pf_json_skip_value(const char *text, size_t n, size_t at, int64_t *line) {
    int64_t depth = 0;
    for (bool quoted = false; at < n; at++) {
        char c = text[at];
        if (c == '\n') ++*line;
        if (quoted) {
            if (c == '\\')
                at++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
            continue;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return at; /* of what the value stands in */
            depth--;
        } else if (depth == 0 && (c == ',' || c == ':' || c == '\n')) {
            if (c == '\n') --*line;
            return at;
        }
        if (depth == 0 && !quoted && (c == '"' || c == '}' || c == ']')) return at + 1;
    }
    return n;
}

bool pf_json_is_single(const char *text, size_t n) {
    int64_t line = 1;
    size_t at = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    at = pf_json_skip_space(text, n, at, &line);
    at = pf_json_skip_value(text, n, at, &line);
    return pf_json_skip_space(text, n, at, &line) == n;
}
