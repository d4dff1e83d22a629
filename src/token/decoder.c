/* decoder.c - the kinds of decoders. */
#include "token/decoder.h"

#include "base/mem.h"
#include "token/byte_level.h"
#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

static const char replacement_char[] = "\xef\xbf\xbd"; /* U+FFFD */

void pf_strings_release(pf_strings *s) {
    if (s == NULL) return;
    pf_buf_free(&s->bytes);
    pf_free(s->ends);
    memset(s, 0, sizeof *s);
}

void pf_strings_clear(pf_strings *s) {
    pf_buf_clear(&s->bytes);
    s->n = 0;
}

peft_status pf_strings_close(pf_strings *s, peft_error *err) {
    if (!pf_buf_ok(&s->bytes))
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory while decoding tokens");
    if (s->bytes.len > (s->limit == 0 ? PF_NTEXT_MAX : s->limit))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "the tokenizer's decoders make the text longer than %zu bytes", s->limit);
    PF_TOKEN_GROW(s->ends, s->cap, (size_t)s->n + 1, err);
    s->ends[s->n++] = (uint32_t)s->bytes.len;
    return PEFT_OK;
}

pf_str pf_strings_at(const pf_strings *s, uint32_t i) {
    uint32_t begin = i == 0 ? 0 : s->ends[i - 1];
    return (pf_str){pf_buf_str(&s->bytes) + begin, s->ends[i] - begin};
}

/* ---- ByteLevel ---- */

static void add_lossy(pf_buf *out, const char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        bool valid;
        unsigned len = pf_u8_scan(p + i, n - i, &valid);
        pf_buf_add(out, valid ? p + i : replacement_char, valid ? len : 3);
        i += len;
    }
}

static peft_status byte_level_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                                  peft_error *err) {
    (void)z;
    pf_buf raw = {0};
    for (uint32_t i = 0; i < in->n; i++) {
        pf_str s = pf_strings_at(in, i);
        pf_buf_reserve(&raw, raw.len + s.n);
        if (!pf_buf_ok(&raw)) break;
        int64_t n = pf_byte_level_bytes(s.p, s.n, raw.data + raw.len); /* never longer than s */
        if (n < 0)
            pf_buf_add(&raw, s.p, s.n); /* a token that is not spelt in bytes stands for itself */
        else
            raw.len += (size_t)n;
    }
    if (pf_buf_ok(&raw)) add_lossy(&out->bytes, pf_buf_str(&raw), raw.len);
    peft_status status = pf_buf_ok(&raw)
                             ? pf_strings_close(out, err)
                             : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while decoding tokens");
    pf_buf_free(&raw);
    return status;
}

const pf_decoder_kind pf_decoder_byte_level = {"ByteLevel", NULL, byte_level_run};

/* ---- ByteFallback ---- */

