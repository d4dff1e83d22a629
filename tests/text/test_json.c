/* test_json.c - reading with limits and positions, typed members, and Python's layout when writing.
 */
#include "base/file.h"
#include "text/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static json_t *parse(const char *text) {
    json_t *v = NULL;
    peft_error err = {0};
    if (pf_json_parse(&v, text, strlen(text), "t.json", &err) != PEFT_OK)
        fail_msg("%s", err.message);
    return v;
}

static void expect_error(const char *text, size_t n, const char *message) {
    json_t *v = NULL;
    peft_error err = {0};
    assert_int_equal(pf_json_parse(&v, text, n, "t.json", &err), PEFT_E_FORMAT);
    assert_null(v);
    assert_string_equal(err.message, message);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.json:1:1: not valid JSON: the text is empty"},
        {"{\"a\": 1,\n  \"a\": 2}",
         "t.json:2:5: not valid JSON: duplicate object key near '\"a\"'"},
        {"{\"a\": 1\n", "t.json:2:1: not valid JSON: '}' expected near end of file"},
        {"[1] 2", "t.json:1:5: not valid JSON: end of file expected near '2'"},
        {"[1e999]", "t.json:1:6: not valid JSON: real number overflow near '1e999'"},
        {"[NaN]", "t.json:1:4: not valid JSON: invalid token near 'NaN'"},
        {"{\"\\u0000\": 1}",
         "t.json:1:9: not valid JSON: NUL byte in object key not supported near '\"\\u0000\"'"},
        {"[\"\\ud800\"]",
         "t.json:1:9: not valid JSON: invalid Unicode '\\uD800' near '\"\\ud800\"'"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++)
        expect_error(cases[i].text, strlen(cases[i].text), cases[i].message);
}

static void test_hostile_bytes(void **state) {
    (void)state;
    json_t *v = NULL;
    peft_error err = {0};
    assert_int_equal(pf_json_parse(&v, "[\"\xff\"]", 5, "t.json", &err), PEFT_E_FORMAT);
    /* no byte of the input that a terminal would act on comes back */
    assert_int_equal(pf_json_parse(&v, "{\x1b[2J", 5, "t.json", &err), PEFT_E_FORMAT);
    assert_null(strchr(err.message, 0x1b));
    size_t n = 100000;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '[', n);
    assert_int_equal(pf_json_parse(&v, deep, n, "t.json", &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "maximum parsing depth"));
    free(deep);
}

static void test_numbers_read(void **state) {
    (void)state;
    json_t *v = parse("\xef\xbb\xbf{\"max\": 9223372036854775807, \"min\": -9223372036854775808,"
                      "\"big\": 1000000000000000019884624838656, \"neg\": -9223372036854775809,"
                      "\"text\": \"1000000000000000019884624838656 \\\" 99999999999999999999\","
                      "\"real\": 0.1234567890123456789012, \"exp\": 1.5e-12, \"f\": 512.0}");
    assert_true(json_integer_value(json_object_get(v, "max")) == INT64_MAX);
    assert_true(json_integer_value(json_object_get(v, "min")) == INT64_MIN);
    assert_true(json_is_real(json_object_get(v, "big")));
    assert_true(fabs(json_real_value(json_object_get(v, "big")) / 1e30 - 1) < 1e-14);
    assert_true(fabs(json_real_value(json_object_get(v, "neg")) / -9223372036854775809.0 - 1) <
                1e-12);
    assert_string_equal(json_string_value(json_object_get(v, "text")),
                        "1000000000000000019884624838656 \" 99999999999999999999");
    assert_true(json_real_value(json_object_get(v, "real")) == 0.1234567890123456789012);
    assert_true(json_real_value(json_object_get(v, "exp")) == 1.5e-12);
    int64_t i = 0;
    peft_error err = {0};
    assert_int_equal(pf_json_get_int(v, "t.json", "f", 1, 1024, &i, &err), PEFT_OK);
    assert_int_equal(i, 512);
    assert_int_equal(pf_json_get_int(v, "t.json", "big", 0, INT64_MAX, &i, &err), PEFT_E_FORMAT);
    json_decref(v);
}

