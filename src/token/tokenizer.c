/* tokenizer.c - encode and decode: the steps in their order, and what callers may ask.
 *
 * Text -> added tokens that are not normalized -> normalizers on what is between -> added tokens
 * that are -> pieces -> model -> special tokens around. Working memory comes from a list of
 * scratches that grows to the number of threads. */
#include "token/tokenizer_impl.h"

#include "base/mem.h"
#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

/* ---- working memory ---- */

void pf_encode_scratch_free(pf_encode_scratch *s) {
    if (s == NULL) return;
    pf_ntext_release(&s->text);
    pf_ntext_release(&s->piece);
    pf_ntext_release(&s->normal);
    pf_ntext_release(&s->spare[0]);
    pf_ntext_release(&s->spare[1]);
    pf_cutting_release(&s->cutting);
    pf_free(s->pieces.v);
    pf_model_scratch_release(&s->model);
    pf_tokens_release(&s->tokens);
    pf_strings_release(&s->strings[0]);
    pf_strings_release(&s->strings[1]);
    pf_free(s);
}

/* The list is the one part of an open tokenizer that changes; its lock makes that safe. */
static pf_tokenizer *lists_of(const pf_tokenizer *t) {
    return (pf_tokenizer *)(uintptr_t)t;
}

static pf_encode_scratch *take_scratch(const pf_tokenizer *tokenizer) {
    pf_tokenizer *t = lists_of(tokenizer);
    pthread_mutex_lock(&t->lock);
    pf_encode_scratch *s = t->idle;
    if (s != NULL) t->idle = s->next;
    pthread_mutex_unlock(&t->lock);
    return s != NULL ? s : pf_calloc(1, sizeof *s);
}

static void give_scratch(const pf_tokenizer *tokenizer, pf_encode_scratch *s) {
    pf_tokenizer *t = lists_of(tokenizer);
    pthread_mutex_lock(&t->lock);
    s->next = t->idle;
    t->idle = s;
    pthread_mutex_unlock(&t->lock);
}

/* ---- encode ---- */

void pf_encoding_release(pf_encoding *e) {
    if (e == NULL) return;
    pf_free(e->ids);
    pf_free(e->from);
    pf_free(e->to);
    memset(e, 0, sizeof *e);
}

static peft_status emit(pf_encoding *e, int32_t id, uint32_t from, uint32_t to, peft_error *err) {
    if (e->n == e->cap) {
        size_t cap = e->cap + e->cap / 2 + 64;
        int32_t *ids = pf_realloc(e->ids, cap * sizeof *ids);
        if (ids != NULL) e->ids = ids;
        uint32_t *a = pf_realloc(e->from, cap * sizeof *a);
        if (a != NULL) e->from = a;
        uint32_t *b = pf_realloc(e->to, cap * sizeof *b);
        if (b != NULL) e->to = b;
        if (ids == NULL || a == NULL || b == NULL)
            return PF_FAIL(err, PEFT_E_NOMEM, "out of memory: %zu tokens", cap);
        e->cap = cap;
    }
    e->ids[e->n] = id;
    e->from[e->n] = from;
    e->to[e->n++] = to;
    return PEFT_OK;
}

/* Normalizes one piece of the text, appends it to s->normal, and cuts the added tokens out of it.
 */
static peft_status normalize_piece(const pf_tokenizer *t, pf_encode_scratch *s, pf_piece p,
                                   bool bare, peft_error *err) {
    const pf_ntext *result;
    if (s->text.aligned) {
        pf_ntext_clear(&s->piece);
        PF_TRY(pf_ntext_append(&s->piece, &s->text, p.begin, p.end, err));
    } else {
        pf_ntext_borrow(&s->piece, s->text.text + p.begin, p.end - p.begin,
                        s->text.origin + p.begin);
    }
    PF_TRY(pf_normalizers_run(&t->normalizers, &s->piece, s->spare, bare && p.begin == 0, &result,
                              err));
    uint32_t begin = s->normal.n;
    PF_TRY(pf_ntext_append(&s->normal, result, 0, result->n, err));
    return pf_added_tokens_cut(&t->added, &t->added.normalized, &s->normal, begin, s->normal.n,
                               &s->cutting.pieces, err);
}

static peft_status find_pieces(const pf_tokenizer *t, pf_encode_scratch *s, bool bare,
                               peft_error *err) {
    pf_cutting *c = &s->cutting;
    s->pieces.n = c->pieces.n = 0;
    PF_TRY(
        pf_added_tokens_cut(&t->added, &t->added.plain, &s->text, 0, s->text.n, &s->pieces, err));
    c->bare = bare;
    c->text = &s->text;
    if (t->normalizers.n > 0) {
        pf_ntext_clear(&s->normal);
        c->text = &s->normal;
    }
    for (uint32_t i = 0; i < s->pieces.n; i++) {
        pf_piece p = s->pieces.v[i];
        if (p.id >= 0) {
            uint32_t shift = c->text == &s->normal ? s->normal.n : p.begin, n = p.end - p.begin;
            if (c->text == &s->normal)
                PF_TRY(pf_ntext_append(&s->normal, &s->text, p.begin, p.end, err));
            PF_TRY(pf_pieces_add(&c->pieces, shift, shift + n, p.id, err));
        } else if (c->text == &s->normal) {
            PF_TRY(normalize_piece(t, s, p, bare, err));
        } else {
            PF_TRY(pf_added_tokens_cut(&t->added, &t->added.normalized, &s->text, p.begin, p.end,
                                       &c->pieces, err));
        }
    }
    return pf_pretokenizers_run(&t->pretokenizers, c, err);
}

