/* sentencepiece_model.c - the source SentencePiece: a protocol buffer with pieces, their scores,
 * and a normalizer.
 *
 *   ModelProto      1 pieces*  2 trainer_spec  3 normalizer_spec
 *   SentencePiece   1 piece  2 score (float)  3 type (1 normal 2 unknown 3 control 4 user-defined 5
 * unused 6 byte) TrainerSpec     3 model_type (1 unigram 2 BPE)  24 whitespace as suffix  35
 * byte_fallback  40..43 unk bos eos pad ids 45 unk_piece NormalizerSpec  2 precompiled_charsmap  3
 * add_dummy_prefix  4 remove_extra_whitespaces
 *
 * The steps around the model are those that Hugging Face's converters write into a tokenizer.json
 * for such a file: for BPE "▁" before the text and for each space (or, if tokenizer_config.json
 * says legacy: false, Metaspace at the start of the text); for T5 the words by themselves. BPE
 * merges are not in the file: two pieces merge if what they spell is a piece, the piece with the
 * higher score first. */
#include "base/mem.h"
#include "token/tokenizer_impl.h"
#include "token/unicode_class.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

typedef struct piece {
    pf_str text;
    float score;
    uint32_t type;
} piece;

typedef struct model {
    piece *pieces;
    uint32_t n, cap;
    uint64_t model_type;
    bool byte_fallback, suffix, dummy_prefix, collapse;
    int64_t unk, bos, eos, pad;
    pf_str unk_piece, charsmap;
} model;

/* ---- protocol buffers ---- */

typedef struct reader {
    const unsigned char *p, *end;
} reader;

typedef struct field {
    uint64_t number, value; /* value: varint, or the bits of a fixed-width one */
    pf_str bytes;           /* length-delimited ones */
} field;

static bool varint(reader *r, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end) return false;
        unsigned char c = *r->p++;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (c < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool fixed(reader *r, size_t n, uint64_t *out) {
    if ((size_t)(r->end - r->p) < n) return false;
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)r->p[i] << (8 * i);
    r->p += n;
    return true;
}

/* False at something that is no field. */
static bool next_field(reader *r, field *f) {
    uint64_t key, n;
    memset(f, 0, sizeof *f);
    if (!varint(r, &key)) return false;
    f->number = key >> 3;
    switch (key & 7) {
    case 0:
        return varint(r, &f->value);
    case 1:
        return fixed(r, 8, &f->value);
    case 5:
        return fixed(r, 4, &f->value);
    case 2:
        if (!varint(r, &n) || n > (uint64_t)(r->end - r->p)) return false;
        f->bytes = (pf_str){(const char *)r->p, (size_t)n};
        r->p += n;
        return true;
    default:
        return false;
    }
}

static reader inside(pf_str s) {
    const unsigned char *p =
        (const unsigned char *)(s.p == NULL ? "" : s.p); /* a number where text should be */
    return (reader){p, p + s.n};
}

static bool read_piece(model *m, pf_str bytes, peft_status *status, peft_error *err) {
    piece p = {{"", 0}, 0, NORMAL};
    reader r = inside(bytes);
    field f;
    while (r.p < r.end) {
        if (!next_field(&r, &f)) return false;
        uint32_t bits = (uint32_t)f.value;
        if (f.number == 1) p.text = f.bytes.p != NULL ? f.bytes : p.text;
        if (f.number == 2) memcpy(&p.score, &bits, sizeof p.score);
        if (f.number == 3) p.type = bits;
    }
    if (m->n == m->cap) {
        piece *grown = pf_token_grown(m->pieces, &m->cap, (size_t)m->n + 1, sizeof *m->pieces);
        if (grown == NULL) {
            *status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
            return false;
        }
        m->pieces = grown;
    }
    m->pieces[m->n++] = p;
    return true;
}

static bool read_trainer(model *m, pf_str bytes) {
    reader r = inside(bytes);
    field f;
    while (r.p < r.end) {
        if (!next_field(&r, &f)) return false;
        int64_t id = (int32_t)(uint32_t)f.value;
        switch (f.number) {
        case 3:
            m->model_type = f.value;
            break;
        case 24:
            m->suffix = f.value != 0;
            break;
        case 35:
            m->byte_fallback = f.value != 0;
            break;
        case 40:
            m->unk = id;
            break;
        case 41:
            m->bos = id;
            break;
        case 42:
            m->eos = id;
            break;
        case 43:
            m->pad = id;
            break;
        case 45:
            m->unk_piece = f.bytes;
            break;
        default:
            break;
        }
    }
    return true;
}

