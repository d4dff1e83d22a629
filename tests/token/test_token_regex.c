/* test_token_regex.c - patterns of Oniguruma's dialect: translation, matches, limits; and the
 * hand-written patterns against the regular expressions they stand for. */
#include "token_util.h"

#include "token/split_pattern.h"
#include "token/token_regex.h"
#include "token/unicode_class.h"

static void test_translation(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"a{,3}", "a{0,3}"},
        {"ab{1,3}+c", "a(?:b{1,3})+c"},
        {"(x|y){2}+", "(?:(x|y){2})+"},
        {"(?mi:.)", "(?si:.)"},
        {"a{b", "a\\{b"},
        {"\\h+", "[0-9A-Fa-f]+"},
        {"[a[bc]d]", "[abcd]"},
        {"[]a]", "[\\]a]"},
        {"\\u00e9", "\\x{00e9}"},
        {"\\v", "\\x0b"},
        {"\\Q", NULL},
        {"[a&&b]", NULL},
        {"[a[^b]]", NULL},
        {"(a", NULL},
        {"a)", NULL},
        {"[a", NULL},
        {"\\p{L", NULL},
        {"\\", NULL},
        {"(?<n>a)\\k<n>", NULL},
        {"(?#c)", NULL},
        {"[[:alpha:]x]", NULL},
        {"\\!", "\\!"},
        {"\\i", "i"},
        {"\\R", "\\R"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_buf out = {0};
        peft_status status = pf_regex_translate(&out, cases[i].from, strlen(cases[i].from), NULL);
        assert_int_equal(status, cases[i].to == NULL ? PEFT_E_UNSUPPORTED : PEFT_OK);
        if (cases[i].to != NULL) assert_string_equal(pf_buf_str(&out), cases[i].to);
        pf_buf_free(&out);
    }
}

static void matches(const char *pattern, const char *text, const char *want) {
    pf_regex *r = NULL;
    pf_regex_iter it;
    peft_error err = {0};
    pf_buf got = {0};
    bool found;
    uint32_t begin, end;
    if (pf_regex_new(&r, pattern, strlen(pattern), false, "test", &err) != PEFT_OK)
        fail_msg("%s", err.message);
    pf_regex_begin(&it, r, text, (uint32_t)strlen(text));
    while (pf_regex_next(&it, &found, &begin, &end, &err) == PEFT_OK && found)
        pf_buf_addf(&got, "%s%.*s", begin == 0 && got.len == 0 ? "" : "|", (int)(end - begin),
                    text + begin);
    pf_regex_end(&it);
    assert_string_equal(pf_buf_str(&got), want);
    pf_buf_free(&got);
    pf_regex_free(r);
}

static void test_matches(void **state) {
    (void)state;
    matches("\\s",
            "a\xe1\xa0\x8e"
            "b c",
            "| "); /* U+180E is no white space */
    matches("\\p{L}+", "x\xf0\x90\xb5\x90y",
            "x\xf0\x90\xb5\x90y");   /* U+10D50, a letter since Unicode 16 */
    matches("^b$", "a\nb\nc", "|b"); /* lines */
    matches("x*", "axxb", "|xx|");   /* where a match ended no empty one follows */
    matches("[[:space:]x]+", "ax\xc2\x85 b", "|x\xc2\x85 ");
    matches("\\w+", "a\xe2\x85\xa7_ \xe2\x80\x8d", "a\xe2\x85\xa7_");
    matches("(?i:s)", "S\xc5\xbf", "S|\xc5\xbf");
}

/* Patterns that backtrack without end come back with an error. */
static void test_limit(void **state) {
    (void)state;
    pf_regex *r = NULL;
    pf_regex_iter it;
    peft_error err = {0};
    bool found;
    uint32_t begin, end;
    static char text[64];
    memset(text, 'a', 40);
    assert_int_equal(pf_regex_new(&r, "(a+)+(a+)+(?=[bc])", 18, false, "test", &err), PEFT_OK);
    pf_regex_begin(&it, r, text, 40);
    assert_int_equal(pf_regex_next(&it, &found, &begin, &end, &err), PEFT_E_FORMAT);
    assert_non_null(
        strstr(err.message, "a pattern of the tokenizer gave up at byte 0 of the text"));
    pf_regex_end(&it);
    pf_regex_free(r);
    assert_int_equal(pf_regex_new(&r, "(?<=a+)b", 8, false, "here", &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "here: pattern \"(?<=a+)b\": "));
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Every hand-written pattern cuts random text as PCRE2 does with the expression it stands for. */
static void test_by_hand(void **state) {
    (void)state;
    static const char *const patterns[] = {pf_gpt2_pattern, pf_llama3_pattern, pf_qwen_pattern};
    static const char *const parts[] = {"a",
                                        "B",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\r",
                                        "\t",
                                        "'",
                                        "s",
                                        "ll",
                                        "Re",
                                        "1",
                                        "23",
                                        "!",
                                        "?.",
                                        "\xc3\xa9",
                                        "\xe4\xb8\xad",
                                        "\xc2\xa0",
                                        "\xe3\x80\x80",
                                        "\xf0\x9f\x99\x82",
                                        "\xcc\x81",
                                        "\xd9\xa3",
                                        "\xc2\xbd",
                                        "\xe1\xa0\x8e",
                                        "\xf0\x90\xb5\x90",
                                        "\xc5\xbf",
                                        "\xe2\x80\xa8",
                                        "\x0b"};
    uint32_t seed = 1;
    for (size_t k = 0; k < PF_COUNT(patterns); k++) {
        pf_split_fn fn = pf_split_pattern_find(patterns[k], strlen(patterns[k]));
        pf_regex *r = NULL;
        assert_non_null(fn);
        assert_int_equal(pf_regex_new(&r, patterns[k], strlen(patterns[k]), false, "test", NULL),
                         PEFT_OK);
        for (int i = 0; i < 3000; i++) {
            pf_buf text = {0};
            for (uint32_t n = 1 + next_random(&seed) % 14; n > 0; n--) {
                if (next_random(&seed) % 4 != 0) {
                    pf_buf_adds(&text, parts[next_random(&seed) % PF_COUNT(parts)]);
                } else {
                    uint32_t cp = next_random(&seed) % 0x110000;
                    char utf8[4];
                    if (cp >= 0xd800 && cp <= 0xdfff) continue;
                    pf_buf_add(&text, utf8, (size_t)pf_utf8_encode(cp, utf8));
                }
            }
            pf_regex_iter it;
            bool found;
            uint32_t begin, end, at = 0;
            pf_regex_begin(&it, r, pf_buf_str(&text), (uint32_t)text.len);
            while (at < text.len) {
                assert_int_equal(pf_regex_next(&it, &found, &begin, &end, NULL), PEFT_OK);
                assert_true(found && begin == at);
                uint32_t mine = fn(text.data, (uint32_t)text.len, at);
                if (mine != end)
                    fail_msg("pattern %zu at byte %u of \"%s\": %u, not %u", k, at, text.data, mine,
                             end);
                at = end;
            }
            pf_regex_end(&it);
            pf_buf_free(&text);
        }
        pf_regex_free(r);
    }
    assert_null(pf_split_pattern_find("x", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_translation),
                                       cmocka_unit_test(test_matches), cmocka_unit_test(test_limit),
                                       cmocka_unit_test(test_by_hand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
