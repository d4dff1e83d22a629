/* bpe_load.c - a BPE model from the parts of a tokenizer.json, or from vocab.json and merges.txt.
 */
#include "base/mem.h"
#include "token/byte_level.h"
#include "token/json_scan.h"
#include "token/tokenizer_impl.h"

#include <string.h>

#include "base/banned.h"

enum { DECORATION_MAX = 100, SHORT = 1024 };

/* {"token": id, ...} */
peft_status pf_load_vocab_object(pf_tokenizer *t, pf_str value, const char *text, const char *file,
                                 peft_error *err) {
    pf_json_scan s;
    peft_status status = PEFT_OK;
    pf_json_scan_init(&s, value, text, file);
    PF_TRY_OUT(pf_json_scan_expect(&s, '{', err));
    if (!pf_json_scan_take(&s, '}')) {
        do {
            pf_str token;
            int64_t id;
            PF_TRY_OUT(pf_json_scan_string(&s, &token, err));
            PF_TRY_OUT(pf_json_scan_expect(&s, ':', err));
            PF_TRY_OUT(pf_json_scan_int(&s, &id, err));
            status = pf_vocab_add(&t->vocab, token.p, token.n, id, err);
            if (status == PEFT_E_FORMAT)
                status = pf_json_scan_fail(&s, "token id is out of range", err);
            if (status != PEFT_OK) goto out;
        } while (pf_json_scan_take(&s, ','));
        PF_TRY_OUT(pf_json_scan_expect(&s, '}', err));
    }
    PF_TRY_OUT(pf_json_scan_done(&s, err));
    status = pf_vocab_finish(&t->vocab, err);
    if (status != PEFT_OK) pf_fail_prefix(err, status, "%s", file);
out:
    pf_json_scan_release(&s);
    return status;
}

static peft_status not_a_token(uint32_t rank, pf_str s, const char *file, peft_error *err) {
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s: merge %u needs the token \"%.*s\", which is not in the vocabulary", file,
                   rank + 1, (int)(s.n > 100 ? 100 : s.n), s.p);
}

peft_status pf_load_merge(pf_tokenizer *t, uint32_t rank, pf_str left, pf_str right,
                          const char *file, peft_error *err) {
    char room[SHORT], *both = room;
    size_t inner =
        t->bpe.prefix.n; /* an inner part's prefix is not repeated in the middle of a token */
    int32_t a = pf_vocab_find(&t->vocab, left.p, left.n),
            b = pf_vocab_find(&t->vocab, right.p, right.n);
    if (a < 0) return not_a_token(rank, left, file, err);
    if (b < 0 || right.n < inner) return not_a_token(rank, right, file, err);
    size_t n = left.n + right.n - inner;
    if (n > SHORT) both = pf_malloc(n);
    if (both == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for merges");
    memcpy(both, left.p, left.n);
    memcpy(both + left.n, right.p + inner, right.n - inner);
    int32_t id = pf_vocab_find(&t->vocab, both, n);
    peft_status status = id >= 0 ? pf_bpe_merge(&t->bpe, rank, a, b, id, err)
                                 : not_a_token(rank, (pf_str){both, n}, file, err);
    if (both != room) pf_free(both);
    return status;
}

/* The same with the tokens as written in the file. */
static peft_status merge_written(pf_tokenizer *t, uint32_t rank, pf_str left, pf_str right,
                                 const char *file, peft_error *err) {
    if (!t->vocab.bytes) return pf_load_merge(t, rank, left, right, file, err);
    size_t n = left.n + right.n;
    char room[SHORT], *raw = n <= SHORT ? room : pf_malloc(n);
    if (raw == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for merges");
    int64_t a = pf_byte_level_bytes(left.p, left.n, raw);
    int64_t b = a < 0 ? -1 : pf_byte_level_bytes(right.p, right.n, raw + a);
    peft_status status =
        PEFT_OK; /* of tokens that are not spelt in bytes: no text ever gets there */
    if (a >= 0 && b >= 0)
        status = pf_load_merge(t, rank, (pf_str){raw, (size_t)a}, (pf_str){raw + a, (size_t)b},
                               file, err);
    if (status == PEFT_E_FORMAT) {
        int32_t x = pf_vocab_id(&t->vocab, left.p, left.n),
                y = pf_vocab_id(&t->vocab, right.p, right.n);
        status =
            x < 0 ? not_a_token(rank, left, file, err)
            : y < 0
                ? not_a_token(rank, right, file, err)
                : PF_FAIL(
                      err, PEFT_E_FORMAT,
                      "%s: merge %u needs the token \"%.*s%.*s\", which is not in the vocabulary",
                      file, rank + 1, (int)left.n, left.p, (int)right.n, right.p);
    }
    if (raw != room) pf_free(raw);
    return status;
}

/* "left right" */
static peft_status merge_line(pf_tokenizer *t, uint32_t rank, pf_str line, const char *file,
                              peft_error *err) {
    const char *blank = memchr(line.p, ' ', line.n);
    size_t a = blank == NULL ? 0 : (size_t)(blank - line.p), b = blank == NULL ? 0 : line.n - a - 1;
    if (blank == NULL || memchr(blank + 1, ' ', b) != NULL)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: merge %u is not two tokens with a space between: \"%.*s\"", file,
                       rank + 1, (int)(line.n > 100 ? 100 : line.n), line.p);
    return merge_written(t, rank, (pf_str){line.p, a}, (pf_str){blank + 1, b}, file, err);
}

static bool version_line(pf_str s) {
    return s.n >= 8 && memcmp(s.p, "#version", 8) == 0;
}

peft_status pf_load_merges_text(pf_tokenizer *t, const char *text, size_t n, const char *file,
                                peft_error *err) {
    size_t lines = 1, bad;
    uint32_t rank = 0;
    if (!pf_utf8_valid(text, n, &bad))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: not UTF-8 at byte %zu", file, bad);
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    PF_TRY(pf_bpe_reserve(&t->bpe, lines, err));
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        pf_str line = {text + at, end == NULL ? n - at : (size_t)(end - text) - at};
        at += line.n + 1;
        if (line.n > 0 && line.p[line.n - 1] == '\r') line.n--;
        if (line.n == 0 || version_line(line))
            continue; /* a line that begins with # is a merge like any other */
        PF_TRY(merge_line(t, rank++, line, file, err));
    }
    return PEFT_OK;
}