static int hex(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int byte_of(pf_str s) { /* "<0x0A>", -1 for anything else */
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
    int high = s.p[3] == '+' ? 0 : hex(s.p[3]), low = hex(s.p[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens is one string if it is UTF-8, else each of its bytes is a U+FFFD. */
static peft_status byte_fallback_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                                     peft_error *err) {
    (void)z;
    for (uint32_t i = 0; i < in->n;) {
        uint32_t begin = i;
        size_t at = out->bytes.len;
        int byte;
        for (; i < in->n && (byte = byte_of(pf_strings_at(in, i))) >= 0; i++)
            pf_buf_addc(&out->bytes, (char)byte);
        if (i == begin) {
            pf_str s = pf_strings_at(in, i++);
            pf_buf_add(&out->bytes, s.p, s.n);
            PF_TRY(pf_strings_close(out, err));
            continue;
        }
        if (!pf_buf_ok(&out->bytes)) return pf_strings_close(out, err);
        if (pf_utf8_valid(out->bytes.data + at, out->bytes.len - at, NULL)) {
            PF_TRY(pf_strings_close(out, err));
            continue;
        }
        out->bytes.len = at;
        for (uint32_t k = begin; k < i; k++) {
            pf_buf_adds(&out->bytes, replacement_char);
            PF_TRY(pf_strings_close(out, err));
        }
    }
    return PEFT_OK;
}

const pf_decoder_kind pf_decoder_byte_fallback = {"ByteFallback", NULL, byte_fallback_run};

/* ---- Fuse, Strip, Replace ---- */

static peft_status fuse_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                            peft_error *err) {
    (void)z;
    pf_buf_add(&out->bytes, pf_buf_str(&in->bytes), in->bytes.len);
    return pf_strings_close(out, err);
}

const pf_decoder_kind pf_decoder_fuse = {"Fuse", NULL, fuse_run};

static peft_status strip_parse(pf_decoder *z, pf_tj json, peft_error *err) {
    PF_TRY(pf_tj_member(json, "content", &z->content, err));
    PF_TRY(pf_tj_int(json, "start", 0, INT32_MAX, &z->start, err));
    PF_TRY(pf_tj_int(json, "stop", 0, INT32_MAX, &z->stop, err));
    return z->content.n > 0 ? PEFT_OK : pf_tj_fail(json, PEFT_E_FORMAT, "content is empty", err);
}

static bool has_at(pf_str s, size_t at, pf_str what) {
    return at + what.n <= s.n && memcmp(s.p + at, what.p, what.n) == 0;
}

static peft_status strip_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                             peft_error *err) {
    for (uint32_t i = 0; i < in->n; i++) {
        pf_str s = pf_strings_at(in, i), c = z->content;
        size_t begin = 0, end = s.n;
        for (int64_t k = 0; k < z->start && has_at(s, begin, c); k++) begin += c.n;
        for (int64_t k = 0; k < z->stop && end >= begin + c.n && has_at(s, end - c.n, c); k++)
            end -= c.n;
        pf_buf_add(&out->bytes, s.p + begin, end - begin);
        PF_TRY(pf_strings_close(out, err));
    }
    return PEFT_OK;
}

const pf_decoder_kind pf_decoder_strip = {"Strip", strip_parse, strip_run};

static peft_status replace_parse(pf_decoder *z, pf_tj json, peft_error *err) {
    PF_TRY(pf_tj_member(json, "content", &z->content, err));
    return pf_regex_from_json(&z->regex, pf_tj_get(json, "pattern"), err);
}

static peft_status replace_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                               peft_error *err) {
    for (uint32_t i = 0; i < in->n; i++) {
        pf_str s = pf_strings_at(in, i);
        pf_regex_iter it;
        uint32_t done = 0, begin, end;
        bool found = false;
        peft_status status;
        pf_regex_begin(&it, z->regex, s.p, (uint32_t)s.n);
        while ((status = pf_regex_next(&it, &found, &begin, &end, err)) == PEFT_OK && found) {
            pf_buf_add(&out->bytes, s.p + done, begin - done);
            pf_buf_add(&out->bytes, z->content.p, z->content.n);
            done = end;
        }
        pf_regex_end(&it);
        PF_TRY(status);
        pf_buf_add(&out->bytes, s.p + done, s.n - done);
        PF_TRY(pf_strings_close(out, err));
    }
    return PEFT_OK;
}

const pf_decoder_kind pf_decoder_replace = {"Replace", replace_parse, replace_run};

/* ---- Metaspace, BPEDecoder, WordPiece ---- */

static void add_replaced(pf_buf *out, pf_str s, pf_str what, const char *with) {
    for (size_t at = 0; at < s.n;) {
        const char *hit = what.n == 0 ? NULL : memmem(s.p + at, s.n - at, what.p, what.n);
        size_t stop = hit == NULL ? s.n : (size_t)(hit - s.p);
        pf_buf_add(out, s.p + at, stop - at);
        if (hit != NULL) pf_buf_adds(out, with);
        at = hit == NULL ? stop : stop + what.n;
    }
}

static peft_status metaspace_parse(pf_decoder *z, pf_tj json, peft_error *err) {
    pf_prepend_scheme scheme;
    z->content = pf_str_of("\xe2\x96\x81");
    PF_TRY(pf_tj_maybe(json, "replacement", &z->content, err));
    PF_TRY(pf_prepend_scheme_parse(json, &scheme, err));
    z->flag = scheme != PF_PREPEND_NEVER;
    return PEFT_OK;
}

static peft_status metaspace_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                                 peft_error *err) {
    for (uint32_t i = 0; i < in->n; i++) {
        add_replaced(&out->bytes, pf_strings_at(in, i), z->content, i == 0 && z->flag ? "" : " ");
        PF_TRY(pf_strings_close(out, err));
    }
    return PEFT_OK;
}

const pf_decoder_kind pf_decoder_metaspace = {"Metaspace", metaspace_parse, metaspace_run};

static peft_status bpe_parse(pf_decoder *z, pf_tj json, peft_error *err) {
    z->content = pf_str_of("</w>");
    return pf_tj_maybe(json, "suffix", &z->content, err);
}

static peft_status bpe_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                           peft_error *err) {
    for (uint32_t i = 0; i < in->n; i++) {
        add_replaced(&out->bytes, pf_strings_at(in, i), z->content, i + 1 == in->n ? "" : " ");
        PF_TRY(pf_strings_close(out, err));
    }
    return PEFT_OK;
}

const pf_decoder_kind pf_decoder_bpe = {"BPEDecoder", bpe_parse, bpe_run};

static peft_status word_piece_parse(pf_decoder *z, pf_tj json, peft_error *err) {
    z->content = pf_str_of("##");
    z->flag = true;
    PF_TRY(pf_tj_maybe(json, "prefix", &z->content, err));
    return pf_tj_bool(json, "cleanup", &z->flag, err);
}