/* White space at the ends of a token as written: spaces of a byte-level vocabulary show as "Ġ"
 * there. */
static void blank_ends(const pf_vocab *v, bool added, const char *p, size_t n, uint32_t *leading,
                       uint32_t *trailing) {
    bool raw = v->bytes && !added;
    uint32_t chars = 0, run = 0;
    *leading = 0;
    for (size_t i = 0; i < n; chars++) {
        uint32_t cp = (unsigned char)p[i];
        i += raw ? 1 : pf_u8_get(p + i, &cp);
        bool blank = raw ? cp == ' ' : cp == 0x120 || (pf_uclass(cp) & PF_U_SPACE) != 0;
        run = blank ? run + 1 : 0;
        if (run == chars + 1) *leading = run;
    }
    *trailing = run;
}

/* Moves the ends of token i inwards, a character of the original text for each blank, as
 * post-processor ByteLevel. */
static void trim(const pf_tokenizer *t, const char *text, size_t n, const pf_cutting *c, pf_piece p,
                 pf_encoding *e) {
    size_t i = e->n - 1;
    uint32_t leading, trailing;
    bool added = p.id >= 0, valid;
    pf_str s = added ? (pf_str){c->text->text + p.begin, p.end - p.begin}
                     : pf_vocab_text(&t->vocab, e->ids[i]);
    blank_ends(&t->vocab, added, s.p == NULL ? "" : s.p, s.n, &leading, &trailing);
    if (leading == 1 && t->post.keep_first && (i == e->n_before || e->from[i] == 0)) leading = 0;
    for (; leading > 0 && e->from[i] < e->to[i]; leading--)
        e->from[i] += pf_u8_scan(text + e->from[i], n - e->from[i], &valid);
    for (; trailing > 0 && e->to[i] > e->from[i]; trailing--) {
        uint32_t at = e->from[i], next = at;
        if (e->to[i] - at > 4) at = e->to[i] - 4;
        while (at > e->from[i] && !pf_u8_is_start(text[at])) at--;
        while (next < e->to[i]) { /* the last character before the end */
            at = next > at ? next : at;
            next = at + pf_u8_scan(text + at, n - at, &valid);
        }
        e->to[i] = at;
    }
}

static peft_status run_model(const pf_tokenizer *t, pf_encode_scratch *s, const char *text,
                             size_t n, bool trimmed, pf_encoding *e, peft_error *err) {
    const pf_cutting *c = &s->cutting;
    uint32_t from, to;
    for (uint32_t i = 0; i < c->pieces.n; i++) {
        pf_piece p = c->pieces.v[i];
        if (p.id >= 0) {
            pf_ntext_range(c->text, p.begin, p.end, &from, &to);
            PF_TRY(emit(e, p.id, from, to, err));
            if (trimmed) trim(t, text, n, c, p, e);
            continue;
        }
        PF_TRY(t->model->encode(t, &s->model, c->text->text + p.begin, p.end - p.begin, &s->tokens,
                                err));
        for (uint32_t k = 0; k < s->tokens.n; k++) {
            pf_token token = s->tokens.v[k];
            pf_ntext_range(c->text, p.begin + token.begin, p.begin + token.end, &from, &to);
            PF_TRY(emit(e, token.id, from, to, err));
            if (trimmed) trim(t, text, n, c, p, e);
        }
    }
    return PEFT_OK;
}

const int32_t *pf_tokenizer_pair(const pf_tokenizer *t, int part, int *n) {
    const pf_postprocessor *z = &t->post;
    const bool has_pair = z->n_pair[0] + z->n_pair[1] + z->n_pair[2] > 0;
    if (has_pair) {
        *n = z->n_pair[part];
        return z->pair[part];
    }
    *n = part == 0 ? z->n_before : part == 2 ? z->n_after : 0;
    return part == 0 ? z->before : z->after;
}

