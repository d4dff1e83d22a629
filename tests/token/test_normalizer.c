/* test_normalizer.c - every kind of normalizer by itself, and the normal forms on hostile text. */
#include "token_util.h"

#include "token/normalizer.h"
#include "token/unicode_form.h"

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden("parts.json");
    const json_t *list = json_object_get(all, "normalizers");
    assert_true(json_array_size(list) > 12);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i), *cases = json_object_get(part, "cases");
        char *what = json_dumps(json_object_get(part, "json"), JSON_COMPACT);
        pf_arena a;
        pf_normalizers z = {0};
        pf_ntext scratch[2] = {{0}, {0}};
        peft_error err = {0};
        pf_arena_init(&a, "test");
        pf_tj json = pf_tj_root(json_object_get(part, "json"), "part", &a);
        if (pf_normalizers_load(&z, json, (pf_str){NULL, 0}, &err) != PEFT_OK)
            fail_msg("%s", err.message);
        for (size_t k = 0; k < json_array_size(cases); k++) {
            const json_t *text = json_array_get(json_array_get(cases, k), 0);
            pf_ntext in = {0};
            const pf_ntext *out;
            assert_int_equal(
                pf_ntext_set(&in, json_string_value(text), json_string_length(text), NULL),
                PEFT_OK);
            assert_int_equal(pf_normalizers_run(&z, &in, scratch, false, &out, NULL), PEFT_OK);
            pf_buf got = {0};
            pf_buf_add(&got, out->text, out->n);
            assert_text(&got, json_array_get(json_array_get(cases, k), 1), what);
            for (uint32_t at = 1; at < out->n; at++) /* places never go back */
                assert_true(out->from[at] >= out->from[at - 1] && out->to[at] <= in.n);
            pf_buf_free(&got);
        }
        pf_ntext_release(&scratch[0]);
        pf_ntext_release(&scratch[1]);
        pf_normalizers_release(&z);
        pf_arena_release(&a);
        free(what);
    }
    json_decref(all);
}

/* A letter under 200,000 marks in the worst order: sorting and composing stay linear (quadratic
 * would take minutes). */
static void test_many_marks(void **state) {
    (void)state;
    pf_buf text = {0};
    pf_buf_addc(&text, 'q');
    for (int i = 0; i < 100000; i++)
        pf_buf_adds(&text, i % 2 == 0 ? "\xcc\x87" : "\xcc\xa3"); /* 230, 220 */
    pf_ntext in = {0}, out = {0};
    assert_int_equal(pf_ntext_set(&in, text.data, text.len, NULL), PEFT_OK);
    pf_ntext_clear(&out);
    assert_int_equal(pf_unicode_form(&in, &out, false, true, NULL), PEFT_OK);
    assert_int_equal(out.n, in.n);
    assert_memory_equal(out.text + 1, "\xcc\xa3\xcc\xa3", 4);
    assert_memory_equal(out.text + out.n - 4, "\xcc\x87\xcc\x87", 4);
    pf_ntext_release(&out);
    pf_buf_free(&text);
}

/* A file whose steps multiply the text is stopped before memory is. */
static void test_growth(void **state) {
    (void)state;
    static const char json[] = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Replace\","
                               "\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaa\"},"
                               "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":"
                               "\"aaaaaaaa\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
                               "\"content\":\"aaaaaaaa\"},{\"type\":\"Replace\",\"pattern\":{"
                               "\"String\":\"a\"},\"content\":\"aaaaaaaa\"}]}";
    static char a_lot[4096];
    pf_arena a;
    pf_normalizers z = {0};
    pf_ntext in = {0}, scratch[2] = {{0}, {0}};
    const pf_ntext *out;
    json_t *v = NULL;
    peft_error err = {0};
    pf_arena_init(&a, "test");
    memset(a_lot, 'a', sizeof a_lot);
    assert_int_equal(pf_json_parse(&v, json, sizeof json - 1, "part", &err), PEFT_OK);
    assert_int_equal(pf_normalizers_load(&z, pf_tj_root(v, "part", &a), (pf_str){NULL, 0}, &err),
                     PEFT_OK);
    pf_ntext_borrow(&in, a_lot, sizeof a_lot, 0);
    assert_int_equal(pf_normalizers_run(&z, &in, scratch, false, &out, &err), PEFT_E_UNSUPPORTED);
    assert_string_equal(err.message,
                        "the tokenizer's normalizers make the text longer than 1179648 bytes");
    pf_ntext_release(&scratch[0]);
    pf_ntext_release(&scratch[1]);
    pf_normalizers_release(&z);
    pf_arena_release(&a);
    json_decref(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),
                                       cmocka_unit_test(test_many_marks),
                                       cmocka_unit_test(test_growth)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
