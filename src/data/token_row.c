/* token_row.c - see token_row.h. */
#include "data/token_row.h"

#include <string.h>

enum { NOT_LEARNED = -100 /* as in Hugging Face: what cross-entropy ignores */ };

/* A list of whole numbers in a record's text, read one by one. */
typedef struct list {
    const char *name; /* of the column */
    const pf_record *r;
    const char *p, *end;
    int32_t i; /* numbers read so far */
} list;

static void skip_blanks(list *l) {
    while (l->p < l->end && (*l->p == ' ' || *l->p == '\t')) l->p++;
}

static peft_status find_column(list *l, const pf_record *r, const char *name, const char *key,
                               peft_error *err) {
    const pf_field *field = pf_record_find(r, name);
    char columns[256];
    if (field == NULL)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld has no column \"%s\", which %s asks for; it has: %s",
                       r->path, (long long)r->line, (long long)r->row, name, key,
                       r->n > 0 ? pf_record_columns(r, columns, sizeof columns) : "none");
    const char *text = field->value.p != NULL ? field->value.p : ""; /* null: an empty list */
    *l = (list){.name = name, .r = r, .p = text, .end = text + field->value.n};
    skip_blanks(l);
    while (l->end > l->p && (l->end[-1] == ' ' || l->end[-1] == '\t')) l->end--;
    if (l->end - l->p >= 2 && *l->p == '[' && l->end[-1] == ']') {
        l->p++;
        l->end--;
        skip_blanks(l);
    }
    return PEFT_OK;
}

static peft_status not_a_number(const list *l, const char *from, peft_error *err) {
    const char *to = from;
    while (to < l->end && *to != ',' && to - from < 40) to++;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s[%d] is \"%.*s\"; it should be %s",
                   l->r->path, (long long)l->r->line, (long long)l->r->row, l->name, l->i,
                   (int)(to - from), from, "a whole number");
}

/* false at the end of the list. */
static peft_status next_number(list *l, int64_t *out, bool *more, peft_error *err) {
    *more = l->p < l->end;
    if (!*more) return PEFT_OK;
    const char *from = l->p;
    bool negative = *l->p == '-';
    l->p += negative;
    int64_t value = 0;
    int digits = 0;
    for (; l->p < l->end && *l->p >= '0' && *l->p <= '9' && digits < 18; l->p++, digits++)
        value = value * 10 + (*l->p - '0');
    skip_blanks(l);
    bool ended = l->p == l->end;
    if (digits == 0 || (!ended && *l->p != ',')) return not_a_number(l, from, err);
    if (!ended) {
        l->p++;
        skip_blanks(l);
        if (l->p == l->end) { /* a comma with nothing behind it */
            l->i++;
            return not_a_number(l, l->p, err);
        }
    }
    l->i++;
    *out = negative ? -value : value;
    return PEFT_OK;
}

static peft_status read_ids(const pf_token_columns *c, const pf_record *r, pf_buf *ids,
                            int32_t *n_tokens, peft_error *err) {
    list l;
    PF_TRY(find_column(&l, r, c->ids, "data.input_ids", err));
    for (;;) {
        int64_t id;
        bool more;
        PF_TRY(next_number(&l, &id, &more, err));
        if (!more) break;
        if (id < 0 || (c->vocab > 0 && id >= c->vocab) || id > INT32_MAX) {
            int64_t last = c->vocab > 0 ? c->vocab - 1 : INT32_MAX;
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s:%lld: row %lld: %s[%d] is %lld; the ids of this model are 0 to %lld",
                           r->path, (long long)r->line, (long long)r->row, l.name, l.i - 1,
                           (long long)id, (long long)last);
        }
        int32_t narrow = (int32_t)id;
        pf_buf_add(ids, &narrow, sizeof narrow);
    }
    *n_tokens = l.i;
    if (l.i == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: %s is empty", r->path,
                       (long long)r->line, (long long)r->row, l.name);
    return PEFT_OK;
}

static peft_status read_labels(const pf_record *r, const char *column, const int32_t *ids,
                               int32_t n_tokens, pf_buf *learned, peft_error *err) {
    list l;
    PF_TRY(find_column(&l, r, column, "data.labels", err));
    for (;;) {
        int64_t label;
        bool more;
        PF_TRY(next_number(&l, &label, &more, err));
        if (!more) break;
        if (l.i > n_tokens) continue; /* counted, for the message below */
        if (label != NOT_LEARNED && label != ids[l.i - 1])
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s:%lld: row %lld: %s[%d] is %lld and the token there is %d; a label "
                           "should be the token at its own place, or -100 for one that is not "
                           "learned",
                           r->path, (long long)r->line, (long long)r->row, l.name, l.i - 1,
                           (long long)label, ids[l.i - 1]);
        pf_buf_addc(learned, label != NOT_LEARNED);
    }
    if (l.i != n_tokens)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld has %d tokens and %d %s; each token needs one", r->path,
                       (long long)r->line, (long long)r->row, n_tokens, l.i, l.name);
    return PEFT_OK;
}

/* Padding would be computed, and with padding on the left positions would be wrong. */
static peft_status refuse_padding(const pf_record *r, peft_error *err) {
    if (pf_record_find(r, "attention_mask") == NULL) return PEFT_OK;
    list l;
    PF_TRY(find_column(&l, r, "attention_mask", "data.input_ids", err));
    for (;;) {
        int64_t seen;
        bool more;
        PF_TRY(next_number(&l, &seen, &more, err));
        if (!more) return PEFT_OK;
        if (seen != 1)
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s:%lld: row %lld: attention_mask[%d] is %lld: rows should stand "
                           "without padding; write only the tokens whose mask is 1",
                           r->path, (long long)r->line, (long long)r->row, l.i - 1,
                           (long long)seen);
    }
}

const char *pf_token_labels_column(const pf_token_columns *c, const pf_record *first) {
    if (c->labels != NULL) return c->labels;
    return pf_record_find(first, "labels") != NULL ? "labels" : NULL;
}

pf_token_row pf_token_row_cut(const pf_token_row *row, const unsigned char *learned, int32_t n) {
    pf_token_row out = {.n_tokens = n, .first_label = n, .end_label = n};
    if (n > row->n_tokens) return *row;
    for (int32_t i = 0; i < n; i++) {
        if (learned[i] == 0) continue;
        if (out.n_learned++ == 0) out.first_label = i;
        out.end_label = i + 1;
    }
    return out;
}

peft_status pf_token_row_read(const pf_token_columns *c, const char *labels, const pf_record *r,
                              pf_buf *ids, pf_buf *learned, pf_token_row *out, peft_error *err) {
    size_t first_id = ids->len, first_mark = learned->len;
    int32_t n = 0;
    *out = (pf_token_row){0};
    PF_TRY(refuse_padding(r, err));
    PF_TRY(read_ids(c, r, ids, &n, err));
    const void *tokens = pf_buf_str(ids) + first_id;
    if (labels != NULL)
        PF_TRY(read_labels(r, labels, tokens, n, learned, err));
    else
        for (int32_t i = 0; i < n; i++) pf_buf_addc(learned, 1);
    if (!pf_buf_ok(ids) || !pf_buf_ok(learned))
        return PF_FAIL(err, PEFT_E_NOMEM, "%s:%lld: out of memory for row %lld", r->path,
                       (long long)r->line, (long long)r->row);
    *out = (pf_token_row){.n_tokens = n};
    *out = pf_token_row_cut(out, (const unsigned char *)pf_buf_str(learned) + first_mark, n);
    return PEFT_OK;
}
