/* token_regex.c - PCRE2 behind token_regex.h: compile once, match from any thread, with limits.
 *
 * PCRE2 takes its memory from base/mem.h. The limits hold for JIT code and for the interpreter,
 * which takes over where the JIT's stack ends. */
#include "token/token_regex.h"

#include "base/mem.h"
#include "token/unicode_class.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#include "base/banned.h"

enum { MATCH_LIMIT = 50 * 1000 * 1000, HEAP_LIMIT_KIB = 256 * 1024 };

struct pf_regex {
    pcre2_general_context *general;
    pcre2_match_context *limits;
    pcre2_code *code;
    char *literal; /* NULL for an expression */
    uint32_t literal_n;
};

static void *take(PCRE2_SIZE n, void *tag) {
    (void)tag;
    return pf_malloc(n);
}

static void give(void *p, void *tag) {
    (void)tag;
    pf_free(p);
}

void pf_regex_free(pf_regex *r) {
    if (r == NULL) return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    pcre2_general_context_free(r->general);
    pf_free(r->literal);
    pf_free(r);
}

static peft_status compile(pf_regex *r, const char *pattern, size_t n, const char *where,
                           peft_error *err) {
    pf_buf text = {0};
    pcre2_compile_context *context = NULL;
    peft_status status = pf_regex_translate(&text, pattern, n, err);
    if (status != PEFT_OK) {
        pf_fail_prefix(err, status, "%s: \"%.*s\"", where, (int)(n > 200 ? 200 : n), pattern);
        goto out;
    }
    r->general = pcre2_general_context_create(take, give, NULL);
    r->limits = r->general == NULL ? NULL : pcre2_match_context_create(r->general);
    context = r->general == NULL ? NULL : pcre2_compile_context_create(r->general);
    if (r->limits == NULL || context == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int code;
    PCRE2_SIZE at;
    r->code = pcre2_compile((PCRE2_SPTR)pf_buf_str(&text), text.len,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK, &code,
                            &at, context);
    if (r->code == NULL) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: pattern \"%.*s\": %s", where,
                         (int)(n > 200 ? 200 : n), pattern, why);
        goto out;
    }
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_LIMIT_KIB);
    pcre2_jit_compile(r->code,
                      PCRE2_JIT_COMPLETE); /* where there is no JIT the interpreter serves */
out:
    pcre2_compile_context_free(context);
    pf_buf_free(&text);
    return status;
}

peft_status pf_regex_new(pf_regex **out, const char *pattern, size_t n, bool literal,
                         const char *where, peft_error *err) {
    *out = NULL;
    pf_regex *r = pf_calloc(1, sizeof *r);
    if (r == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    peft_status status = PEFT_OK;
    if (literal) {
        r->literal = pf_malloc(n + 1);
        r->literal_n = (uint32_t)n;
        if (r->literal == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        else
            memcpy(r->literal, pattern, n);
    } else {
        status = compile(r, pattern, n, where, err);
    }
    if (status != PEFT_OK) {
        pf_regex_free(r);
        return status;
    }
    *out = r;
    return PEFT_OK;
}

peft_status pf_regex_from_json(pf_regex **out, pf_tj pattern, peft_error *err) {
    pf_str text = {0};
    pf_tj literal = pf_tj_get(pattern, "String"), regex = pf_tj_get(pattern, "Regex");
    *out = NULL;
    if (literal.v == NULL && regex.v == NULL)
        return pf_tj_fail(pattern, PEFT_E_FORMAT,
                          "this should be {\"String\": ...} or {\"Regex\": ...}", err);
    PF_TRY(pf_tj_string(literal.v != NULL ? literal : regex, &text, err));
    return pf_regex_new(out, text.p, text.n, literal.v != NULL, pattern.path, err);
}

static peft_status find(pf_regex_iter *it, bool *found, uint32_t *begin, uint32_t *end,
                        peft_error *err) {
    const pf_regex *r = it->regex;
    *found = false;
    if (r->literal != NULL) {
        const char *hit = r->literal_n == 0
                              ? NULL
                              : memmem(it->text + it->at, it->n - it->at, r->literal, r->literal_n);
        if (hit != NULL) {
            *found = true;
            *begin = (uint32_t)(hit - it->text);
            *end = *begin + r->literal_n;
        }
        return PEFT_OK;
    }
    if (it->match == NULL) it->match = pcre2_match_data_create(1, r->general);
    if (it->match == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    int rc = pcre2_match(r->code, (PCRE2_SPTR)it->text, it->n, it->at, PCRE2_NO_UTF_CHECK,
                         it->match, r->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(r->code, (PCRE2_SPTR)it->text, it->n, it->at,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, it->match, r->limits);
    if (rc >= 0) {
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(it->match);
        *found = true;
        *begin = (uint32_t)o[0];
        *end = (uint32_t)(o[1] < o[0] ? o[0] : o[1]);
    }
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return PEFT_OK;
    char why[128] = "";
    pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
    return PF_FAIL(err, rc == PCRE2_ERROR_NOMEMORY ? PEFT_E_NOMEM : PEFT_E_FORMAT,
                   "a pattern of the tokenizer gave up at byte %u of the text: %s", it->at, why);
}

void pf_regex_begin(pf_regex_iter *it, const pf_regex *r, const char *text, uint32_t n) {
    *it = (pf_regex_iter){.regex = r, .text = text, .n = n};
}

void pf_regex_end(pf_regex_iter *it) {
    pcre2_match_data_free(it->match);
    it->match = NULL;
}

peft_status pf_regex_next(pf_regex_iter *it, bool *found, uint32_t *begin, uint32_t *end,
                          peft_error *err) {
    for (;;) {
        *found = false;
        if (it->at > it->n) return PEFT_OK;
        PF_TRY(find(it, found, begin, end, err));
        if (!*found) return PEFT_OK;
        bool repeat = *begin == *end && it->any && it->last_end == *end;
        it->any = true;
        it->last_end = it->at = *end;
        if (*begin == *end) it->at += *end < it->n ? pf_u8_len(it->text + *end) : 1;
        if (!repeat) return PEFT_OK;
    }
}
