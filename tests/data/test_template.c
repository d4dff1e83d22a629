/* test_template.c - columns, braces, and what a wrong template is told. */
#include "data/template.h"

#include "data_test.h"

static const pf_field fields[] = {
    {{"question", 8}, {"Who?", 4}},
    {{"answer", 6}, {"Me {x}", 6}},
    {{"First name", 10}, {"Ann", 3}},
};
static const pf_record record = {
    .path = "train.csv", .row = 3, .line = 5, .fields = fields, .n = 3};

static void test_render(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"Q: {question}\nA:", "Q: Who?\nA:"},
        {"{answer}", "Me {x}"},
        {"", ""},
        {"plain", "plain"},
        {"{question}{answer}{question}", "Who?Me {x}Who?"},
        {"{ First name }!", "Ann!"},
        {"{{question}}", "{question}"},
        {"{{{question}}}", "{Who?}"},
        {"{{}}{{", "{}{"},
        {"}}", "}"},
        {"f(x) = {{x: {question}}}", "f(x) = {x: Who?}"},
        {"\xc3\xa9{question}", "\xc3\xa9Who?"},
    };
    pf_arena a;
    pf_arena_init(&a, "test");
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_template t;
        peft_error err = {0};
        if (pf_template_compile(&t, &a, "data.prompt", rows[i][0], &err) != PEFT_OK)
            fail_msg("%s: %s", rows[i][0], err.message);
        pf_buf out = {0};
        for (int twice = 0; twice < 2; twice++) {
            pf_buf_clear(&out);
            assert_int_equal(pf_template_render(&t, &record, &out, &err), PEFT_OK);
            assert_string_equal(pf_buf_str(&out), rows[i][1]);
        }
        pf_buf_free(&out);
    }
    pf_arena_release(&a);
}

static void test_mistakes(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"Q: {question", "data.prompt: the { at character 4 is never closed"},
        {"\xc3\xa9\xc3\xa9 {a{b}", "the { at character 4 is never closed"},
        {"a } b", "character 3 is } without a {"},
        {"{question}}", "character 11 is } without a {"},
        {"{ }", "{} at character 1 names no column"},
        {"{", "the { at character 1"},
        {"a\xff", "not UTF-8 text at byte 2"},
    };
    pf_arena a;
    pf_arena_init(&a, "test");
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_template t;
        peft_error err = {0};
        assert_int_equal(pf_template_compile(&t, &a, "data.prompt", rows[i][0], &err),
                         PEFT_E_CONFIG);
        assert_says(&err, rows[i][1]);
        assert_null(t.source);
    }
    pf_template t;
    peft_error err = {0};
    pf_buf out = {0};
    assert_int_equal(pf_template_compile(&t, &a, "data.prompt", "Q: {quesion}", &err), PEFT_OK);
    assert_int_equal(pf_template_render(&t, &record, &out, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "train.csv:5: row 3 has no column \"quesion\", which data.prompt asks for; "
                        "it has: question, answer, First name; did you mean {question}?");
    pf_record none = {.path = "x.jsonl", .row = 1, .line = 1};
    assert_int_equal(pf_template_render(&t, &none, &out, &err), PEFT_E_FORMAT);
    assert_says(&err, "it has: none");
    pf_buf_free(&out);
    pf_arena_release(&a);
}

/* {name?}: a row may lack it or have null there; without the mark both are mistakes. */
static void test_optional(void **state) {
    (void)state;
    static const struct {
        const char *source, *text, *unseen;
    } rows[] = {
        {"[{a?}]", "[1]", ""},     {"[{ a ? }]", "[1]", ""},     {"[{none?}]", "[]", ""},
        {"[{b?}{c}]", "[2]", "b"}, {"[{really?}]", "[yes]", ""}, /* the whole name of a column */
        {"[{?}]", "[3]", ""},
    };
    const pf_field some[] = {{{"a", 1}, {"1", 1}},       {{"none", 4}, {NULL, 0}},
                             {{"c", 1}, {"2", 1}},       {{"really?", 7}, {"yes", 3}},
                             {{"really", 6}, {"no", 2}}, {{"?", 1}, {"3", 1}}};
    const pf_record r = {.path = "x.jsonl", .row = 2, .line = 7, .fields = some, .n = 6};
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_template t;
    peft_error err = {0};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_buf out = {0};
        assert_int_equal(pf_template_compile(&t, &a, "data.prompt", rows[i].source, &err), PEFT_OK);
        if (pf_template_render(&t, &r, &out, &err) != PEFT_OK)
            fail_msg("%s: %s", rows[i].source, err.message);
        assert_string_equal(pf_buf_str(&out), rows[i].text);
        pf_str unseen = pf_template_unseen(&t);
        assert_int_equal(unseen.n, strlen(rows[i].unseen));
        assert_memory_equal(unseen.p == NULL ? "" : unseen.p, rows[i].unseen, unseen.n);
        pf_buf_free(&out);
    }
    pf_buf out = {0};
    assert_int_equal(pf_template_compile(&t, &a, "data.target", "{none}", &err), PEFT_OK);
    assert_int_equal(pf_template_render(&t, &r, &out, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "x.jsonl:7: row 2 has null in the column \"none\", which data.target asks "
                        "for; write {none?} there if no text is meant, or give the row a value");
    pf_buf_free(&out);
    pf_arena_release(&a);
}

/* Rows of JSON need not have their members in one order, nor the same ones. */
static void test_moving_columns(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_template t;
    assert_int_equal(pf_template_compile(&t, &a, "data.text", "{b}", NULL), PEFT_OK);
    pf_field one[] = {{{"a", 1}, {"1", 1}}, {{"b", 1}, {"2", 1}}};
    pf_field two[] = {{{"b", 1}, {"3", 1}}};
    pf_record records[] = {
        {.fields = one, .n = 2}, {.fields = two, .n = 1}, {.fields = one, .n = 2}};
    pf_buf out = {0};
    for (int i = 0; i < 3; i++)
        assert_int_equal(pf_template_render(&t, &records[i], &out, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&out), "232");
    pf_buf_free(&out);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_optional),
        cmocka_unit_test(test_moving_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
