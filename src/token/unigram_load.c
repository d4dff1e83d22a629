/* unigram_load.c - a unigram model from a tokenizer.json. */
#include "token/json_scan.h"
#include "token/tokenizer_impl.h"

#include "base/banned.h"

/* [["token", score], ...]; the id is the place in the list. */
static peft_status read_list(pf_tokenizer *t, pf_str value, const char *text, peft_error *err) {
    pf_json_scan s;
    peft_status status = PEFT_OK;
    int32_t id = 0;
    pf_json_scan_init(&s, value, text, t->source);
    PF_TRY_OUT(pf_json_scan_expect(&s, '[', err));
    if (!pf_json_scan_take(&s, ']')) {
        do {
            pf_str token;
            double score;
            PF_TRY_OUT(pf_json_scan_expect(&s, '[', err));
            PF_TRY_OUT(pf_json_scan_string(&s, &token, err));
            PF_TRY_OUT(pf_vocab_add(&t->vocab, token.p, token.n, id, err));
            PF_TRY_OUT(pf_json_scan_expect(&s, ',', err));
            PF_TRY_OUT(pf_json_scan_double(&s, &score, err));
            PF_TRY_OUT(pf_json_scan_expect(&s, ']', err));
            PF_TRY_OUT(pf_unigram_add(&t->unigram, id++, score, err));
        } while (pf_json_scan_take(&s, ','));
        PF_TRY_OUT(pf_json_scan_expect(&s, ']', err));
    }
    status = pf_json_scan_done(&s, err);
out:
    pf_json_scan_release(&s);
    return status;
}

static peft_status unigram_load(pf_tokenizer *t, pf_tj json, pf_str vocab, pf_str merges,
                                const char *text, peft_error *err) {
    (void)merges;
    int64_t unk = -1;
    if (vocab.p == NULL || *vocab.p != '[')
        return pf_tj_fail(json, PEFT_E_FORMAT, "vocab should be a list of [token, score]", err);
    pf_unigram_init(&t->unigram, &t->vocab);
    PF_TRY(pf_tj_int(json, "unk_id", 0, INT32_MAX - 1, &unk, err));
    PF_TRY(pf_tj_bool(json, "byte_fallback", &t->unigram.byte_fallback, err));
    t->unigram.unk_id = (int32_t)unk;
    PF_TRY(read_list(t, vocab, text, err));
    PF_TRY(pf_vocab_finish(&t->vocab, err));
    peft_status status = pf_unigram_finish(&t->unigram, err);
    return status == PEFT_OK ? PEFT_OK : pf_fail_prefix(err, status, "%s", json.path);
}

static peft_status unigram_encode(const pf_tokenizer *t, pf_model_scratch *s, const char *p,
                                  uint32_t n, pf_tokens *out, peft_error *err) {
    return pf_unigram_encode(&t->unigram, s, p, n, out, err);
}

const pf_token_model_kind pf_token_model_unigram = {"Unigram", unigram_load, unigram_encode};