static peft_status encode(const pf_tokenizer *t, pf_encode_scratch *s, const char *text, size_t n,
                          unsigned flags, pf_encoding *e, peft_error *err) {
    bool special = (flags & PF_ENCODE_SPECIAL) != 0;
    e->n = e->n_before = e->n_after = 0;
    s->model.work = 0;
    PF_TRY(pf_ntext_set(&s->text, text, n, err));
    for (int i = 0; special && i < t->post.n_before; i++)
        PF_TRY(emit(e, t->post.before[i], 0, 0, err));
    e->n_before = e->n;
    PF_TRY(find_pieces(t, s, (flags & PF_ENCODE_CONTINUE) != 0, err));
    PF_TRY(run_model(t, s, text, n, (flags & PF_ENCODE_TRIM) != 0 && t->post.trim, e, err));
    for (int i = 0; special && i < t->post.n_after; i++)
        PF_TRY(emit(e, t->post.after[i], (uint32_t)n, (uint32_t)n, err));
    e->n_after = special ? (size_t)t->post.n_after : 0;
    e->work = s->model.work;
    return PEFT_OK;
}

peft_status pf_tokenizer_encode(const pf_tokenizer *t, const char *text, size_t n, unsigned flags,
                                pf_encoding *out, peft_error *err) {
    pf_encode_scratch *s = take_scratch(t);
    if (s == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory in the tokenizer");
    peft_status status = encode(t, s, n == 0 ? "" : text, n, flags, out, err);
    if (status != PEFT_OK) out->n = 0;
    give_scratch(t, s);
    return status;
}

/* ---- decode ---- */

static peft_status decode(const pf_tokenizer *t, pf_encode_scratch *s, const int32_t *ids, size_t n,
                          bool skip_special, pf_buf *out, peft_error *err) {
    pf_strings *tokens = &s->strings[0];
    pf_strings_clear(tokens);
    tokens->limit = 0;
    for (size_t i = 0; i < n; i++) {
        const pf_added_token *a = pf_added_token_by_id(&t->added, ids[i]);
        if (a != NULL) {
            if (skip_special && a->skipped) continue;
            pf_buf_add(&tokens->bytes, a->text.p, a->text.n);
        } else if (!pf_vocab_written(&t->vocab, ids[i], &tokens->bytes)) {
            continue;
        }
        PF_TRY(pf_strings_close(tokens, err));
    }
    return pf_decoders_run(&t->decoders, tokens, &s->strings[1], out, err);
}

peft_status pf_tokenizer_decode(const pf_tokenizer *t, const int32_t *ids, size_t n,
                                bool skip_special, pf_buf *out, peft_error *err) {
    pf_encode_scratch *s = take_scratch(t);
    if (s == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory in the tokenizer");
    peft_status status = decode(t, s, ids, n, skip_special, out, err);
    for (int i = 0; i < 2; i++)
        if (!pf_buf_ok(&s->strings[i].bytes)) pf_buf_free(&s->strings[i].bytes);
    give_scratch(t, s);
    return status;
}

/* ---- looking in ---- */

pf_special_ids pf_tokenizer_special(const pf_tokenizer *t) {
    return t->special;
}

int32_t pf_tokenizer_size(const pf_tokenizer *t) {
    return t->added.n_ids > t->vocab.n_ids ? t->added.n_ids : t->vocab.n_ids;
}

int32_t pf_tokenizer_count(const pf_tokenizer *t) {
    int32_t n = (int32_t)t->vocab.n;
    for (uint32_t i = 0; i < t->added.n; i++)
        n += pf_vocab_id(&t->vocab, t->added.v[i].content.p, t->added.v[i].content.n) < 0;
    return n;
}

int32_t pf_tokenizer_id(const pf_tokenizer *t, const char *token) {
    const pf_added_token *a = pf_added_token_by_text(&t->added, token, strlen(token));
    if (a != NULL) return a->id;
    return pf_utf8_valid(token, strlen(token), NULL) ? pf_vocab_id(&t->vocab, token, strlen(token))
                                                     : -1;
}

bool pf_tokenizer_token(const pf_tokenizer *t, int32_t id, pf_buf *out) {
    const pf_added_token *a = pf_added_token_by_id(&t->added, id);
    if (a == NULL) return pf_vocab_written(&t->vocab, id, out);
    pf_buf_add(out, a->content.p, a->content.n);
    return true;
}

bool pf_tokenizer_is_special(const pf_tokenizer *t, int32_t id) {
    const pf_added_token *a = pf_added_token_by_id(&t->added, id);
    return a != NULL && a->special;
}

int pf_tokenizer_added_count(const pf_tokenizer *t) {
    return (int)t->added.n;
}

pf_added_info pf_tokenizer_added(const pf_tokenizer *t, int i) {
    const pf_added_token *a = &t->added.v[i];
    return (pf_added_info){a->id,          a->content.p, a->special, a->normalized,
                           a->single_word, a->lstrip,    a->rstrip};
}

const char *pf_tokenizer_model(const pf_tokenizer *t) {
    return t->model->name;
}
const char *pf_tokenizer_source(const pf_tokenizer *t) {
    return t->source;
}
const char *pf_tokenizer_chat_template(const pf_tokenizer *t) {
    return t->chat_template;
}
int64_t pf_tokenizer_max_length(const pf_tokenizer *t) {
    return t->max_length;
}
const char *pf_tokenizer_fingerprint(const pf_tokenizer *t) {
    return t->fingerprint;
}
