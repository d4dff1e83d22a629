/* Text scores against sacrebleu, Python's str methods and SQuAD's script: fixtures of
 * tools/make_bleu_fixtures.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "train/text_metrics.h"
#include "train/text_norm.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static json_t *fixture;

static int load(void **state) {
    (void)state;
    json_error_t e;
    fixture = json_load_file(TEST_SOURCE_DIR "/tests/golden/metrics/text_metrics.json",
                             JSON_ALLOW_NUL, &e);
    if (fixture == NULL) print_error("fixture: %s\n", e.text);
    return fixture == NULL ? -1 : 0;
}

static int unload(void **state) {
    (void)state;
    json_decref(fixture);
    return 0;
}

static pf_str text_of(const json_t *v) {
    return (pf_str){json_string_value(v), json_string_length(v)};
}

static double real(const json_t *obj, const char *key) {
    return json_number_value(json_object_get(obj, key));
}

static void tokens_equal_sacrebleu(void **state) {
    (void)state;
    size_t i;
    json_t *pair;
    pf_buf out = {0};
    json_array_foreach(json_object_get(fixture, "tokens"), i, pair) {
        pf_str want = text_of(json_array_get(pair, 1));
        pf_bleu_tokenize(&out, text_of(json_array_get(pair, 0)));
        if (out.len != want.n || memcmp(pf_buf_str(&out), want.p, want.n) != 0) {
            fail_msg("tokens of text %zu: '%s', expected '%s'", i, pf_buf_str(&out), want.p);
        }
    }
    assert_true(i > 200);
    pf_buf_free(&out);
}

static void corpora_equal_the_references(void **state) {
    (void)state;
    size_t i;
    json_t *corpus;
    json_array_foreach(json_object_get(fixture, "corpora"), i, corpus) {
        const char *name = json_string_value(json_object_get(corpus, "name"));
        pf_text_metrics m = {0};
        size_t k;
        json_t *row;
        json_array_foreach(json_object_get(corpus, "rows"), k, row) {
            assert_int_equal(pf_text_metrics_add(&m, text_of(json_array_get(row, 0)),
                                                 text_of(json_array_get(row, 1)), NULL),
                             PEFT_OK);
        }
        for (int n = 0; n < PF_BLEU_ORDER; n++) {
            json_t *counts = json_object_get(corpus, "counts");
            json_t *totals = json_object_get(corpus, "totals");
            if (m.bleu.correct[n] != json_integer_value(json_array_get(counts, (size_t)n)) ||
                m.bleu.total[n] != json_integer_value(json_array_get(totals, (size_t)n))) {
                fail_msg("%s: order %d has %lld of %lld", name, n + 1, (long long)m.bleu.correct[n],
                         (long long)m.bleu.total[n]);
            }
        }
        pf_text_scores s = pf_text_metrics_result(&m);
        pf_bleu_score b = pf_bleu_result(&m.bleu);
        assert_int_equal(m.bleu.sys_len, json_integer_value(json_object_get(corpus, "sys_len")));
        assert_int_equal(m.bleu.ref_len, json_integer_value(json_object_get(corpus, "ref_len")));
        if (!(fabs(s.bleu - real(corpus, "bleu")) < 1e-9) ||
            !(fabs(b.brevity_penalty - real(corpus, "bp")) < 1e-12)) {
            fail_msg("%s: BLEU %.17g, expected %.17g", name, s.bleu, real(corpus, "bleu"));
        }
        if (!(fabs(s.exact_match - real(corpus, "exact_match")) < 1e-9)) {
            fail_msg("%s: exact match %.17g, expected %.17g", name, s.exact_match,
                     real(corpus, "exact_match"));
        }
        if (!(fabs(s.f1 - real(corpus, "f1")) < 1e-9)) {
            fail_msg("%s: F1 %.17g, expected %.17g", name, s.f1, real(corpus, "f1"));
        }
    }
    assert_true(i > 60);
}

static bool unassigned(uint32_t cp) {
    static size_t at; /* code points come in order */
    json_t *ranges = json_object_get(fixture, "unassigned");
    if (cp == 0) at = 0;
    for (; at < json_array_size(ranges); at++) {
        json_t *r = json_array_get(ranges, at);
        if (cp < json_integer_value(json_array_get(r, 0))) return false;
        if (cp <= json_integer_value(json_array_get(r, 1))) return true;
    }
    return false;
}