/* One token, English spacing tidied: each pair in turn, over the whole of it. */
static void add_clean(pf_buf *out, pf_str s) {
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},           {" !", "!"},
                                           {" ,", ","},     {" ' ", "'"},          {" n't", "n't"},
                                           {" 'm", "'m"},   {" do not", " don't"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    pf_buf text = {0};
    pf_buf_add(&text, s.p, s.n);
    for (size_t i = 0; i < PF_COUNT(pairs); i++) {
        pf_buf next = {0};
        add_replaced(&next, (pf_str){pf_buf_str(&text), text.len}, pf_str_of(pairs[i][0]),
                     pairs[i][1]);
        if (!pf_buf_ok(&next)) out->failed = true;
        pf_buf_free(&text);
        text = next;
    }
    pf_buf_add(out, pf_buf_str(&text), text.len);
    pf_buf_free(&text);
}

static peft_status word_piece_run(const pf_decoder *z, const pf_strings *in, pf_strings *out,
                                  peft_error *err) {
    pf_buf token = {0};
    peft_status status = PEFT_OK;
    for (uint32_t i = 0; i < in->n && status == PEFT_OK; i++) {
        pf_str s = pf_strings_at(in, i);
        bool inner = i > 0 && has_at(s, 0, z->content);
        pf_buf_clear(&token);
        if (i > 0 && !inner) pf_buf_addc(&token, ' ');
        pf_buf_add(&token, s.p + (inner ? z->content.n : 0), s.n - (inner ? z->content.n : 0));
        if (!pf_buf_ok(&token)) out->bytes.failed = true;
        if (z->flag)
            add_clean(&out->bytes, (pf_str){pf_buf_str(&token), token.len});
        else
            pf_buf_add(&out->bytes, pf_buf_str(&token), token.len);
        status = pf_strings_close(out, err);
    }
    pf_buf_free(&token);
    return status;
}

const pf_decoder_kind pf_decoder_word_piece = {"WordPiece", word_piece_parse, word_piece_run};

/* ---- the chain ---- */

enum { MAX_STEPS = 64, MAX_DEPTH = 8 };

static peft_status load(pf_decoders *z, pf_tj json, int depth, peft_error *err) {
    pf_str type;
    PF_TRY(pf_tj_member(json, "type", &type, err));
    if (strcmp(type.p, "Sequence") == 0) {
        pf_tj parts = pf_tj_get(json, "decoders");
        if (depth == MAX_DEPTH)
            return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "sequences nest too deep", err);
        for (size_t i = 0; i < pf_tj_count(parts); i++)
            PF_TRY(load(z, pf_tj_at(parts, i), depth + 1, err));
        return PEFT_OK;
    }
    const pf_decoder_kind *kind = pf_decoder_find(type.p);
    if (kind == NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: decoder %s is not supported", json.path,
                       type.p);
    if (z->n == MAX_STEPS)
        return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "more than 64 decoders", err);
    pf_decoder *step = &z->steps[z->n++];
    step->kind = kind;
    return kind->parse == NULL ? PEFT_OK : kind->parse(step, json, err);
}

peft_status pf_decoders_load(pf_decoders *z, pf_tj json, peft_error *err) {
    z->n = 0;
    if (json.v == NULL) return PEFT_OK;
    z->steps = PF_NEW_ARRAY(json.arena, pf_decoder, MAX_STEPS);
    PF_CHECK_ALLOC(z->steps, err);
    return load(z, json, 0, err);
}

void pf_decoders_release(pf_decoders *z) {
    for (int i = 0; i < z->n; i++) pf_regex_free(z->steps[i].regex);
    z->n = 0;
}

peft_status pf_decoders_run(const pf_decoders *z, pf_strings *tokens, pf_strings *spare,
                            pf_buf *out, peft_error *err) {
    tokens->limit = spare->limit =
        tokens->bytes.len * 32 + (1u << 20); /* against files that multiply */
    for (int i = 0; i < z->n; i++) {
        pf_strings_clear(spare);
        PF_TRY(z->steps[i].kind->run(&z->steps[i], tokens, spare, err));
        pf_strings swap = *tokens;
        *tokens = *spare;
        *spare = swap;
    }
    if (z->n > 0) {
        pf_buf_add(out, pf_buf_str(&tokens->bytes), tokens->bytes.len);
    } else {
        for (uint32_t i = 0; i < tokens->n; i++) {
            pf_str s = pf_strings_at(tokens, i);
            if (i > 0) pf_buf_addc(out, ' ');
            pf_buf_add(out, s.p, s.n);
        }
    }
    return pf_buf_ok(out) ? PEFT_OK
                          : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while decoding tokens");
}
