/* text_reader.c - plain text: every line that is not empty is a row with the column "text". */
#include "data/reader.h"

#include <string.h>

typedef struct text_state {
    size_t at;
    int64_t line;
    pf_field field;
} text_state;

static bool text_probe(const char *text, size_t n, bool ours) {
    (void)text, (void)n;
    return ours;
}

static peft_status text_open(pf_data_file *f, peft_error *err) {
    text_state *s = PF_NEW(&f->arena, text_state);
    PF_CHECK_ALLOC(s, err);
    if (f->n >= 3 && memcmp(f->text, "\xef\xbb\xbf", 3) == 0) s->at = 3;
    size_t bad = 0;
    if (!pf_utf8_valid(f->text, f->n, &bad)) {
        int64_t line = 1;
        for (size_t i = 0; i < bad; i++) line += f->text[i] == '\n';
        return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: not UTF-8 text (byte 0x%02x)", f->path,
                       (long long)line, (unsigned)(unsigned char)f->text[bad]);
    }
    s->field.name = pf_str_of("text");
    f->state = s;
    return PEFT_OK;
}

static peft_status text_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err) {
    (void)err;
    text_state *s = f->state;
    while (s->at < f->n && !*more) {
        const char *from = f->text + s->at, *end = memchr(from, '\n', f->n - s->at);
        size_t n = end == NULL ? f->n - s->at : (size_t)(end - from);
        s->at += n + (end != NULL);
        s->line++;
        if (n > 0 && from[n - 1] == '\r') n--;
        *more = n > 0;
        s->field.value = (pf_str){from, n};
    }
    out->line = s->line;
    out->fields = &s->field;
    out->n = 1;
    return PEFT_OK;
}

static void text_close(pf_data_file *f) {
    (void)f;
}

static const char *const extensions[] = {".txt", ".text", NULL};

const pf_reader pf_reader_text = {
    .name = "text",
    .title = "plain text",
    .extensions = extensions,
    .probe = text_probe,
    .open = text_open,
    .next = text_next,
    .close = text_close,
};
