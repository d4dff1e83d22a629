/* test_str.c - slices, nearest names, numbers, sizes and UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/str.h"

static void slices_compare_and_trim(void **state) {
    (void)state;
    assert_true(pf_str_eq(pf_str_of("abc"), (pf_str){"abcd", 3}));
    assert_false(pf_str_eq(pf_str_of("abc"), pf_str_of("abd")));
    assert_false(pf_str_eq(pf_str_of("abc"), pf_str_of("ab")));
    assert_true(pf_str_eq((pf_str){NULL, 0}, (pf_str){"x", 0}));
    assert_true(pf_streq(NULL, NULL));
    assert_false(pf_streq(NULL, ""));
    assert_false(pf_streq("", NULL));
    assert_true(pf_streq("a", "a"));
    assert_true(pf_starts_with("training.lr", "training."));
    assert_false(pf_starts_with("tr", "training"));
    assert_true(pf_starts_with("x", ""));
    assert_true(pf_ends_with("model.safetensors", ".safetensors"));
    assert_false(pf_ends_with("tensors", ".safetensors"));
    assert_true(pf_ends_with("x", ""));
    pf_str t = pf_str_trim(pf_str_of(" \t\r\n a b \v\f"));
    assert_int_equal(t.n, 3);
    assert_memory_equal(t.p, "a b", 3);
    assert_int_equal(pf_str_trim(pf_str_of(" \n ")).n, 0);
    assert_int_equal(pf_str_trim((pf_str){NULL, 0}).n, 0);
}

static void lists_grow_and_survive_failure(void **state) {
    (void)state;
    for (int n = 0; n < 6; n++) { /* 0: no failure */
        pf_arena a;
        pf_arena_init(&a, "test");
        pf_strlist l = {0};
        peft_error err = {0};
        pf_alloc_fail_at(n);
        int added = 0, failed = 0;
        for (int i = 0; i < 3000; i++) {
            char name[16];
            snprintf(name, sizeof name, "n%d", i);
            peft_status s = pf_strlist_add(&l, &a, name, &err);
            if (s == PEFT_OK)
                added++;
            else {
                assert_int_equal(s, PEFT_E_NOMEM);
                failed++;
            }
        }
        pf_alloc_fail_at(0);
        assert_int_equal(l.n, added);
        assert_int_equal(failed, n == 0 ? 0 : 1);
        assert_true(pf_strlist_has(&l, "n2999"));
        assert_false(pf_strlist_has(&l, "n3000"));
        pf_arena_release(&a);
    }
}