static void lower_equals_python_for_every_code_point(void **state) {
    (void)state;
    pf_sha256 *all = pf_sha256_new(), *final = pf_sha256_new(), *middle = pf_sha256_new();
    pf_buf text = {0}, low = {0};
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        if ((cp >= 0xD800 && cp < 0xE000) || unassigned(cp)) continue;
        char c[5] = {0};
        size_t n = (size_t)pf_utf8_encode(cp, c);
        for (int kind = 0; kind < 3; kind++) {
            pf_buf_clear(&text);
            pf_buf_clear(&low);
            if (kind == 1) pf_buf_addc(&text, 'A');
            pf_buf_add(&text, c, n);
            if (kind == 1) pf_buf_adds(&text, "\xCE\xA3");
            if (kind == 1) pf_buf_add(&text, c, n);
            if (kind == 2) {
                pf_buf_adds(&text, "\xCE\xA3 A\xCE\xA3");
                pf_buf_add(&text, c, n);
                pf_buf_addc(&text, 'b');
            }
            pf_text_lower(&low, (pf_str){text.data, text.len});
            pf_sha256_add(kind == 0 ? all : kind == 1 ? final : middle, low.data, low.len);
        }
    }
    char hex[PF_SHA256_HEX];
    pf_sha256_hex(all, hex);
    assert_string_equal(hex, json_string_value(json_object_get(fixture, "lower_sha256")));
    pf_sha256_hex(final, hex);
    assert_string_equal(hex, json_string_value(json_object_get(fixture, "final_sigma_sha256")));
    pf_sha256_hex(middle, hex);
    assert_string_equal(hex, json_string_value(json_object_get(fixture, "middle_sigma_sha256")));
    pf_sha256_free(all);
    pf_sha256_free(final);
    pf_sha256_free(middle);
    pf_buf_free(&text);
    pf_buf_free(&low);
}

static void spaces_equal_python(void **state) {
    (void)state;
    json_t *spaces = json_object_get(fixture, "spaces");
    size_t at = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        bool want = at < json_array_size(spaces) &&
                    json_integer_value(json_array_get(spaces, at)) == (json_int_t)cp;
        if (want) at++;
        if (pf_text_is_space(cp) != want) fail_msg("U+%04X", cp);
    }
    assert_int_equal(at, json_array_size(spaces));
}

static void bytes_that_are_not_utf8(void **state) {
    (void)state;
    /* each such byte is a character that is neither space nor letter; it is compared as it is */
    bool same;
    pf_exact_match((pf_str){"\xFF"
                            "A \x80\n",
                            5},
                   (pf_str){" \xFF"
                            "a \x80",
                            5},
                   &same, NULL);
    assert_true(same);
    pf_exact_match(pf_str_of("\xFF"), pf_str_of("\xFE"), &same, NULL);
    assert_false(same);
    pf_buf out = {0};
    pf_bleu_tokenize(&out, pf_str_of("\xC3.\xA9 a\xF0\x9F\x98"));
    assert_string_equal(pf_buf_str(&out), "\xC3 . \xA9 a\xF0\x9F\x98");
    pf_buf_free(&out);
}

static void no_rows_have_no_score(void **state) {
    (void)state;
    pf_text_metrics m = {0};
    pf_text_scores s = pf_text_metrics_result(&m);
    assert_true(isnan(s.exact_match) && isnan(s.f1) && isnan(s.bleu));
    assert_int_equal(s.rows, 0);
}

static void long_rows_take_linear_time(void **state) {
    (void)state;
    size_t n = 1 << 20;
    char *text = pf_malloc(n);
    assert_non_null(text);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t i = 0; i < n; i++)
            text[i] = kind == 0 ? 'a' : kind == 1 ? "a "[i % 2] : "\xCE\xA3"[i % 2];
        pf_text_metrics m = {0};
        assert_int_equal(pf_text_metrics_add(&m, (pf_str){text, n}, (pf_str){text, n}, NULL),
                         PEFT_OK);
        assert_int_equal(m.exact, 1);
    }
    pf_free(text);
}

static void every_failed_allocation_is_reported(void **state) {
    (void)state;
    pf_str a = pf_str_of("the Cat sat on the mat."), b = pf_str_of("a cat sat on a mat");
    for (int n = 1;; n++) {
        pf_text_metrics m = {0};
        pf_alloc_fail_at(n);
        peft_status status = pf_text_metrics_add(&m, a, b, NULL);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) {
            assert_true(n > 5);
            break;
        }
        assert_int_equal(status, PEFT_E_NOMEM);
        assert_int_equal(m.rows, 0);
        assert_int_equal(m.bleu.sys_len, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_equal_sacrebleu),
        cmocka_unit_test(corpora_equal_the_references),
        cmocka_unit_test(lower_equals_python_for_every_code_point),
        cmocka_unit_test(spaces_equal_python),
        cmocka_unit_test(bytes_that_are_not_utf8),
        cmocka_unit_test(no_rows_have_no_score),
        cmocka_unit_test(long_rows_take_linear_time),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
