/* unigram.c - Viterbi over the bytes of a piece: best[i] is the best way to reach byte i. */
#include "token/unigram.h"

#include "base/mem.h"
#include "token/unicode_class.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/banned.h"

static const double unknown_penalty = 10.0;

void pf_unigram_init(pf_unigram *m, const pf_vocab *vocab) {
    memset(m, 0, sizeof *m);
    m->vocab = vocab;
    m->unk_id = -1;
    m->lowest = INFINITY;
}

void pf_unigram_release(pf_unigram *m) {
    if (m == NULL) return;
    pf_free(m->scores);
    pf_trie_release(&m->trie);
    memset(m, 0, sizeof *m);
}

peft_status pf_unigram_add(pf_unigram *m, int32_t id, double score, peft_error *err) {
    if (id < 0 || (uint32_t)id != m->n)
        return PF_FAIL(err, PEFT_E_STATE, "unigram scores must come in order of their ids");
    PF_TOKEN_GROW(m->scores, m->cap, (size_t)m->n + 1, err);
    m->scores[m->n++] = score;
    if (score < m->lowest) m->lowest = score;
    return PEFT_OK;
}

peft_status pf_unigram_finish(pf_unigram *m, peft_error *err) {
    for (uint32_t i = 0; i < m->n; i++) {
        pf_str text = pf_vocab_text(m->vocab, (int32_t)i);
        if (text.p == NULL) continue; /* a string that came again later has the later id */
        if (text.n > PF_UNIGRAM_TOKEN_MAX)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "token %u is %zu bytes long; the limit is %d",
                           i, text.n, PF_UNIGRAM_TOKEN_MAX);
        PF_TRY(pf_trie_add(&m->trie, text.p, text.n, (int32_t)i, err));
    }
    if (m->unk_id >= (int64_t)m->n)
        return PF_FAIL(err, PEFT_E_FORMAT, "unk_id %d is not in a vocabulary of %u tokens",
                       m->unk_id, m->n);
    m->all_bytes = true;
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        int n = snprintf(text, sizeof text, "<0x%02X>", i);
        m->byte_id[i] = pf_vocab_find(m->vocab, text, (size_t)n);
        m->all_bytes &= m->byte_id[i] >= 0;
    }
    return PEFT_OK;
}

static peft_status viterbi(const pf_unigram *m, pf_model_scratch *s, const char *p, uint32_t n,
                           peft_error *err) {
    double unknown = m->lowest - unknown_penalty;
    PF_TOKEN_GROW(s->best, s->best_cap, (size_t)n + 1, err);
    pf_best *best = s->best;
    for (uint32_t i = 0; i <= n; i++) best[i] = (pf_best){0.0, UINT32_MAX, -1};
    for (uint32_t at = 0; at < n;) {
        double here = best[at].score;
        uint32_t len = m->vocab->bytes ? 1 : pf_u8_len(p + at), node = 0;
        bool single = false;
        for (uint32_t i = at; i < n; i++) {
            node = pf_trie_step(&m->trie, node, (unsigned char)p[i]);
            if (node == 0) break;
            s->work++;
            int32_t id = m->trie.value[node];
            if (id < 0) continue;
            pf_best *to = &best[i + 1];
            double score = m->scores[id] + here;
            if (to->start == UINT32_MAX || score > to->score) *to = (pf_best){score, at, id};
            single |= i + 1 - at == len;
        }
        if (!single) {
            pf_best *to = &best[at + len];
            double score = unknown + here;
            if (to->start == UINT32_MAX || score > to->score) {
                if (m->unk_id < 0)
                    return PF_FAIL(
                        err, PEFT_E_FORMAT,
                        "the text has a character that the tokenizer does not know, and it has no "
                        "unknown token");
                *to = (pf_best){score, at, m->unk_id};
            }
        }
        at += len;
    }
    return PEFT_OK;
}

/* A run of unknown characters: itself when it happens to be a token's text, its bytes, or the
 * unknown token. */
static peft_status add_unknown(const pf_unigram *m, const char *p, uint32_t begin, uint32_t end,
                               pf_tokens *out, peft_error *err) {
    int32_t id = pf_vocab_find(m->vocab, p + begin, end - begin);
    if (id >= 0) return pf_tokens_add(out, (pf_token){id, begin, end, false}, err);
    bool spell = m->byte_fallback;
    if (spell && !m->all_bytes)
        for (uint32_t i = begin; i < end; i++) spell &= m->byte_id[(unsigned char)p[i]] >= 0;
    if (!spell) return pf_tokens_add(out, (pf_token){m->unk_id, begin, end, true}, err);
    for (uint32_t i = begin; i < end; i++) /* each stands for the whole run */
        PF_TRY(pf_tokens_add(out, (pf_token){m->byte_id[(unsigned char)p[i]], begin, end, false},
                             err));
    return PEFT_OK;
}

peft_status pf_unigram_encode(const pf_unigram *m, pf_model_scratch *s, const char *p, uint32_t n,
                              pf_tokens *out, peft_error *err) {
    peft_status status;
    out->n = 0;
    if (pf_recall_find(s, p, n, 0, out, &status, err)) return status;
    PF_TRY(viterbi(m, s, p, n, err));
    /* turn the links around: start[] of a token becomes the end of the one before */
    pf_best *best = s->best;
    uint32_t next = UINT32_MAX;
    for (uint32_t at = n; at > 0;) {
        uint32_t start = best[at].start;
        best[at].start =
            next; /* the token that ends here is followed by the one that ends at next */
        next = at;
        at = start;
    }
    uint32_t begin = 0;
    while (next != UINT32_MAX) {
        uint32_t end = next;
        bool unknown = best[end].id == m->unk_id;
        next = best[end].start;
        while (unknown && next != UINT32_MAX && best[next].id == m->unk_id) {
            end = next;
            next = best[end].start;
        }
        if (unknown)
            PF_TRY(add_unknown(m, p, begin, end, out, err));
        else
            PF_TRY(pf_tokens_add(out, (pf_token){best[end].id, begin, end, false}, err));
        begin = end;
    }
    pf_recall_keep(s, p, n, 0, out, out->n);
    return PEFT_OK;
}