static void nearest_names_are_near(void **state) {
    (void)state;
    static const char *const keys[] = {
        "learning_rate", "num_train_epochs", "max_steps", "r",
        "alpha",         "target_modules",   NULL,        "lora_dropout"};
    int n = (int)(sizeof keys / sizeof *keys);
    static const struct {
        const char *name;
        int expected;
    } rows[] = {{"learning_rate", 0}, {"learnig_rate", 0},  {"Learning_Rate", 0},
                {"leanring_rate", 0}, {"num_epochs", 1},    {"train-num-epochs", 1},
                {"epochs", 1},        {"lora_alpha", 4},    {"max_step", 2},
                {"aplha", 4},         {"target_module", 5}, {"targetmodules", 5},
                {"dropout", 7},       {"zzzzzz", -1},       {"", -1},
                {"optimizer", -1},    {"learning-rates", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (pf_nearest(rows[i].name, keys, n) != rows[i].expected)
            print_message("%s\n", rows[i].name);
        assert_int_equal(pf_nearest(rows[i].name, keys, n), rows[i].expected);
    }
    assert_int_equal(pf_nearest("x", NULL, 0), -1);
    /* very long names are compared by their ends, without running out of the table */
    char long_a[400], long_b[400];
    memset(long_a, 'a', sizeof long_a);
    memset(long_b, 'b', sizeof long_b);
    snprintf(long_a + 300, 100, "model.layers.11.self_attn.q_proj");
    snprintf(long_b + 300, 100, "model.layers.11.self_attn.q_proj");
    const char *one[] = {long_b};
    assert_int_equal(pf_nearest(long_a, one, 1), -1); /* 64 of 96 letters differ */
    const char *same[] = {long_a};
    assert_int_equal(pf_nearest(long_a, same, 1), 0);
}

static void integers_are_whole_strings(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int ok;
        int64_t value;
    } rows[] = {{"0", 1, 0},
                {"-1", 1, -1},
                {"+7", 1, 7},
                {"1_000", 1, 1000},
                {"9223372036854775807", 1, INT64_MAX},
                {"-9223372036854775808", 1, INT64_MIN},
                {"9223372036854775808", 0, 0},
                {"", 0, 0},
                {"-", 0, 0},
                {"1.0", 0, 0},
                {"1e3", 0, 0},
                {"0x10", 0, 0},
                {" 1", 0, 0},
                {"1 ", 0, 0},
                {"_1", 0, 0},
                {"1_", 0, 0},
                {"1__0", 0, 0},
                {"--1", 0, 0},
                {"one", 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t v = 12345;
        assert_int_equal(pf_parse_int(rows[i].text, &v), rows[i].ok);
        assert_int_equal(v, rows[i].ok ? rows[i].value : 12345);
    }
    char digits[200];
    memset(digits, '9', sizeof digits - 1);
    digits[sizeof digits - 1] = '\0';
    int64_t v;
    assert_false(pf_parse_int(digits, &v));
}

static void numbers_are_finite_whole_strings(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int ok;
        double value;
    } rows[] = {{"2e-4", 1, 2e-4},   {"1_000.5", 1, 1000.5}, {".5", 1, 0.5},  {"-3", 1, -3},
                {"1E5", 1, 1e5},     {"1.", 1, 1},           {"nan", 0, 0},   {"inf", 0, 0},
                {"-Infinity", 0, 0}, {"1e999", 0, 0},        {"0x1p3", 0, 0}, {"", 0, 0},
                {".", 0, 0},         {"e5", 0, 0},           {"1e", 0, 0},    {"1,5", 0, 0},
                {"1 5", 0, 0},       {"--5", 0, 0},          {"1.2.3", 0, 0}, {"_1", 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double v = 99;
        assert_int_equal(pf_parse_float(rows[i].text, &v), rows[i].ok);
        assert_true(v == (rows[i].ok ? rows[i].value : 99));
    }
}

static void numbers_do_not_follow_the_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    const char *got = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && got == NULL; i++)
        got = setlocale(LC_ALL, names[i]);
    if (got == NULL) {
        print_message("skipped: no locale with a decimal comma is installed\n");
        skip();
    }
    double v;
    assert_true(pf_parse_float("1.5", &v));
    assert_true(v == 1.5);
    setlocale(LC_ALL, "C");
}

static void sizes_have_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int ok;
        uint64_t value;
    } rows[] = {{"0", 1, 0},
                {"100", 1, 100},
                {"7G", 1, 7ull << 30},
                {"7g", 1, 7ull << 30},
                {"512MiB", 1, 512ull << 20},
                {"1.5GB", 1, 1500000000},
                {"1.5 GB", 1, 1500000000},
                {"2TiB", 1, 2ull << 40},
                {"3kb", 1, 3000},
                {"3k", 1, 3072},
                {"1_000 b", 1, 1000},
                {"", 0, 0},
                {"G", 0, 0},
                {"-1G", 0, 0},
                {"1e3", 0, 0},
                {"7 Gs", 0, 0},
                {"99999999999T", 0, 0},
                {"1.2.3G", 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v = 77;
        assert_int_equal(pf_parse_size(rows[i].text, &v), rows[i].ok);
        assert_true(v == (rows[i].ok ? rows[i].value : 77));
    }
}

