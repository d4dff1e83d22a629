/* decode_stream.c - decoding one token at a time.
 *
 * What a token adds depends on those before it (a stripped first space, bytes of one character), so
 * a few shown tokens are kept as context: the text of context and new tokens together, less the
 * text of the context alone, is what is new. While that ends in U+FFFD a character may be
 * incomplete, and it is held back; but never more than 32 tokens. */
#include "base/mem.h"
#include "token/tokenizer_impl.h"

#include <string.h>

#include "base/banned.h"

enum { HELD_MAX = 32 };

void pf_decode_stream_init(pf_decode_stream *s, const pf_tokenizer *t, bool skip_special) {
    memset(s, 0, sizeof *s);
    s->tokenizer = t;
    s->skip_special = skip_special;
}

void pf_decode_stream_release(pf_decode_stream *s) {
    if (s == NULL) return;
    pf_free(s->ids);
    pf_buf_free(&s->shown);
    pf_buf_free(&s->all);
    memset(s, 0, sizeof *s);
}

static bool ends_open(const pf_buf *b) {
    return b->len >= 3 && memcmp(b->data + b->len - 3, "\xef\xbf\xbd", 3) == 0;
}

/* Shows what s->all has beyond s->shown; what was new becomes the context. */
static peft_status show(pf_decode_stream *s, pf_buf *out, peft_error *err) {
    size_t common = s->shown.len <= s->all.len ? s->shown.len : s->all.len;
    pf_buf_add(out, pf_buf_str(&s->all) + common, s->all.len - common);
    memmove(s->ids, s->ids + s->n_shown, (s->n - s->n_shown) * sizeof *s->ids);
    s->n -= s->n_shown;
    s->n_shown = s->n;
    pf_buf_clear(&s->shown);
    PF_TRY(pf_tokenizer_decode(s->tokenizer, s->ids, s->n, s->skip_special, &s->shown, err));
    return pf_buf_ok(out) ? PEFT_OK
                          : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while decoding tokens");
}

peft_status pf_decode_stream_add(pf_decode_stream *s, int32_t id, pf_buf *out, peft_error *err) {
    const pf_added_token *a = pf_added_token_by_id(&s->tokenizer->added, id);
    if (a != NULL ? s->skip_special && a->skipped : !pf_vocab_has(&s->tokenizer->vocab, id))
        return PEFT_OK;
    PF_TOKEN_GROW(s->ids, s->cap, (size_t)s->n + 1, err);
    s->ids[s->n++] = id;
    pf_buf_clear(&s->all);
    PF_TRY(pf_tokenizer_decode(s->tokenizer, s->ids, s->n, s->skip_special, &s->all, err));
    if (s->all.len <= s->shown.len) return PEFT_OK; /* a first space that is stripped */
    return ends_open(&s->all) && s->n - s->n_shown < HELD_MAX ? PEFT_OK : show(s, out, err);
}

peft_status pf_decode_stream_end(pf_decode_stream *s, pf_buf *out, peft_error *err) {
    if (s->n == 0) return PEFT_OK;
    pf_buf_clear(&s->all);
    PF_TRY(pf_tokenizer_decode(s->tokenizer, s->ids, s->n, s->skip_special, &s->all, err));
    PF_TRY(show(s, out, err));
    s->n = s->n_shown = 0;
    pf_buf_clear(&s->shown);
    return PEFT_OK;
}
