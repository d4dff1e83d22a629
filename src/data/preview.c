/* preview.c - see preview.h. */
#include "data/preview.h"

#include "text/json.h"

/* The token as its vocabulary spells it, quoted: blanks and line ends at its edges can be seen. */
static void add_piece(const pf_tokenizer *t, int32_t id, pf_buf *piece, pf_buf *out) {
    pf_buf_clear(piece);
    if (!pf_tokenizer_token(t, id, piece)) pf_buf_addf(piece, "<no token %d>", id);
    pf_json_add_str(out, pf_buf_str(piece), piece->len, 0);
}

static void add_block(pf_buf *out, const char *title, pf_str text) {
    pf_buf_addf(out, "--- %s\n", title);
    pf_buf_add(out, text.p, text.n);
    if (text.n == 0 || text.p[text.n - 1] != '\n') pf_buf_addc(out, '\n');
}

/* In `piece`, until it is used again. */
static pf_str decoded(const pf_data_view *v, const pf_tokenizer *t, int64_t at, pf_buf *piece) {
    pf_buf_clear(piece);
    pf_dataset_text(v->set, v->index[at], t, piece,
                    NULL); /* fails when out of memory: seen below */
    return (pf_str){pf_buf_str(piece), piece->len};
}

static void add_text(const pf_data_view *v, const pf_tokenizer *t, int64_t at, pf_buf *piece,
                     pf_buf *out) {
    const pf_dataset *ds = v->set;
    const pf_example *e = &ds->examples[v->index[at]];
    pf_buf_addf(out, "=== %s:%lld  row %lld, %d tokens, %d learned (marked *)%s%s%s\n", ds->path,
                (long long)e->line, (long long)e->row, e->n_tokens, pf_example_supervised(e),
                e->flags & PF_EXAMPLE_SPLIT ? ", split between prompt and target" : "",
                e->flags & PF_EXAMPLE_TRUNCATED ? ", its end was cut off" : "",
                e->flags & PF_EXAMPLE_EMPTY_TARGET ? ", nothing to learn but the end" : "");
    if (ds->from_tokens) {
        add_block(out, "decoded", decoded(v, t, at, piece));
    } else {
        if (!ds->plain_text) add_block(out, "prompt", pf_dataset_prompt(ds, v->index[at]));
        add_block(out, ds->plain_text ? "text" : "target", pf_dataset_target(ds, v->index[at]));
    }
    pf_buf_adds(out, "--- tokens\n");
    const int32_t *ids = ds->tokens + e->first;
    for (int32_t i = 0; i < e->n_tokens; i++) {
        if (i > 0 && i == e->n_source) pf_buf_adds(out, "--- tokens of the decoder\n");
        pf_buf_addf(out, "%6d %c %7d  ", i, pf_dataset_learns(ds, v->index[at], i) ? '*' : ' ',
                    ids[i]);
        add_piece(t, ids[i], piece, out);
        pf_buf_addc(out, '\n');
    }
}

static const char *truth(bool b) {
    return b ? "true" : "false";
}

static void add_json(const pf_data_view *v, const pf_tokenizer *t, int64_t at, pf_buf *piece,
                     pf_buf *out) {
    const pf_dataset *ds = v->set;
    const pf_example *e = &ds->examples[v->index[at]];
    pf_str prompt = pf_dataset_prompt(ds, v->index[at]),
           target =
               ds->from_tokens ? decoded(v, t, at, piece) : pf_dataset_target(ds, v->index[at]);
    const bool whole = ds->plain_text || ds->from_tokens;
    pf_buf_addf(out, "{\"row\": %lld, \"line\": %lld", (long long)e->row, (long long)e->line);
    if (!whole) {
        pf_buf_adds(out, ", \"prompt\": ");
        pf_json_add_str(out, prompt.p, prompt.n, 0);
    }
    pf_buf_addf(out, ", \"%s\": ", whole ? "text" : "target");
    pf_json_add_str(out, target.p, target.n, 0);
    pf_buf_addf(out, ", \"n_tokens\": %d, \"n_prompt\": %d, \"n_learned\": %d, \"split\": %s",
                e->n_tokens, e->n_prompt, pf_example_supervised(e),
                truth(e->flags & PF_EXAMPLE_SPLIT));
    pf_buf_addf(out, ", \"truncated\": %s, \"tokens\": [", truth(e->flags & PF_EXAMPLE_TRUNCATED));
    const int32_t *ids = ds->tokens + e->first;
    for (int32_t i = 0; i < e->n_tokens; i++) {
        pf_buf_addf(out, "%s{\"id\": %d, \"piece\": ", i > 0 ? ", " : "", ids[i]);
        add_piece(t, ids[i], piece, out);
        pf_buf_addf(out, ", \"label\": %s}", truth(pf_dataset_learns(ds, v->index[at], i)));
    }
    pf_buf_adds(out, "]}\n");
}

typedef void (*add_fn)(const pf_data_view *v, const pf_tokenizer *t, int64_t at, pf_buf *piece,
                       pf_buf *out);

static peft_status preview(const pf_data_view *v, const pf_tokenizer *t, int64_t first, int64_t n,
                           add_fn add, pf_buf *out, peft_error *err) {
    if (first < 0 || n < 0)
        return PF_FAIL(err, PEFT_E_USAGE, "there are no examples from %lld on, %lld of them",
                       (long long)first, (long long)n);
    pf_buf piece = {0};
    for (int64_t at = first; at < v->n && at - first < n; at++) add(v, t, at, &piece, out);
    bool ok = pf_buf_ok(&piece) && pf_buf_ok(out);
    pf_buf_free(&piece);
    if (!ok) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the preview");
    return PEFT_OK;
}

/* With an encoder the labels are a list of their own: the target's tokens. */
static void add_ints(const pf_data_view *v, const pf_tokenizer *t, int64_t at, pf_buf *piece,
                     pf_buf *out) {
    (void)t, (void)piece;
    const pf_example *e = &v->set->examples[v->index[at]];
    const int32_t *ids = v->set->tokens + e->first;
    const bool pair = e->n_source > 0;
    pf_buf_adds(out, "{\"input_ids\": [");
    for (int32_t i = 0; i < (pair ? e->n_source : e->n_tokens); i++)
        pf_buf_addf(out, "%s%d", i > 0 ? ", " : "", ids[i]);
    pf_buf_adds(out, "], \"labels\": [");
    const int32_t first = pair ? e->n_prompt : 0;
    for (int32_t i = first; i < e->n_tokens; i++)
        pf_buf_addf(out, "%s%d", i > first ? ", " : "",
                    pf_dataset_learns(v->set, v->index[at], i) ? ids[i] : -100);
    pf_buf_adds(out, "]}\n");
}

peft_status pf_data_tokens_jsonl(const pf_data_view *view, pf_buf *out, peft_error *err) {
    return preview(view, NULL, 0, view->n, add_ints, out, err);
}

peft_status pf_data_preview_text(const pf_data_view *view, const pf_tokenizer *t, int64_t first,
                                 int64_t n, pf_buf *out, peft_error *err) {
    return preview(view, t, first, n, add_text, out, err);
}

peft_status pf_data_preview_json(const pf_data_view *view, const pf_tokenizer *t, int64_t first,
                                 int64_t n, pf_buf *out, peft_error *err) {
    return preview(view, t, first, n, add_json, out, err);
}