static bool read_normalizer(model *m, pf_str bytes) {
    reader r = inside(bytes);
    field f;
    while (r.p < r.end) {
        if (!next_field(&r, &f)) return false;
        if (f.number == 2) m->charsmap = f.bytes;
        if (f.number == 3) m->dummy_prefix = f.value != 0;
        if (f.number == 4) m->collapse = f.value != 0;
    }
    return true;
}

static peft_status read_model(model *m, const pf_token_input *in, peft_error *err) {
    peft_status status = PEFT_OK;
    reader r = inside((pf_str){in->data, in->n});
    field f;
    while (r.p < r.end) {
        size_t at = (size_t)(r.p - (const unsigned char *)in->data);
        bool ok = next_field(&r, &f);
        if (ok && f.number == 1) ok = read_piece(m, f.bytes, &status, err);
        if (ok && f.number == 2) ok = read_trainer(m, f.bytes);
        if (ok && f.number == 3) ok = read_normalizer(m, f.bytes);
        if (status != PEFT_OK) return status;
        if (!ok)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: damaged SentencePiece model at byte %zu",
                           in->file, at);
    }
    if (m->n == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: a SentencePiece model without pieces", in->file);
    if (m->model_type != 1 && m->model_type != 2)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: SentencePiece model type %llu; unigram (1) and BPE (2) are supported",
                       in->file, (unsigned long long)m->model_type);
    if (m->suffix)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: treat_whitespace_as_suffix is not supported",
                       in->file);
    for (uint32_t i = 0; i < m->n; i++)
        if (!pf_utf8_valid(m->pieces[i].text.p, m->pieces[i].text.n, NULL))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: piece %u is not UTF-8", in->file, i);
    return PEFT_OK;
}

/* ---- the models ---- */

typedef struct candidate { /* a way to split a piece into two */
    float score;
    uint32_t id, at, n_left, n_right; /* piece, bytes of the left part, characters of both parts */
} candidate;

/* The order of transformers' generate_merges: best score, longest left part, longest right part,
 * first piece. */
static int by_score(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->n_left != y->n_left) return x->n_left > y->n_left ? -1 : 1;
    if (x->n_right != y->n_right) return x->n_right > y->n_right ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static bool mergeable(const piece *p) {
    return p->type == NORMAL || p->type == USER_DEFINED || p->type == UNUSED;
}

/* All splits of a piece into two pieces; out is NULL to count them only. */
static uint32_t splits_of(const pf_tokenizer *t, const model *m, uint32_t id, candidate *out) {
    pf_str s = m->pieces[id].text;
    uint32_t count = 0, n_left = 1, chars = 0;
    if (!mergeable(&m->pieces[id])) return 0;
    for (size_t i = 0; i < s.n; i++) chars += pf_u8_is_start(s.p[i]);
    for (size_t i = 1; i < s.n; i++) {
        if (!pf_u8_is_start(s.p[i])) continue;
        int32_t a = pf_vocab_find(&t->vocab, s.p, i),
                b = a < 0 ? -1 : pf_vocab_find(&t->vocab, s.p + i, s.n - i);
        if (a >= 0 && b >= 0 && mergeable(&m->pieces[a]) && mergeable(&m->pieces[b])) {
            if (out != NULL)
                out[count] =
                    (candidate){m->pieces[id].score, id, (uint32_t)i, n_left, chars - n_left};
            count++;
        }
        n_left++;
    }
    return count;
}

enum { PIECE_MAX = 1024 }; /* bytes; the splits of one piece cost their sum of lengths */

static peft_status load_bpe(pf_tokenizer *t, const model *m, const pf_token_input *in,
                            peft_error *err) {
    pf_bpe_init(&t->bpe, &t->vocab);
    t->model = pf_token_model_find("BPE");
    t->bpe.fuse_unk = true;
    t->bpe.byte_fallback = m->byte_fallback;
    t->bpe.has_unk = true;
    t->bpe.unk = m->unk_piece;
    t->bpe.unk.p = pf_arena_strndup(&t->arena, m->unk_piece.p, m->unk_piece.n);
    PF_CHECK_ALLOC(t->bpe.unk.p, err);
    size_t count = 0, n = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->pieces[i].text.n > PIECE_MAX)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: piece %u is longer than %d bytes",
                           in->file, i, PIECE_MAX);
        count += splits_of(t, m, i, NULL);
    }
    PF_TRY(pf_bpe_reserve(&t->bpe, count + 1, err));
    candidate *order = pf_malloc((count + 1) * sizeof *order);
    if (order == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for merges");
    for (uint32_t i = 0; i < m->n; i++) n += splits_of(t, m, i, order + n);
    qsort(order, n, sizeof *order, by_score);
    peft_status status = PEFT_OK;
    for (size_t i = 0; i < n && status == PEFT_OK; i++) {
        pf_str s = m->pieces[order[i].id].text;
        size_t at = order[i].at;
        status = pf_load_merge(t, (uint32_t)i, (pf_str){s.p, at}, (pf_str){s.p + at, s.n - at},
                               in->file, err);
    }
    pf_free(order);
    return status == PEFT_OK ? pf_bpe_finish(&t->bpe, err) : status;
}

