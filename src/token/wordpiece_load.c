/* wordpiece_load.c - a WordPiece model from a tokenizer.json, or from vocab.txt as BERT's first
 * releases have it: a token a line, its id the number of the line. */
#include "token/tokenizer_impl.h"

#include "base/str.h"

#include <string.h>

#include "base/banned.h"

static peft_status settle(pf_tokenizer *t, pf_str unk, pf_str prefix, int64_t max_chars,
                          const char *where, peft_error *err) {
    pf_wordpiece *m = &t->wordpiece;
    m->vocab = &t->vocab;
    m->max_chars = max_chars;
    if (prefix.n > PF_WORDPIECE_PREFIX_MAX)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: continuing_subword_prefix has %zu bytes, at most %d fit", where,
                       prefix.n, PF_WORDPIECE_PREFIX_MAX);
    memcpy(m->prefix, prefix.p, prefix.n);
    m->prefix[prefix.n] = 0;
    m->unk_id = pf_vocab_id(&t->vocab, unk.p, unk.n);
    return PEFT_OK;
}

static peft_status wordpiece_load(pf_tokenizer *t, pf_tj json, pf_str vocab, pf_str merges,
                                  const char *text, peft_error *err) {
    (void)merges;
    pf_str unk = {"[UNK]", 5}, prefix = {"##", 2};
    int64_t max_chars = 100;
    if (vocab.p == NULL || *vocab.p != '{')
        return pf_tj_fail(json, PEFT_E_FORMAT, "vocab should be an object of tokens and ids", err);
    PF_TRY(pf_tj_maybe(json, "unk_token", &unk, err));
    PF_TRY(pf_tj_maybe(json, "continuing_subword_prefix", &prefix, err));
    PF_TRY(pf_tj_int(json, "max_input_chars_per_word", 0, PF_WORDPIECE_WORD_MAX, &max_chars, err));
    PF_TRY(pf_load_vocab_object(t, vocab, text, t->source, err));
    return settle(t, unk, prefix, max_chars, json.path, err);
}

static peft_status wordpiece_encode(const pf_tokenizer *t, pf_model_scratch *s, const char *p,
                                    uint32_t n, pf_tokens *out, peft_error *err) {
    return pf_wordpiece_encode(&t->wordpiece, s, p, n, out, err);
}

const pf_token_model_kind pf_token_model_wordpiece = {"WordPiece", wordpiece_load,
                                                      wordpiece_encode};

/* ---- vocab.txt ---- */

static const char pipelines[] =
    "{\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":%s,"
    "\"strip_accents\":%s,\"lowercase\":%s},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
    "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}}";

static const char *truth(pf_tj config, const char *key, const char *missing) {
    const json_t *v = pf_tj_get(config, key).v;
    return json_is_true(v) ? "true" : json_is_false(v) ? "false" : missing;
}

static peft_status read_lines(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    int64_t id = 0;
    for (size_t at = 0; at < in->n; id++) {
        const char *line = in->data + at, *end = memchr(line, '\n', in->n - at);
        size_t n = end != NULL ? (size_t)(end - line) : in->n - at;
        at += n + 1;
        if (n > 0 && line[n - 1] == '\r') n--;
        peft_status status = pf_vocab_add(&t->vocab, line, n, id, err);
        if (status != PEFT_OK)
            return pf_fail_prefix(err, status, "%s:%lld", in->file, (long long)id + 1);
    }
    return pf_vocab_finish(&t->vocab, err);
}

/* [CLS] and [SEP] around a text, as the tokenizer's class does. */
static peft_status ends(pf_tokenizer *t, const char *file, peft_error *err) {
    const int32_t cls = pf_vocab_id(&t->vocab, "[CLS]", 5),
                  sep = pf_vocab_id(&t->vocab, "[SEP]", 5);
    pf_postprocessor *z = &t->post;
    if (cls < 0 || sep < 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: a vocabulary of WordPiece without [CLS] or [SEP]; is it BERT's?", file);
    z->before[z->n_before++] = z->pair[0][z->n_pair[0]++] = cls;
    z->after[z->n_after++] = z->pair[1][z->n_pair[1]++] = z->pair[2][z->n_pair[2]++] = sep;
    return PEFT_OK;
}

/* The tokens that BERT's classes take as special whatever the files say. */
static peft_status add_special(pf_tokenizer *t, peft_error *err) {
    static const char *const names[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    pf_added_tokens_begin(&t->added, &t->vocab);
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        const int32_t id = pf_vocab_id(&t->vocab, names[i], strlen(names[i]));
        const pf_added_token token = {.content = pf_str_of(names[i]), .special = true};
        if (id >= 0)
            PF_TRY(pf_added_tokens_add(&t->added, &t->arena, &t->vocab, token, id, false, err));
    }
    return PEFT_OK;
}

static peft_status vocab_txt_load(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    const pf_tj config = in->config->config;
    const char *lower = truth(config, "do_lower_case", "true");
    const char *steps =
        pf_arena_printf(&t->arena, pipelines, truth(config, "tokenize_chinese_chars", "true"),
                        truth(config, "strip_accents", "null"), lower);
    PF_CHECK_ALLOC(steps, err);
    PF_TRY(pf_tokenizer_load_pipeline_text(t, steps, (pf_str){NULL, 0}, err));
    pf_vocab_init(&t->vocab, false);
    t->model = pf_token_model_find("WordPiece");
    PF_TRY(read_lines(t, in, err));
    PF_TRY(settle(t, (pf_str){"[UNK]", 5}, (pf_str){"##", 2}, 100, in->file, err));
    PF_TRY(ends(t, in->file, err));
    return add_special(t, err);
}

/* Lines of text, [UNK] among the first of them. */
static bool vocab_txt_probe(const char *data, size_t n) {
    const size_t head = n < 4096 ? n : 4096;
    return memmem(data, head, "[UNK]\n", 6) != NULL || memmem(data, head, "[UNK]\r\n", 7) != NULL;
}

static const char *const vocab_txt_files[] = {"vocab.txt", NULL};
const pf_token_source pf_token_source_vocab_txt = {"vocab.txt of WordPiece", vocab_txt_files,
                                                   vocab_txt_probe, vocab_txt_load};
