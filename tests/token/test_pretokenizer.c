/* test_pretokenizer.c - every kind of pre-tokenizer by itself: the pieces and where they come from.
 */
#include "token_util.h"

#include "token/byte_level.h"
#include "token/pretokenizer.h"

static void check(const pf_pretokenizers *z, const json_t *pair, const char *what) {
    const json_t *text = json_array_get(pair, 0), *want = json_array_get(pair, 1);
    pf_ntext in = {0};
    pf_cutting c = {0};
    assert_int_equal(pf_ntext_set(&in, json_string_value(text), json_string_length(text), NULL),
                     PEFT_OK);
    c.text = &in;
    assert_int_equal(pf_pieces_add(&c.pieces, 0, in.n, -1, NULL), PEFT_OK);
    assert_int_equal(pf_pretokenizers_run(z, &c, NULL), PEFT_OK);
    if (c.pieces.n != json_array_size(want))
        fail_msg("%s: \"%s\" gives %u pieces, not %zu", what, json_string_value(text), c.pieces.n,
                 json_array_size(want));
    for (uint32_t i = 0; i < c.pieces.n; i++) {
        const json_t *w = json_array_get(want, i);
        pf_piece p = c.pieces.v[i];
        uint32_t from, to;
        pf_ntext_range(c.text, p.begin, p.end, &from, &to);
        pf_buf got = {0};
        if (z->bytes)
            pf_byte_level_spell(c.text->text + p.begin, p.end - p.begin, &got);
        else
            pf_buf_add(&got, c.text->text + p.begin, p.end - p.begin);
        assert_text(&got, json_array_get(w, 0), what);
        assert_int_equal(from, json_integer_value(json_array_get(w, 1)));
        assert_int_equal(to, json_integer_value(json_array_get(w, 2)));
        pf_buf_free(&got);
    }
    pf_ntext_release(&in);
    pf_cutting_release(&c);
}

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden("parts.json");
    const json_t *list = json_object_get(all, "pre_tokenizers");
    assert_true(json_array_size(list) > 40);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i), *cases = json_object_get(part, "cases");
        char *what = json_dumps(json_object_get(part, "json"), JSON_COMPACT);
        pf_arena a;
        pf_pretokenizers z = {0};
        peft_error err = {0};
        pf_arena_init(&a, "test");
        if (pf_pretokenizers_load(&z, pf_tj_root(json_object_get(part, "json"), "part", &a),
                                  &err) != PEFT_OK)
            fail_msg("%s: %s", what, err.message);
        for (size_t k = 0; k < json_array_size(cases); k++)
            check(&z, json_array_get(cases, k), what);
        pf_pretokenizers_release(&z);
        pf_arena_release(&a);
        free(what);
    }
    json_decref(all);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{\"type\":\"UnicodeScripts\"}", "part: pre-tokenizer UnicodeScripts is not supported"},
        {"{\"kind\":1}", "part: type: a string is missing"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"}}",
         "part: pattern: \"(a\": ( without ) is not supported in a pattern"},
        {"{\"type\":\"Split\",\"pattern\":3}",
         "part: pattern: this should be {\"String\": ...} or {\"Regex\": ...}"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Keep\"}",
         "part.behavior: \"Keep\" is none of Removed, Isolated, MergedWithPrevious, "
         "MergedWithNext, Contiguous"},
        {"{\"type\":\"Metaspace\",\"replacement\":\"ab\"}",
         "part.replacement: this should be one character"},
        {"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":1}]"
         "}",
         "part: pretokenizers[0].individual_digits: this should be true or false"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_arena a;
        pf_pretokenizers z = {0};
        json_t *v = NULL;
        peft_error err = {0};
        pf_arena_init(&a, "test");
        assert_int_equal(pf_json_parse(&v, cases[i].json, strlen(cases[i].json), "part", NULL),
                         PEFT_OK);
        assert_int_not_equal(pf_pretokenizers_load(&z, pf_tj_root(v, "part", &a), &err), PEFT_OK);
        assert_string_equal(err.message, cases[i].message);
        pf_pretokenizers_release(&z);
        pf_arena_release(&a);
        json_decref(v);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),
                                       cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
