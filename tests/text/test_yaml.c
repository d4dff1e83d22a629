/* test_yaml.c - the tree, its positions, and everything that is refused. */
#include "base/buf.h"
#include "text/yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void test_tree(void **state) {
    (void)state;
    const char *text = "# a comment\n"
                       "model:\n"
                       "  name: \"x: y\"\n"
                       "  empty:\n"
                       "list: [a, 'b', {c: 2e-4}]\n"
                       "block: |\n"
                       "  Q: {q}\n"
                       "  A:\n";
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_yaml_node *root = NULL;
    peft_error err = {0};
    assert_int_equal(pf_yaml_parse(&root, &a, text, strlen(text), "t.yaml", &err), PEFT_OK);
    assert_int_equal(root->kind, PF_YAML_MAP);
    assert_int_equal(root->n, 3);
    const pf_yaml_node *model = pf_yaml_find(root, "model");
    const pf_yaml_node *name = pf_yaml_find(model, "name");
    assert_string_equal(name->text, "x: y");
    assert_true(name->quoted);
    assert_int_equal(name->line, 3);
    assert_int_equal(name->column, 9);
    assert_int_equal(name->key->line, 3);
    assert_int_equal(name->key->column, 3);
    assert_string_equal(name->source, "t.yaml");
    assert_true(pf_yaml_is_null(pf_yaml_find(model, "empty")));
    assert_null(pf_yaml_find(model, "none"));
    const pf_yaml_node *list = pf_yaml_find(root, "list");
    assert_int_equal(list->n, 3);
    assert_string_equal(list->first->text, "a");
    assert_false(list->first->quoted);
    assert_true(list->first->next->quoted);
    const pf_yaml_node *c = pf_yaml_find(list->first->next->next, "c");
    assert_string_equal(c->text, "2e-4");
    assert_int_equal(c->line, 5);
    assert_int_equal(c->column, 20);
    assert_string_equal(pf_yaml_find(root, "block")->text, "Q: {q}\nA:\n");

    pf_yaml_node *top = pf_yaml_find(root, "model");
    pf_yaml_remove(root, top);
    assert_null(pf_yaml_find(root, "model"));
    pf_yaml_append(root, top);
    assert_ptr_equal(pf_yaml_find(root, "model"), top);
    assert_int_equal(root->n, 3);

    assert_int_equal(pf_yaml_parse(&root, &a, "# nothing\n", 10, "t.yaml", &err), PEFT_OK);
    assert_null(root);
    assert_int_equal(pf_yaml_parse(&root, &a,
                                   "\xef\xbb\xbf"
                                   "a: 1\r\n",
                                   9, "t.yaml", &err),
                     PEFT_OK);
    assert_string_equal(pf_yaml_find(root, "a")->text, "1");
    pf_arena_release(&a);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a: 1\nb: &x 2\n",
         "t.yaml:2:4: anchors (&name) are not taken; write the value out where it "
         "is used, or put it in quotes if the & is text"},
        {"a: *x\n", "t.yaml:1:4: aliases (*name) are not taken; write the value out, or put it in "
                    "quotes if the * is text"},
        {"a: !!int 3\n",
         "t.yaml:1:4: tags (!name) are not taken; put the value in quotes if the ! is text"},
        {"a:\n  <<: {b: 1}\n", "t.yaml:2:3: merge keys (<<) are not taken; write the keys out"},
        {"a:\n  b: 1\n  c: 2\n  b: 3\n",
         "t.yaml:4:3: the key \"b\" stands here twice; the first is in line 2"},
        {"a: {b: 1}\nc: {b: 1}\n", NULL},
        {"a: 1\n---\nb: 2\n",
         "t.yaml:2:1: a second document begins here (---); one file holds one"},
        {"? [a]\n: 1\n",
         "t.yaml:1:3: a key is a list or a mapping; it should be a word. A value that "
         "begins with { or [ as text needs quotes"},
        {"a: {question}\n", NULL},
        {"{{question}}: 1\n",
         "t.yaml:1:1: a key is a list or a mapping; it should be a word. A value "
         "that begins with { or [ as text needs quotes"},
        {"a:\n\tb: 1\n",
         "t.yaml:2:1: while scanning for the next token, found character that cannot "
         "start any token (indent with spaces, not with a tab)"},
        {"a: b: c\n",
         "t.yaml:1:5: mapping values are not allowed in this context (a text with \": \" "
         "in it needs quotes; or the indentation is off)"},
        {"a: [1, 2\nb: 3\n",
         "t.yaml:2:2: while parsing a flow sequence, did not find expected ',' or "
         "']'"},
        {"a: \"x\n", "t.yaml:2:1: while scanning a quoted scalar, found unexpected end of stream"},
        {"a: 1\nb: \xc3(\n", "t.yaml:2:4: byte 0xc3 is not UTF-8"},
        {"a: \"\\0\"\n", "t.yaml:1:4: a text holds a NUL character (\\0)"},
        {"a: 1\nbc: \x01\n", "t.yaml:2:5: control characters are not allowed"},
        {"\xff\xfe"
         "a",
         "t.yaml:1:1: is UTF-16; save it as UTF-8"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_arena a;
        pf_arena_init(&a, "test");
        pf_yaml_node *root = NULL;
        peft_error err = {0};
        peft_status status =
            pf_yaml_parse(&root, &a, cases[i].text, strlen(cases[i].text), "t.yaml", &err);
        if (cases[i].message == NULL) {
            assert_int_equal(status, PEFT_OK);
        } else {
            assert_int_equal(status, PEFT_E_FORMAT);
            assert_null(root);
            assert_string_equal(err.message, cases[i].message);
        }
        pf_arena_release(&a);
    }
}

static void test_limits(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_yaml_node *root = NULL;
    peft_error err = {0};
    pf_buf b = {0};
    for (int i = 0; i < PF_YAML_MAX_DEPTH; i++) pf_buf_adds(&b, "[");
    for (int i = 0; i < PF_YAML_MAX_DEPTH; i++) pf_buf_adds(&b, "]");
    assert_int_equal(pf_yaml_parse(&root, &a, b.data, b.len, "t.yaml", &err), PEFT_OK);
    pf_buf_clear(&b);
    for (int i = 0; i <= PF_YAML_MAX_DEPTH; i++) pf_buf_adds(&b, "[");
    assert_int_equal(pf_yaml_parse(&root, &a, b.data, b.len, "t.yaml", &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "t.yaml:1:33: nested more than 32 deep");
    pf_buf_clear(&b);
    /* a list of 99,999 and its items make 100,000 nodes; one more is too many */
    pf_buf_adds(&b, "- 1\n");
    for (int i = 1; i < PF_YAML_MAX_NODES - 1; i++) pf_buf_adds(&b, "- 1\n");
    assert_int_equal(pf_yaml_parse(&root, &a, b.data, b.len, "t.yaml", &err), PEFT_OK);
    assert_int_equal(root->n, PF_YAML_MAX_NODES - 1);
    pf_buf_adds(&b, "- 1\n");
    assert_int_equal(pf_yaml_parse(&root, &a, b.data, b.len, "t.yaml", &err), PEFT_E_FORMAT);
    assert_string_equal(err.message, "t.yaml:100000:3: more than 100000 values in one file");
    pf_buf_clear(&b);
    for (int i = 0; i <= PF_YAML_MAX_BYTES; i++) pf_buf_addc(&b, ' ');
    assert_int_equal(pf_yaml_parse(&root, &a, b.data, b.len, "t.yaml", &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "t.yaml: has 1048577 bytes; a configuration has at most 1048576");
    pf_buf_free(&b);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
