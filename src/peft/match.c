/* match.c - module names against lists and patterns; see match.h. */
#include "peft/match.h"

#include "base/buf.h"
#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string.h>

#define MATCH_LIMIT 200000 /* backtracking steps; module names need a few hundred */
#define DEPTH_LIMIT 2000
#define HEAP_LIMIT  4096 /* KiB */
#define MAX_PATTERN 4096 /* bytes */

struct pf_pattern {
    pcre2_general_context *memory;
    pcre2_match_context *limits;
    pcre2_code *code;
    pcre2_match_data *match;
    char *key, *text; /* for messages */
};

static void *pcre_malloc(size_t n, void *ctx) {
    (void)ctx;
    return pf_malloc(n);
}

static void pcre_free(void *p, void *ctx) {
    (void)ctx;
    pf_free(p);
}

static char *copy_text(const char *s) {
    size_t n = strlen(s) + 1;
    char *c = pf_malloc(n);
    if (c != NULL) memcpy(c, s, n);
    return c;
}

static void describe_pcre_error(int code, char *out, size_t n) {
    if (pcre2_get_error_message(code, (PCRE2_UCHAR *)out, n) < 0 && n > 0) out[0] = 0;
}

static peft_status compile(pf_pattern *p, const char *full, size_t skip, bool whole,
                           peft_error *err) {
    uint32_t options =
        PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C | (whole ? PCRE2_ENDANCHORED : 0);
    int code;
    size_t at;
    pcre2_compile_context *cc = pcre2_compile_context_create(p->memory);
    if (cc == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    p->code = pcre2_compile((PCRE2_SPTR)full, PCRE2_ZERO_TERMINATED, options, &code, &at, cc);
    pcre2_compile_context_free(cc);
    if (p->code == NULL) {
        char what[160];
        describe_pcre_error(code, what, sizeof what);
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: '%s' is not a regular expression: %s, at character %zu", p->key,
                       p->text, what, at > skip ? at - skip : 0);
    }
    p->match = pcre2_match_data_create_from_pattern(p->code, p->memory);
    if (p->match == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return PEFT_OK;
}

peft_status pf_pattern_new(pf_pattern **out, const char *key, const char *before, const char *text,
                           const char *after, bool whole, peft_error *err) {
    *out = NULL;
    if (strlen(text) > MAX_PATTERN) {
        return PF_FAIL(err, PEFT_E_CONFIG, "%s: a pattern of %zu bytes is too long; %d is the most",
                       key, strlen(text), MAX_PATTERN);
    }
    pf_pattern *p = pf_calloc(1, sizeof *p);
    PF_CHECK_ALLOC(p, err);
    peft_status status = PEFT_E_NOMEM;
    pf_buf full = {0};
    pf_buf_addf(&full, "%s%s%s", before, text, after);
    p->key = copy_text(key);
    p->text = copy_text(text);
    p->memory = pcre2_general_context_create(pcre_malloc, pcre_free, NULL);
    p->limits = p->memory == NULL ? NULL : pcre2_match_context_create(p->memory);
    if (p->key == NULL || p->text == NULL || p->limits == NULL || !pf_buf_ok(&full)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    } else {
        pcre2_set_match_limit(p->limits, MATCH_LIMIT);
        pcre2_set_depth_limit(p->limits, DEPTH_LIMIT);
        pcre2_set_heap_limit(p->limits, HEAP_LIMIT);
        status = compile(p, pf_buf_str(&full), strlen(before), whole, err);
    }
    pf_buf_free(&full);
    if (status == PEFT_OK) {
        *out = p;
    } else {
        pf_pattern_free(p);
    }
    return status;
}

void pf_pattern_free(pf_pattern *p) {
    if (p == NULL) return;
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->limits);
    pcre2_general_context_free(p->memory);
    pf_free(p->key);
    pf_free(p->text);
    pf_free(p);
}

peft_status pf_pattern_match(const pf_pattern *p, const char *subject, bool *hit, int64_t *number,
                             peft_error *err) {
    int n =
        pcre2_match(p->code, (PCRE2_SPTR)subject, PCRE2_ZERO_TERMINATED, 0, 0, p->match, p->limits);
    *hit = n >= 0;
    if (number != NULL) *number = -1;
    if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
        char what[160];
        describe_pcre_error(n, what, sizeof what);
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: '%s' cannot be matched against %s: %s. Write the pattern with fewer "
                       "nested repeats",
                       p->key, p->text, subject, what);
    }
    if (*hit && number != NULL && n > 1) {
        const size_t *at = pcre2_get_ovector_pointer(p->match);
        char digits[32];
        size_t len = at[3] - at[2];
        if (at[2] != PCRE2_UNSET && len > 0 && len < sizeof digits) {
            memcpy(digits, subject + at[2], len);
            digits[len] = 0;
            if (!pf_parse_int(digits, number)) *number = -1;
        }
    }
    return PEFT_OK;
}

bool pf_path_has_suffix(const char *path, const char *name) {
    size_t n = strlen(path), k = strlen(name);
    if (k > n || strcmp(path + n - k, name) != 0) return false;
    return k == n || path[n - k - 1] == '.';
}