static void bytes_are_printed_short(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(pf_format_bytes(0, out, sizeof out), "0 B");
    assert_string_equal(pf_format_bytes(1023, out, sizeof out), "1023 B");
    assert_string_equal(pf_format_bytes(1024, out, sizeof out), "1.0 KiB");
    assert_string_equal(pf_format_bytes(1536, out, sizeof out), "1.5 KiB");
    assert_string_equal(pf_format_bytes(1024 * 1024 - 1, out, sizeof out), "1.0 MiB");
    assert_string_equal(pf_format_bytes(250.0 * (1 << 20), out, sizeof out), "250 MiB");
    assert_string_equal(pf_format_bytes(9.1 * (1 << 30), out, sizeof out), "9.1 GiB");
    assert_true(strlen(pf_format_bytes(1e300, out, 16)) < 16);
}

/* Table 3-7 of the Unicode standard, the first and last of each row and their neighbours. */
static void utf8_follows_the_standard(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        int len;
        uint32_t cp;
    } rows[] = {{"A", 1, 'A'},
                {"\x7F", 1, 0x7F},
                {"\xC2\x80", 2, 0x80},
                {"\xDF\xBF", 2, 0x7FF},
                {"\xE0\xA0\x80", 3, 0x800},
                {"\xED\x9F\xBF", 3, 0xD7FF},
                {"\xEE\x80\x80", 3, 0xE000},
                {"\xEF\xBF\xBF", 3, 0xFFFF},
                {"\xF0\x90\x80\x80", 4, 0x10000},
                {"\xF4\x8F\xBF\xBF", 4, 0x10FFFF},
                {"\x80", 0, 0},
                {"\xBF", 0, 0},
                {"\xC0\x80", 0, 0},         /* overlong NUL */
                {"\xC1\xBF", 0, 0},         /* overlong */
                {"\xE0\x9F\xBF", 0, 0},     /* overlong */
                {"\xED\xA0\x80", 0, 0},     /* surrogate */
                {"\xED\xBF\xBF", 0, 0},     /* surrogate */
                {"\xF0\x8F\xBF\xBF", 0, 0}, /* overlong */
                {"\xF4\x90\x80\x80", 0, 0}, /* above U+10FFFF */
                {"\xF5\x80\x80\x80", 0, 0},
                {"\xFF", 0, 0},
                {"\xC2", 0, 0}, /* cut off */
                {"\xE0\xA0", 0, 0},
                {"\xF0\x90\x80", 0, 0},
                {"\xC2\x41", 0, 0},
                {"\xE1\x80\x41", 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t cp = 0;
        assert_int_equal(pf_utf8_decode(rows[i].bytes, strlen(rows[i].bytes), &cp), rows[i].len);
        assert_int_equal(cp, rows[i].cp);
    }
    uint32_t cp;
    assert_int_equal(pf_utf8_decode("", 0, &cp), 0);
    assert_int_equal(pf_utf8_decode("\0", 1, &cp), 1);
}

static void utf8_round_trips(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        if (cp == 0xD800) cp = 0xE000;
        char out[4];
        uint32_t back = 0;
        int n = pf_utf8_encode(cp, out);
        assert_int_equal(pf_utf8_decode(out, (size_t)n, &back), n);
        assert_int_equal(back, cp);
        if (n > 1) assert_int_equal(pf_utf8_decode(out, (size_t)n - 1, &back), 0);
    }
    size_t bad = 99;
    assert_true(pf_utf8_valid("a\xC3\xA9\xE2\x82\xAC", 6, &bad));
    assert_false(pf_utf8_valid("a\xC3\xA9\xE2\x82", 5, &bad));
    assert_int_equal(bad, 3);
    assert_false(pf_utf8_valid("\xFF", 1, NULL));
    assert_true(pf_utf8_valid("", 0, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_compare_and_trim),
        cmocka_unit_test(lists_grow_and_survive_failure),
        cmocka_unit_test(nearest_names_are_near),
        cmocka_unit_test(integers_are_whole_strings),
        cmocka_unit_test(numbers_are_finite_whole_strings),
        cmocka_unit_test(numbers_do_not_follow_the_locale),
        cmocka_unit_test(sizes_have_units),
        cmocka_unit_test(bytes_are_printed_short),
        cmocka_unit_test(utf8_follows_the_standard),
        cmocka_unit_test(utf8_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
