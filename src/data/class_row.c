/* class_row.c - see class_row.h. */
#include "data/class_row.h"

#include <string.h>

static peft_status check(const pf_buf *ids, peft_error *err) {
    if (pf_buf_ok(ids) && ids->len / sizeof(int32_t) < INT32_MAX / 2) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the tokens");
}

static int32_t add_special(const pf_tokenizer *t, int part, pf_buf *ids) {
    int n;
    const int32_t *special = pf_tokenizer_pair(t, part, &n);
    pf_buf_add(ids, special, (size_t)n * sizeof *special);
    return n;
}

static peft_status add_text(const pf_tokenizer *t, const char *text, size_t n, pf_encoding *e,
                            pf_buf *ids, int32_t *count, peft_error *err) {
    PF_TRY(pf_tokenizer_encode(t, text, n, 0, e, err));
    pf_buf_add(ids, e->ids, e->n * sizeof *e->ids);
    *count = (int32_t)e->n;
    return check(ids, err);
}

peft_status pf_class_encode_text(const pf_class_rules *opt, const pf_tokenizer *t, const char *text,
                                 size_t n_first, size_t n_second, bool is_pair,
                                 pf_encoding *scratch, pf_buf *ids, pf_class_row *out,
                                 peft_error *err) {
    pf_encoding *e = scratch;
    (void)opt;
    if (!is_pair) {
        PF_TRY(pf_tokenizer_encode(t, text, n_first, PF_ENCODE_SPECIAL, e, err));
        pf_buf_add(ids, e->ids, e->n * sizeof *e->ids);
        out->n_before = (int32_t)e->n_before;
        out->n_behind = (int32_t)e->n_after;
        out->n_first = (int32_t)(e->n - e->n_before - e->n_after);
        return check(ids, err);
    }
    out->n_before = add_special(t, 0, ids);
    PF_TRY(add_text(t, text, n_first, e, ids, &out->n_first, err));
    out->n_between = add_special(t, 1, ids);
    PF_TRY(add_text(t, text + n_first, n_second, e, ids, &out->n_second, err));
    out->n_behind = add_special(t, 2, ids);
    return check(ids, err);
}

/* The class of the later tokens of a word: I-X for B-X. */
static int32_t go_on(const pf_class_rules *opt, int32_t tag) {
    char inside[256];
    const char *name = opt->labels->items[tag];
    if (!opt->all_tokens) return -1;
    if (strncmp(name, "B-", 2) != 0 || strlen(name) >= sizeof inside) return tag;
    memcpy(inside, name, strlen(name) + 1);
    inside[0] = 'I';
    for (int i = 0; i < opt->labels->n; i++)
        if (strcmp(opt->labels->items[i], inside) == 0) return i;
    return tag;
}

peft_status pf_class_encode_words(const pf_class_rules *opt, const pf_tokenizer *t,
                                  const char *text, const uint32_t *lengths, const int32_t *tags,
                                  int64_t n_words, pf_encoding *scratch, pf_buf *ids,
                                  pf_buf *classes, pf_class_row *out, peft_error *err) {
    const int32_t none = -1;
    pf_encoding *e = scratch;
    pf_buf spaced = {0};
    peft_status status = pf_tokenizer_encode(t, "", 0, PF_ENCODE_SPECIAL, e, err);
    if (status != PEFT_OK) return status;
    int32_t behind[32];
    out->label = -1;
    out->n_before = (int32_t)e->n_before;
    out->n_behind = (int32_t)(e->n_after < PF_COUNT(behind) ? e->n_after : PF_COUNT(behind));
    for (int32_t i = 0; i < out->n_behind; i++) behind[i] = e->ids[e->n - e->n_after + (size_t)i];
    pf_buf_add(ids, e->ids, e->n_before * sizeof *e->ids);
    for (int32_t i = 0; i < out->n_before; i++) pf_buf_add(classes, &none, sizeof none);
    for (int64_t w = 0; w < n_words && status == PEFT_OK; w++) {
        const char *word = text;
        size_t n = lengths[w];
        if (opt->blank_before_words) {
            pf_buf_clear(&spaced);
            pf_buf_addc(&spaced, ' ');
            pf_buf_add(&spaced, text, n++);
            word = pf_buf_str(&spaced);
        }
        status = pf_tokenizer_encode(t, word, n, 0, e, err);
        if (status != PEFT_OK) break;
        pf_buf_add(ids, e->ids, e->n * sizeof *e->ids);
        for (size_t i = 0; i < e->n; i++) {
            const int32_t c = i == 0 ? tags[w] : go_on(opt, tags[w]);
            pf_buf_add(classes, &c, sizeof c);
        }
        out->n_first += (int32_t)e->n;
        text += lengths[w] + 1;
        status = check(ids, err);
    }
    pf_buf_add(ids, behind, (size_t)out->n_behind * sizeof *behind);
    for (int32_t i = 0; i < out->n_behind; i++) pf_buf_add(classes, &none, sizeof none);
    const bool ok = pf_buf_ok(&spaced) && pf_buf_ok(classes);
    pf_buf_free(&spaced);
    if (status == PEFT_OK && !ok) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return status == PEFT_OK ? check(ids, err) : status;
}

int32_t pf_class_row_tokens(const pf_class_row *r) {
    return r->n_before + r->n_first + r->n_between + r->n_second + r->n_behind;
}

/* tokenizers' truncate_encodings with LongestFirst; room: tokens that are not special. */
static void cut(int32_t room, int32_t *first, int32_t *second) {
    const bool swap = *first > *second;
    int32_t n1 = swap ? *second : *first, n2;
    if (*first + *second <= room) return;
    n2 = n1 > room ? n1 : n1 > room - n1 ? n1 : room - n1;
    if (n1 + n2 > room) {
        n1 = room / 2;
        n2 = n1 + room % 2;
    }
    *first = swap ? n2 : n1;
    *second = swap ? n1 : n2;
}

int32_t pf_class_row_put(const pf_class_rules *opt, const pf_class_row *r, int32_t limit,
                         const int32_t *ids, const int32_t *classes, int32_t *out_ids,
                         int32_t *out_classes, int32_t *second_from) {
    const int32_t special = r->n_before + r->n_between + r->n_behind;
    int32_t first = r->n_first, second = r->n_second, n = 0;
    if (limit > 0) cut(limit > special ? limit - special : 0, &first, &second);
    const int32_t parts[5][2] = {{r->n_before, r->n_before},
                                 {r->n_first, first},
                                 {r->n_between, r->n_between},
                                 {r->n_second, second},
                                 {r->n_behind, r->n_behind}};
    for (int p = 0, at = 0; p < 5; at += parts[p++][0]) {
        if (p == 3) *second_from = opt->types && r->n_between + r->n_second > 0 ? n : 0;
        for (int32_t i = 0; i < parts[p][1] && (limit == 0 || n < limit); i++, n++) {
            out_ids[n] = ids[at + i];
            out_classes[n] = classes != NULL ? classes[at + i] : -1;
        }
    }
    if (r->label < 0 || n == 0) return n;
    int32_t last = n - 1;
    while (last > 0 && out_ids[last] == opt->pad) last--;
    out_classes[opt->on_first ? 0 : last] = r->label;
    return n;
}