static peft_status load_unigram(pf_tokenizer *t, const model *m, uint32_t n_ids, peft_error *err) {
    pf_unigram_init(&t->unigram, &t->vocab);
    t->model = pf_token_model_find("Unigram");
    t->unigram.unk_id = m->unk >= 0 && m->unk < (int64_t)m->n ? (int32_t)m->unk : -1;
    t->unigram.byte_fallback = m->byte_fallback;
    for (uint32_t i = 0; i < n_ids; i++)
        PF_TRY(pf_unigram_add(&t->unigram, (int32_t)i, i < m->n ? (double)m->pieces[i].score : 0.0,
                              err));
    return pf_unigram_finish(&t->unigram, err);
}

/* ---- the steps around them ---- */

#define SPACE_MARK "\xe2\x96\x81"

static peft_status pipelines(pf_tokenizer *t, const model *m, const pf_token_config *c, bool t5,
                             peft_error *err) {
    pf_buf b = {0};
    bool prefix = m->dummy_prefix && c->add_prefix_space != 0,
         modern = c->legacy == 0 && m->model_type == 2;
    const char *comma = "";
    pf_buf_adds(&b, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    if (m->charsmap.n > 0) {
        pf_buf_adds(&b, "{\"type\":\"Precompiled\"}");
        comma = ",";
    }
    if (!t5 && m->collapse) {
        pf_buf_addf(
            &b,
            "%s{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A +| +\\\\z\"},\"content\":\"\"},"
            "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}",
            comma);
        comma = ",";
    }
    if (!t5 && !modern) {
        if (prefix)
            pf_buf_addf(&b, "%s{\"type\":\"Prepend\",\"prepend\":\"" SPACE_MARK "\"}", comma);
        if (prefix) comma = ",";
        pf_buf_addf(
            &b,
            "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE_MARK
            "\"}",
            comma);
    }
    pf_buf_adds(&b, "]},");
    if (t5) {
        pf_buf_adds(&b, "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                        "\"WhitespaceSplit\"},"
                        "{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\",\"split\":true}]},"
                        "\"decoder\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\"}}");
    } else {
        if (modern)
            pf_buf_addf(&b,
                        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"%s\","
                        "\"split\":false},",
                        prefix ? "first" : "never");
        pf_buf_addf(&b,
                    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                    "\"pattern\":{\"String\":\"" SPACE_MARK
                    "\"},\"content\":\" \"},%s{\"type\":\"Fuse\"}%s]}}",
                    m->byte_fallback ? "{\"type\":\"ByteFallback\"}," : "",
                    prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    }
    peft_status status = pf_buf_ok(&b) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_str charsmap = m->charsmap;
    if (status == PEFT_OK && charsmap.n > 0) {
        charsmap.p = pf_arena_strndup(&t->arena, charsmap.p, charsmap.n);
        if (charsmap.p == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    if (status == PEFT_OK)
        status = pf_tokenizer_load_pipeline_text(t, pf_buf_str(&b), charsmap, err);
    pf_buf_free(&b);
    return status;
}

static peft_status add_token(pf_tokenizer *t, pf_str text, bool special, int64_t id,
                             peft_error *err) {
    pf_added_token token = {.content = text, .special = special};
    return pf_added_tokens_add(&t->added, &t->arena, &t->vocab, token, id, true, err);
}

static bool id_ok(const model *m, int64_t id) {
    return id >= 0 && id < (int64_t)m->n;
}

/* Classes that number the pieces as the file does; others shift them or put tokens of their own
 * between. */
static bool plain_numbering(const char *tokenizer_class) {
    static const char *const known[] = {"",
                                        "T5Tokenizer",
                                        "LlamaTokenizer",
                                        "CodeLlamaTokenizer",
                                        "GemmaTokenizer",
                                        "MistralTokenizer",
                                        "Phi3Tokenizer",
                                        "PreTrainedTokenizer",
                                        "TokenizersBackend"};
    for (size_t i = 0; i < PF_COUNT(known); i++)
        if (strcmp(known[i], tokenizer_class) == 0) return true;
    return false;
}

static peft_status build(pf_tokenizer *t, const model *m, const pf_token_input *in,
                         peft_error *err) {
    const pf_token_config *c = in->config;
    bool t5 = strcmp(c->tokenizer_class, "T5Tokenizer") == 0;
    int64_t extra = 0;
    if (m->model_type == 1 && !plain_numbering(c->tokenizer_class))
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: %s numbers SentencePiece pieces in its own way; the model needs a tokenizer.json",
            in->file, c->tokenizer_class);
    if (t5) { /* sentinels <extra_id_99> .. <extra_id_0> behind the pieces */
        extra = 100;
        PF_TRY(pf_tj_int(c->config, "extra_ids", 0, 10000, &extra, err));
    }
    PF_TRY(pipelines(t, m, c, t5, err));
    pf_vocab_init(&t->vocab, false);
    for (uint32_t i = 0; i < m->n; i++)
        PF_TRY(pf_vocab_add(&t->vocab, m->pieces[i].text.p, m->pieces[i].text.n, i, err));
    for (int64_t i = 0; i < extra; i++) {
        const char *name =
            pf_arena_printf(&t->arena, "<extra_id_%lld>", (long long)(extra - 1 - i));
        PF_CHECK_ALLOC(name, err);
        PF_TRY(pf_vocab_add(&t->vocab, name, strlen(name), (int64_t)m->n + i, err));
    }
    PF_TRY(pf_vocab_finish(&t->vocab, err));
    if (m->model_type == 2)
        PF_TRY(load_bpe(t, m, in, err));
    else
        PF_TRY(load_unigram(t, m, m->n + (uint32_t)extra, err));
    pf_added_tokens_begin(&t->added, &t->vocab);
    for (uint32_t i = 0; i < m->n; i++) {
        uint32_t type = m->pieces[i].type;
        bool special = type == CONTROL || (type == UNKNOWN && (int64_t)i == m->unk);
        if (special || type == USER_DEFINED)
            PF_TRY(add_token(t, m->pieces[i].text, special, i, err));
    }
    for (int64_t i = 0; i < extra; i++)
        PF_TRY(add_token(t, pf_vocab_text(&t->vocab, (int32_t)((int64_t)m->n + i)), true,
                         (int64_t)m->n + i, err));
    t->special.bos = id_ok(m, m->bos) ? (int32_t)m->bos : -1;
    t->special.eos = id_ok(m, m->eos) ? (int32_t)m->eos : -1;
    t->special.pad = id_ok(m, m->pad) ? (int32_t)m->pad : -1;
    t->special.unk = id_ok(m, m->unk) ? (int32_t)m->unk : -1;
    /* Llama's way for BPE, T5's for a unigram model that knows no beginning; the config may say
     * otherwise */
    if (m->model_type == 2 && t->special.bos >= 0) t->post.before[t->post.n_before++] = PF_POST_BOS;
    if (m->model_type == 1 && t->special.bos < 0 && t->special.eos >= 0)
        t->post.after[t->post.n_after++] = t->special.eos;
    return PEFT_OK;
}

static peft_status sentencepiece_load(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    model m = {.model_type = 1,
               .dummy_prefix = true,
               .collapse = true,
               .bos = 1,
               .eos = 2,
               .pad = -1,
               .unk_piece = pf_str_of("<unk>")};
    peft_status status = read_model(&m, in, err);
    if (status == PEFT_OK) status = build(t, &m, in, err);
    pf_free(m.pieces);
    return status;
}

/* The first field of the file is a piece whose first field is its text. */
static bool sentencepiece_probe(const char *data, size_t n) {
    reader r = inside((pf_str){data, n}), sub;
    field f;
    if (n == 0 || data[0] != 0x0a || !next_field(&r, &f)) return false;
    sub = inside(f.bytes);
    return next_field(&sub, &f) && f.number <= 3;
}

static const char *const sentencepiece_files[] = {"tokenizer.model", "spiece.model",
                                                  "sentencepiece.bpe.model", "spm.model", NULL};
const pf_token_source pf_token_source_sentencepiece = {"SentencePiece", sentencepiece_files,
                                                       sentencepiece_probe, sentencepiece_load};
