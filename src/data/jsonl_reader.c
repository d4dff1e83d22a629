/* jsonl_reader.c - one JSON object per line. */
#include "data/json_record.h"

static bool jsonl_probe(const char *text, size_t n, bool ours) {
    char c = pf_data_first_char(text, n);
    return c == '{' || (ours && c != '['); /* an array is one whatever the name says */
}

static peft_status jsonl_open(pf_data_file *f, peft_error *err) {
    pf_jsonl *r = PF_NEW(&f->arena, pf_jsonl);
    PF_CHECK_ALLOC(r, err);
    pf_jsonl_init(r, f->text, f->n, f->path);
    f->state = r;
    return PEFT_OK;
}

static peft_status jsonl_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err) {
    pf_jsonl *r = f->state;
    json_t *row = NULL;
    PF_TRY(pf_jsonl_next(r, &row, err));
    if (row == NULL) return PEFT_OK;
    *more = true;
    peft_status status = pf_json_to_record(f, row, r->line, out, err);
    json_decref(row);
    return status;
}

static void jsonl_close(pf_data_file *f) {
    (void)f;
}

static const char *const extensions[] = {".jsonl", ".ndjson", ".json", NULL};

const pf_reader pf_reader_jsonl = {
    .name = "jsonl",
    .title = "JSON lines",
    .extensions = extensions,
    .probe = jsonl_probe,
    .open = jsonl_open,
    .next = jsonl_next,
    .close = jsonl_close,
};