static void test_members(void **state) {
    (void)state;
    json_t *v =
        parse("{\"n\": 7, \"s\": \"text\", \"z\": null, \"b\": true, \"r\": 2.5, \"a\": [1],"
              "\"o\": {}, \"nul\": \"a\\u0000b\"}");
    peft_error err = {0};
    int64_t i = 0;
    double d = 0;
    bool b = false;
    const char *s = NULL;
    const json_t *j = NULL;
    assert_int_equal(pf_json_get_int(v, "c.json", "n", 1, 10, &i, &err), PEFT_OK);
    assert_int_equal(i, 7);
    assert_int_equal(pf_json_opt_int(v, "c.json", "z", 3, 1, 10, &i, &err), PEFT_OK);
    assert_int_equal(i, 3);
    assert_int_equal(pf_json_get_real(v, "c.json", "n", &d, &err), PEFT_OK);
    assert_true(d == 7);
    assert_int_equal(pf_json_opt_real(v, "c.json", "none", 0.5, &d, &err), PEFT_OK);
    assert_true(d == 0.5);
    assert_int_equal(pf_json_get_bool(v, "c.json", "b", &b, &err), PEFT_OK);
    assert_true(b);
    assert_int_equal(pf_json_opt_str(v, "c.json", "s", "def", &s, &err), PEFT_OK);
    assert_string_equal(s, "text");
    assert_int_equal(pf_json_get_array(v, "c.json", "a", &j, &err), PEFT_OK);
    assert_int_equal(pf_json_opt_object(v, "c.json", "none", &j, &err), PEFT_OK);
    assert_null(j);

    assert_int_equal(pf_json_get_int(v, "c.json", "gone", 1, 10, &i, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "c.json: the key \"gone\" is missing");
    assert_int_equal(pf_json_get_int(v, "c.json", "n", 8, 10, &i, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "c.json: \"n\" is 7; it should be between 8 and 10");
    assert_int_equal(pf_json_get_int(v, "c.json", "r", 1, INT64_MAX, &i, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "c.json: \"r\" is 2.5; it should be a whole number");
    assert_int_equal(pf_json_get_real(v, "c.json", "s", &d, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "c.json: \"s\" is \"text\"; it should be a number");
    assert_int_equal(pf_json_get_bool(v, "c.json", "a", &b, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "c.json: \"a\" is a list; it should be true or false");
    assert_int_equal(pf_json_get_str(v, "c.json", "nul", &s, &err), PEFT_E_FORMAT);
    assert_string_equal(
        err.message, "c.json: \"nul\" is \"a\\u0000b\"; it should be text without NUL characters");
    json_t *list = parse("[1]");
    assert_int_equal(pf_json_get_int(list, "c.json", "n", 1, 10, &i, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "c.json: is a list; it should be an object with the key \"n\"");
    json_decref(list);
    json_decref(v);
}

static void test_load(void **state) {
    (void)state;
    peft_error err = {0};
    json_t *v = NULL;
    const char *path = "test_json_load.json";
    assert_int_equal(pf_write_file(path, "{\"a\": [1, 2]}", 13, &err), PEFT_OK);
    assert_int_equal(pf_json_load(&v, path, 1000, &err), PEFT_OK);
    assert_int_equal(json_array_size(json_object_get(v, "a")), 2);
    json_decref(v);
    assert_int_not_equal(pf_json_load(&v, path, 12, &err), PEFT_OK);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(pf_json_load(&v, "no/such.json", 12, &err), PEFT_E_MISSING);
    assert_int_equal(pf_remove_file(path, &err), PEFT_OK);
}

static void test_lines(void **state) {
    (void)state;
    const char *text = "\xef\xbb\xbf{\"a\": 1}\r\n\n  \n{\"a\": \n[2]";
    pf_jsonl r;
    json_t *v = NULL;
    peft_error err = {0};
    pf_jsonl_init(&r, text, strlen(text), "t.jsonl");
    assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_OK);
    assert_int_equal(json_integer_value(json_object_get(v, "a")), 1);
    assert_int_equal(r.line, 1);
    json_decref(v);
    assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "t.jsonl:4:6: not valid JSON: unexpected token near end"));
    assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_OK);
    assert_true(json_is_array(v));
    assert_int_equal(r.line, 5);
    json_decref(v);
    assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_OK);
    assert_null(v);
}

static void test_dump(void **state) {
    (void)state;
    json_t *v = parse("{\"b\": [], \"a\": {\"y\": 1, \"x\": [1.0, 2e-5, true, null]}, \"\\u00e9\": "
                      "\"q\\\"\\\\/\\n\\u0001\\u007f\\u00fc\\ud83d\\ude00\", \"B\": {}}");
    pf_buf out = {0};
    peft_error err = {0};
    assert_int_equal(pf_json_dump(&out, v, 2, PF_JSON_HF, &err), PEFT_OK);
    assert_string_equal(pf_buf_str(&out),
                        "{\n  \"B\": {},\n  \"a\": {\n    \"x\": [\n      1.0,\n      2e-05,\n"
                        "      true,\n      null\n    ],\n    \"y\": 1\n  },\n  \"b\": [],\n"
                        "  \"\\u00e9\": \"q\\\"\\\\/\\n\\u0001\x7f\\u00fc\\ud83d\\ude00\"\n}");
    pf_buf_clear(&out);
    assert_int_equal(pf_json_dump(&out, v, 0, 0, &err), PEFT_OK);
    assert_string_equal(
        pf_buf_str(&out),
        "{\"b\": [], \"a\": {\"y\": 1, \"x\": [1.0, 2e-05, true, null]}, \"\u00e9\": "
        "\"q\\\"\\\\/\\n\\u0001\x7f\u00fc\U0001F600\", \"B\": {}}");
    pf_buf_clear(&out);
    pf_json_add_str(&out, "a\xff\xc3", 3, 0);
    assert_string_equal(pf_buf_str(&out), "\"a\uFFFD\uFFFD\"");
    pf_buf_free(&out);
    json_decref(v);
}

/* What Python prints for the same doubles. */
static void test_reals(void **state) {
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {0.1, "0.1"},
        {2e-4, "0.0002"},
        {1e-4, "0.0001"},
        {1e-5, "1e-05"},
        {-1.5e-7, "-1.5e-07"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {1234567.125, "1234567.125"},
        {0.30000000000000004, "0.30000000000000004"},
        {1.0 / 3, "0.3333333333333333"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {5.684341886080802e-14,
         "5.684341886080802e-14"}, /* 2^-44, where the nearest 16 digits do not do */
        {9007199254740993.0, "9007199254740992.0"},
        {INFINITY, "null"},
        {NAN, "null"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_buf out = {0};
        pf_json_add_real(&out, cases[i].v);
        assert_string_equal(pf_buf_str(&out), cases[i].text);
        if (isfinite(cases[i].v)) assert_true(strtod(pf_buf_str(&out), NULL) == cases[i].v);
        pf_buf_free(&out);
    }
    pf_buf out = {0};
    pf_json_add_float(&out, 0.1f);
    pf_buf_addc(&out, ' ');
    pf_json_add_float(&out, 16777216.0f);
    assert_string_equal(pf_buf_str(&out), "0.1 16777216.0");
    pf_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),  cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_members), cmocka_unit_test(test_numbers_read),
        cmocka_unit_test(test_load),    cmocka_unit_test(test_lines),
        cmocka_unit_test(test_dump),    cmocka_unit_test(test_reals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
