/* wordpiece.c - see wordpiece.h. A word has at most max_chars characters, so the square of its
 * length is a constant. */
#include "token/wordpiece.h"

#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

static int64_t count_chars(const char *p, uint32_t n) {
    int64_t count = 0;
    for (uint32_t i = 0; i < n; i++) count += pf_u8_is_start(p[i]);
    return count;
}

static peft_status unknown(const pf_wordpiece *m, uint32_t n, pf_tokens *out, peft_error *err) {
    out->n = 0;
    if (m->unk_id < 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "the text has a word that the tokenizer does not know, and it has no "
                       "unknown token");
    return pf_tokens_add(out, (pf_token){m->unk_id, 0, n, true}, err);
}

peft_status pf_wordpiece_encode(const pf_wordpiece *m, pf_model_scratch *s, const char *p,
                                uint32_t n, pf_tokens *out, peft_error *err) {
    char piece[PF_WORDPIECE_PREFIX_MAX + 4 * PF_WORDPIECE_WORD_MAX];
    const uint32_t n_prefix = (uint32_t)strlen(m->prefix);
    peft_status status;
    out->n = 0;
    if (pf_recall_find(s, p, n, 0, out, &status, err)) return status;
    if (count_chars(p, n) > m->max_chars) return unknown(m, n, out, err);
    memcpy(piece, m->prefix, n_prefix);
    for (uint32_t begin = 0, end; begin < n; begin = end) {
        const uint32_t before = begin > 0 ? n_prefix : 0;
        char *text = piece + n_prefix - before;
        int32_t id = -1;
        memcpy(piece + n_prefix, p + begin, n - begin);
        for (end = n; end > begin; end--) {
            if (end < n && !pf_u8_is_start(p[end])) continue;
            s->work++;
            id = pf_vocab_find(m->vocab, text, before + end - begin);
            if (id >= 0) break;
        }
        if (id < 0) return unknown(m, n, out, err);
        PF_TRY(pf_tokens_add(out, (pf_token){id, begin, end, false}, err));
    }
    pf_recall_keep(s, p, n, 0, out, out->n);
    return PEFT_OK;
}