/* ["a b", ...] or [["a", "b"], ...] */
static peft_status merges_array(pf_tokenizer *t, pf_str value, const char *text, const char *file,
                                peft_error *err) {
    pf_json_scan s, first;
    peft_status status = PEFT_OK;
    size_t quotes = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < value.n; i++) quotes += value.p[i] == '"';
    PF_TRY(pf_bpe_reserve(&t->bpe, quotes / 2 + 1, err));
    pf_json_scan_init(&s, value, text, file);
    pf_json_scan_init(&first, value, text, file);
    PF_TRY_OUT(pf_json_scan_expect(&s, '[', err));
    if (!pf_json_scan_take(&s, ']')) {
        do {
            pf_str a, b;
            if (pf_json_scan_take(&s, '[')) {
                first.p = s.p; /* two scanners, because each keeps one string */
                PF_TRY_OUT(pf_json_scan_string(&first, &a, err));
                s.p = first.p;
                PF_TRY_OUT(pf_json_scan_expect(&s, ',', err));
                PF_TRY_OUT(pf_json_scan_string(&s, &b, err));
                PF_TRY_OUT(pf_json_scan_expect(&s, ']', err));
                PF_TRY_OUT(merge_written(t, rank++, a, b, file, err));
            } else {
                PF_TRY_OUT(pf_json_scan_string(&s, &a, err));
                if (!version_line(a)) PF_TRY_OUT(merge_line(t, rank++, a, file, err));
            }
        } while (pf_json_scan_take(&s, ','));
        PF_TRY_OUT(pf_json_scan_expect(&s, ']', err));
    }
    status = pf_json_scan_done(&s, err);
out:
    pf_json_scan_release(&s);
    pf_json_scan_release(&first);
    return status;
}

/* A prefix or suffix as the model sees it. */
static peft_status decoration(pf_tokenizer *t, pf_tj json, const char *key, pf_str *out,
                              peft_error *err) {
    pf_str s = {0};
    PF_TRY(pf_tj_maybe(json, key, &s, err));
    *out = s;
    if (s.n == 0) return PEFT_OK;
    if (s.n > DECORATION_MAX)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s.%s is too long", json.path, key);
    char *copy = pf_arena_strndup(&t->arena, s.p, s.n);
    PF_CHECK_ALLOC(copy, err);
    out->p = copy;
    if (!t->vocab.bytes) return PEFT_OK;
    int64_t n = pf_byte_level_bytes(s.p, s.n, copy);
    if (n < 0)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s.%s is not spelt in bytes", json.path, key);
    out->n = (size_t)n;
    return PEFT_OK;
}

static peft_status bpe_load(pf_tokenizer *t, pf_tj json, pf_str vocab, pf_str merges,
                            const char *text, peft_error *err) {
    pf_bpe *m = &t->bpe;
    if (vocab.p == NULL) return pf_tj_fail(json, PEFT_E_FORMAT, "vocab is missing", err);
    if (merges.p == NULL) return pf_tj_fail(json, PEFT_E_FORMAT, "merges are missing", err);
    pf_bpe_init(m, &t->vocab);
    PF_TRY(pf_tj_maybe(json, "unk_token", &m->unk, err));
    m->has_unk = m->unk.p != NULL;
    if (m->has_unk) {
        m->unk.p = pf_arena_strndup(&t->arena, m->unk.p, m->unk.n);
        PF_CHECK_ALLOC(m->unk.p, err);
    }
    PF_TRY(decoration(t, json, "continuing_subword_prefix", &m->prefix, err));
    PF_TRY(decoration(t, json, "end_of_word_suffix", &m->suffix, err));
    PF_TRY(pf_tj_bool(json, "fuse_unk", &m->fuse_unk, err));
    PF_TRY(pf_tj_bool(json, "byte_fallback", &m->byte_fallback, err));
    PF_TRY(pf_tj_bool(json, "ignore_merges", &m->ignore_merges, err));
    PF_TRY(pf_load_vocab_object(t, vocab, text, t->source, err));
    PF_TRY(merges_array(t, merges, text, t->source, err));
    return pf_bpe_finish(m, err);
}

static peft_status bpe_encode(const pf_tokenizer *t, pf_model_scratch *s, const char *p, uint32_t n,
                              pf_tokens *out, peft_error *err) {
    return pf_bpe_encode(&t->bpe, s, p, n, out, err);
}

const pf_token_model_kind pf_token_model_bpe = {"BPE", bpe_load, bpe_encode};
