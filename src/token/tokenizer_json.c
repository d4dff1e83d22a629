/* tokenizer_json.c - the source tokenizer.json: version, pipelines, model, added tokens. */
#include "text/json.h"
#include "token/json_scan.h"
#include "token/tokenizer_impl.h"

#include <string.h>

#include "base/banned.h"

peft_status pf_tokenizer_load_pipelines(pf_tokenizer *t, pf_tj root, pf_str charsmap,
                                        peft_error *err) {
    PF_TRY(pf_normalizers_load(&t->normalizers, pf_tj_get(root, "normalizer"), charsmap, err));
    PF_TRY(pf_pretokenizers_load(&t->pretokenizers, pf_tj_get(root, "pre_tokenizer"), err));
    PF_TRY(pf_postprocessor_load(&t->post, pf_tj_get(root, "post_processor"), err));
    return pf_decoders_load(&t->decoders, pf_tj_get(root, "decoder"), err);
}

static peft_status keep(pf_arena *a, pf_str *s, peft_error *err) {
    if (s->p == NULL) return PEFT_OK;
    s->p = pf_arena_strndup(a, s->p, s->n);
    PF_CHECK_ALLOC(s->p, err);
    return PEFT_OK;
}

/* The steps borrowed strings of a document that is about to end. */
static peft_status keep_strings(pf_tokenizer *t, peft_error *err) {
    for (int i = 0; i < t->normalizers.n; i++)
        PF_TRY(keep(&t->arena, &t->normalizers.steps[i].content, err));
    for (int i = 0; i < t->pretokenizers.n; i++)
        PF_TRY(keep(&t->arena, &t->pretokenizers.steps[i].replacement, err));
    for (int i = 0; i < t->decoders.n; i++)
        PF_TRY(keep(&t->arena, &t->decoders.steps[i].content, err));
    return PEFT_OK;
}

peft_status pf_tokenizer_load_pipeline_text(pf_tokenizer *t, const char *json, pf_str charsmap,
                                            peft_error *err) {
    json_t *doc = NULL;
    PF_TRY(pf_json_parse(&doc, json, strlen(json), t->source, err));
    peft_status status =
        pf_tokenizer_load_pipelines(t, pf_tj_root(doc, t->source, &t->arena), charsmap, err);
    if (status == PEFT_OK) status = keep_strings(t, err);
    json_decref(doc);
    return status;
}

peft_status pf_added_token_parse(pf_tj json, pf_added_token *out, peft_error *err) {
    memset(out, 0, sizeof *out);
    if (json_is_string(json.v)) return pf_tj_string(json, &out->content, err);
    PF_TRY(pf_tj_member(json, "content", &out->content, err));
    PF_TRY(pf_tj_bool(json, "single_word", &out->single_word, err));
    PF_TRY(pf_tj_bool(json, "lstrip", &out->lstrip, err));
    PF_TRY(pf_tj_bool(json, "rstrip", &out->rstrip, err));
    PF_TRY(pf_tj_bool(json, "normalized", &out->normalized, err));
    return pf_tj_bool(json, "special", &out->special, err);
}

static peft_status load_added(pf_tokenizer *t, pf_tj list, peft_error *err) {
    pf_added_tokens_begin(&t->added, &t->vocab);
    for (size_t i = 0; i < pf_tj_count(list); i++) {
        pf_tj item = pf_tj_at(list, i);
        pf_added_token token;
        int64_t id = -1;
        PF_TRY(pf_added_token_parse(item, &token, err));
        PF_TRY(pf_tj_int(item, "id", 0, INT32_MAX - 1, &id, err));
        PF_TRY(pf_added_tokens_add(&t->added, &t->arena, &t->vocab, token, id, false, err));
    }
    return PEFT_OK;
}

/* Old files do not name the kind of their model. */
static peft_status find_model(pf_tokenizer *t, pf_tj model, pf_str vocab, pf_str merges,
                              peft_error *err) {
    pf_str type = {0};
    PF_TRY(pf_tj_maybe(model, "type", &type, err));
    if (type.p == NULL)
        type = pf_str_of(merges.p != NULL                                          ? "BPE"
                         : vocab.p != NULL && *vocab.p == '['                      ? "Unigram"
                         : pf_tj_get(model, "continuing_subword_prefix").v != NULL ? "WordPiece"
                                                                                   : "?");
    t->model = pf_token_model_find(type.p);
    if (t->model != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: a model of type %s is not supported; BPE, Unigram and WordPiece are",
                   model.path, type.p);
}

static peft_status read_document(pf_tokenizer *t, pf_tj root, pf_str vocab, pf_str merges,
                                 const char *text, peft_error *err) {
    pf_tj model = pf_tj_get(root, "model");
    if (!json_is_object(model.v))
        return pf_tj_fail(model, PEFT_E_FORMAT, "the tokenizer has no model", err);
    PF_TRY(find_model(t, model, vocab, merges, err));
    PF_TRY(pf_tokenizer_load_pipelines(t, root, (pf_str){NULL, 0}, err));
    pf_vocab_init(&t->vocab, t->pretokenizers.bytes);
    PF_TRY(t->model->load(t, model, vocab, merges, text, err));
    return load_added(t, pf_tj_get(root, "added_tokens"), err);
}

static peft_status json_load(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    pf_buf rest = {0};
    pf_str vocab, merges;
    json_t *doc = NULL;
    peft_status status;
    PF_TRY_OUT(pf_tokenizer_json_cut(in->data, in->n, &rest, &vocab, &merges, err));
    PF_TRY_OUT(pf_json_parse(&doc, pf_buf_str(&rest), rest.len, in->file, err));
    status = read_document(t, pf_tj_root(doc, t->source, &t->arena), vocab, merges, in->data, err);
    if (status == PEFT_OK) status = keep_strings(t, err);
out:
    json_decref(doc);
    pf_buf_free(&rest);
    return status;
}

static bool json_probe(const char *data, size_t n) {
    size_t i = 0;
    while (i < n && memchr(" \t\r\n", data[i], 4) != NULL) i++;
    return i < n && data[i] == '{' &&
           (memmem(data, n, "\"model\"", 7) != NULL ||
            memmem(data, n, "\"added_tokens\"", 14) != NULL);
}

static const char *const json_files[] = {"tokenizer.json", NULL};
const pf_token_source pf_token_source_json = {"tokenizer.json", json_files, json_probe, json_load};
