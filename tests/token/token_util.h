/* token_util.h - for tests of token/: the golden files, and a tokenizer from them. */
#ifndef TOKEN_UTIL_H
#define TOKEN_UTIL_H

#include "base/arena.h"
#include "base/file.h"
#include "text/json.h"
#include "token/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/tokenizers/"

static inline json_t *golden(const char *name) {
    char path[512];
    json_t *v = NULL;
    peft_error err = {0};
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (pf_json_load(&v, path, 64u << 20, &err) != PEFT_OK) fail_msg("%s", err.message);
    return v;
}

static inline pf_tokenizer *open_golden(const char *name) {
    char path[512];
    pf_tokenizer *t = NULL;
    peft_error err = {0};
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (pf_tokenizer_open(&t, path, &err) != PEFT_OK) fail_msg("%s", err.message);
    return t;
}

static inline void encode_into(const pf_tokenizer *t, const char *text, size_t n, unsigned flags,
                               pf_encoding *e) {
    peft_error err = {0};
    if (pf_tokenizer_encode(t, text, n, flags, e, &err) != PEFT_OK) fail_msg("%s", err.message);
}

static inline void assert_ids(const pf_encoding *e, const json_t *want, const char *what,
                              const char *text) {
    bool same = e->n == json_array_size(want);
    for (size_t i = 0; same && i < e->n; i++)
        same = e->ids[i] == json_integer_value(json_array_get(want, i));
    if (same) return;
    for (size_t i = 0; i < e->n; i++) print_error("%d ", e->ids[i]);
    fail_msg("%s: other ids for \"%s\"", what, text);
}

static inline void assert_text(const pf_buf *got, const json_t *want, const char *what) {
    if (got->len != json_string_length(want) ||
        memcmp(pf_buf_str(got), json_string_value(want), got->len) != 0)
        fail_msg("%s: \"%s\" instead of \"%s\"", what, pf_buf_str(got), json_string_value(want));
}

#endif
