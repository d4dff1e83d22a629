/* example.c - see example.h. */
#include "data/example.h"

static void add(pf_buf *ids, const int32_t *from, size_t n) {
    pf_buf_add(ids, from, n * sizeof *from);
}

/* What stands before the text: as the tokenizer has it, nothing, or at least BOS. */
static size_t add_before(const pf_encode_options *opt, const pf_encoding *e, pf_buf *ids) {
    if (opt->add_bos == PF_BOS_NEVER) return 0;
    int32_t bos = pf_tokenizer_special(opt->tokenizer).bos;
    bool missing =
        opt->add_bos == PF_BOS_ALWAYS && bos >= 0 && (e->n_before == 0 || e->ids[0] != bos);
    if (missing) add(ids, &bos, 1);
    add(ids, e->ids, e->n_before);
    return e->n_before + missing;
}

/* What stands behind it: what the tokenizer puts there, ending in EOS. */
static size_t add_after(const pf_encode_options *opt, const int32_t *after, size_t n, pf_buf *ids) {
    if (!opt->add_eos) return 0;
    int32_t eos = pf_tokenizer_special(opt->tokenizer).eos;
    bool missing = eos >= 0 && (n == 0 || after[n - 1] != eos);
    add(ids, after, n);
    if (missing) add(ids, &eos, 1);
    return n + missing;
}

/* First token of the text that belongs to the target, or `end`. false: a token straddles the
 * boundary. */
static bool find_boundary(const pf_encoding *e, size_t end, size_t boundary, size_t *at) {
    size_t i = e->n_before;
    while (i < end && e->from[i] < boundary) {
        if (e->to[i] > boundary) return false;
        i++;
    }
    *at = i;
    while (i < end && e->from[i] >= boundary) i++;
    return i == end; /* offsets that go back would mix the two sides */
}

/* A text as the tokenizer encodes it alone, ending in EOS where there is one. */
static peft_status encode_alone(const pf_encode_options *opt, const char *text, size_t n, bool eos,
                                pf_encoding *e, pf_buf *ids, size_t *count, peft_error *err) {
    PF_TRY(pf_tokenizer_encode(opt->tokenizer, text, n, PF_ENCODE_SPECIAL, e, err));
    const size_t end = e->n - e->n_after;
    *count = add_before(opt, e, ids) + end - e->n_before;
    add(ids, e->ids + e->n_before, end - e->n_before);
    const pf_encode_options with_eos = {.tokenizer = opt->tokenizer, .add_eos = eos};
    *count += add_after(&with_eos, e->ids + end, e->n_after, ids);
    return PEFT_OK;
}

static peft_status encode_pair(const pf_encode_options *opt, const char *text, size_t n,
                               size_t n_prompt, pf_encoding *e, pf_buf *ids, pf_encoded *out,
                               peft_error *err) {
    size_t source, target;
    PF_TRY(encode_alone(opt, text, n_prompt, true, e, ids, &source, err));
    add(ids, &opt->decoder_start, 1);
    PF_TRY(encode_alone(opt, text + n_prompt, n - n_prompt, opt->add_eos, e, ids, &target, err));
    if (!pf_buf_ok(ids) || source + target >= INT32_MAX)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for %zu tokens", source + target);
    if (source == 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "the prompt has no tokens; an encoder needs at least one");
    *out = (pf_encoded){.n_tokens = (int32_t)(source + 1 + target),
                        .n_prompt = (int32_t)source + 1,
                        .n_source = (int32_t)source};
    return PEFT_OK;
}

peft_status pf_example_encode(const pf_encode_options *opt, const char *text, size_t n,
                              size_t n_prompt, pf_encoding *scratch, pf_buf *ids, pf_encoded *out,
                              peft_error *err) {
    const pf_tokenizer *t = opt->tokenizer;
    pf_encoding *e = scratch;
    *out = (pf_encoded){0};
    if (opt->encoder_decoder) return encode_pair(opt, text, n, n_prompt, e, ids, out, err);
    PF_TRY(pf_tokenizer_encode(t, text, n, PF_ENCODE_SPECIAL, e, err));
    size_t end = e->n - e->n_after, boundary = 0, n_tokens = 0, n_before = 0;
    out->split = !find_boundary(e, end, n_prompt, &boundary);
    if (!out->split) {
        n_before = add_before(opt, e, ids);
        add(ids, e->ids + e->n_before, end - e->n_before);
        n_tokens = n_before + end - e->n_before + add_after(opt, e->ids + end, e->n_after, ids);
        boundary += n_before - e->n_before;
    } else {
        int32_t after[16];
        size_t n_after = e->n_after < PF_COUNT(after) ? e->n_after : PF_COUNT(after);
        for (size_t i = 0; i < n_after; i++) after[i] = e->ids[end + i];
        PF_TRY(pf_tokenizer_encode(t, text, n_prompt, PF_ENCODE_SPECIAL, e, err));
        n_before = add_before(opt, e, ids);
        size_t body = e->n - e->n_before - e->n_after;
        add(ids, e->ids + e->n_before, body);
        boundary = n_before + body;
        PF_TRY(pf_tokenizer_encode(t, text + n_prompt, n - n_prompt, PF_ENCODE_CONTINUE, e, err));
        add(ids, e->ids, e->n);
        n_tokens = boundary + e->n + add_after(opt, after, n_after, ids);
    }
    if (!pf_buf_ok(ids) || n_tokens > INT32_MAX)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for %zu tokens", n_tokens);
    out->n_tokens = (int32_t)n_tokens;
    out->n_prompt = (int32_t)boundary;
    return PEFT_OK;
}

peft_status pf_prompt_encode(const pf_encode_options *opt, const char *prompt, size_t n,
                             pf_encoding *scratch, pf_buf *ids, peft_error *err) {
    if (opt->encoder_decoder) {
        size_t count;
        PF_TRY(encode_alone(opt, prompt, n, true, scratch, ids, &count, err));
    } else {
        PF_TRY(pf_tokenizer_encode(opt->tokenizer, prompt, n, PF_ENCODE_SPECIAL, scratch, err));
        add_before(opt, scratch, ids);
        add(ids, scratch->ids + scratch->n_before,
            scratch->n - scratch->n_before - scratch->n_after);
    }
    if (!pf_buf_ok(ids)) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the prompt's tokens");
    return PEFT_OK;
}
