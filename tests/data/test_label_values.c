/* test_label_values.c - targets that are several classes or numbers: what a file looks like, a
 * row's numbers, and the sentence where a row has none. */
#include "data_test.h"

#include "data/data_load.h"

static const char *const names3[] = {"anger", "calm", "joy"};
static const pf_strlist three = {(const char **)names3, 3};
static const char *const name1[] = {"LABEL_0"};
static const pf_strlist one = {(const char **)name1, 1};
static const char *const two_columns[] = {"joy", "anger"};
static const pf_strlist columns2 = {(const char **)two_columns, 2};

/* ---- what a file looks like ------------------------------------------------------------------ */

static void looks(const char *file, const char *text, const pf_class_columns *c, pf_problem told,
                  pf_problem want, const char *names, bool one_hot) {
    pf_arena a;
    pf_label_look l;
    char got[256];
    peft_error err = {0};
    pf_arena_init(&a, "test");
    const pf_reader_options reader = {0};
    if (pf_label_look_at(write_text(file, text), &reader, c, told, &a, &l, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(l.problem, want);
    assert_string_equal(pf_labels_text(&l.names, got, sizeof got), names);
    assert_int_equal(l.one_hot, one_hot);
    if (told == PF_PROBLEM_AUTO) assert_int_equal(l.why[0] != 0, want != PF_PROBLEM_SINGLE);
    pf_arena_release(&a);
}

static void test_looks(void **state) {
    (void)state;
    const pf_class_columns y = {.label = "y"}, many = {.many = &columns2},
                           parts = {.label = "y", .delimiter = "; "};
    const pf_problem ask = PF_PROBLEM_AUTO, single = PF_PROBLEM_SINGLE, multi = PF_PROBLEM_MULTI,
                     number = PF_PROBLEM_REGRESSION;
    looks("a.csv", "y\n1\n0\n2\n", &y, ask, single, "0, 1, 2", false);
    looks("a.csv", "y\n1.5\n0\n2\n", &y, ask, number, "LABEL_0", false);
    looks("a.csv", "y\n1.5\nx\n2.5\n", &y, ask, single, "1.5, 2.5, x", false);
    looks("a.csv", "y\n1\n0\n3\n", &y, number, number, "LABEL_0", false);
    looks("a.csv", "y\n1.5\n2.5\n", &y, single, single, "1.5, 2.5", false);
    looks("a.csv", "joy,anger\n1,0\n0,1\n", &many, ask, multi, "joy, anger", false);
    looks("a.csv", "joy,anger\n1,0.5\n0,1\n", &many, ask, number, "joy, anger", false);
    looks("a.csv", "y\nb; a\nc\n", &parts, ask, multi, "a, b, c", false);
    looks("a.jsonl", "{\"y\": [\"b\", \"a\"]}\n{\"y\": []}\n", &y, ask, multi, "a, b", false);
    looks("a.jsonl", "{\"y\": [2, 0]}\n{\"y\": [1]}\n", &y, ask, multi, "0, 1, 2", false);
    looks("a.jsonl", "{\"y\": [1, 0, 1]}\n{\"y\": [0, 0, 1.0]}\n", &y, ask, multi,
          "LABEL_0, LABEL_1, LABEL_2", true);
    looks("a.jsonl", "{\"y\": [1.5, 0]}\n{\"y\": [0, 0]}\n", &y, ask, number, "LABEL_0, LABEL_1",
          false);
    looks("a.jsonl", "{\"y\": 3.5}\n{\"y\": 4}\n", &y, ask, number, "LABEL_0", false);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* The values of the only row, or the sentence that refuses it. */
static void row(const char *file, const char *text, const pf_class_rules *rules, const char *want) {
    pf_arena a;
    pf_data_file f;
    pf_record r;
    bool more;
    float v[3];
    peft_error err = {0};
    pf_buf got = {0};
    pf_arena_init(&a, "test");
    const pf_reader_options reader = {.lists = true};
    const char *path = write_text(file, text);
    assert_int_equal(pf_data_file_open(&f, path, &reader, &err), PEFT_OK);
    assert_int_equal(pf_data_file_next(&f, &r, &more, &err), PEFT_OK);
    if (pf_label_values(rules, &r, &a, v, &err) == PEFT_OK) {
        for (int k = 0; k < rules->labels->n; k++)
            pf_buf_addf(&got, "%s%g", k > 0 ? " " : "", (double)v[k]);
    } else { /* without the path */
        const char *said = strstr(err.message, file);
        assert_non_null(said);
        pf_buf_adds(&got, said + strlen(file));
    }
    assert_string_equal(pf_buf_str(&got), want);
    pf_buf_free(&got);
    pf_data_file_close(&f);
    pf_arena_release(&a);
}

static void test_rows(void **state) {
    (void)state;
    const pf_class_rules
        names = {.columns = {.label = "y"}, .problem = PF_PROBLEM_MULTI, .labels = &three},
        cut = {.columns = {.label = "y", .delimiter = "|"},
               .problem = PF_PROBLEM_MULTI,
               .labels = &three},
        hot = {.columns = {.label = "y"},
               .problem = PF_PROBLEM_MULTI,
               .one_hot = true,
               .labels = &three},
        many = {.columns = {.many = &columns2}, .problem = PF_PROBLEM_MULTI, .labels = &three},
        number = {.columns = {.label = "y"}, .problem = PF_PROBLEM_REGRESSION, .labels = &one};
    row("a.jsonl", "{\"y\": [\"joy\", \"anger\"]}\n", &names, "1 0 1");
    row("a.jsonl", "{\"y\": [1, \"joy\", 1]}\n", &names, "0 1 1");
    row("a.jsonl", "{\"y\": []}\n", &names, "0 0 0");
    row("a.jsonl", "{\"y\": \"calm\"}\n", &names, "0 1 0");
    row("a.jsonl", "{\"y\": [\"joi\"]}\n", &names,
        ":1: row 1: y is \"joi\", which is none of the 3 classes: anger, calm, joy; did you mean "
        "\"joy\"?");
    row("a.jsonl", "{\"y\": [7]}\n", &names,
        ":1: row 1: y is \"7\", which is none of the 3 classes: anger, calm, joy");
    row("a.jsonl", "{\"y\": null}\n", &names, ":1: row 1: y is null; each row needs its class");
    row("a.jsonl", "{\"y\": \"\"}\n", &names,
        ":1: row 1: y is empty; it should be the name of a class, or several");
    row("a.jsonl", "{\"y\": [\"joy\", null]}\n", &names,
        ":1: row 1: member 2 of y is no text; null, lists and objects have no place there");
    row("a.jsonl", "{\"y\": {\"joy\": 1}}\n", &names,
        ":1: row 1: y is an object; it should be a text or a list of texts");
    row("a.jsonl", "{\"x\": \"\"}\n", &names,
        ":1: row 1 has no column \"y\", which data.label asks for; it has: x");
    row("a.csv", "y,x\n joy | anger,\n", &cut, "1 0 1");
    row("a.csv", "y,x\n,\n", &cut, "0 0 0");
    row("a.csv", "y,x\njoy|x,\n", &cut,
        ":2: row 1: y is \"x\", which is none of the 3 classes: anger, calm, joy");
    row("a.jsonl", "{\"y\": [0, true, 1.0]}\n", &hot, "0 1 1");
    row("a.jsonl", "{\"y\": [0, 1]}\n", &hot, ":1: row 1: y has 2 values; the model has 3 classes");
    row("a.jsonl", "{\"y\": [0, 1, 2]}\n", &hot,
        ":1: row 1: y is \"2\"; it should be 0 or 1 (model.problem_type is "
        "multi_label_classification)");
    row("a.csv", "joy,anger\n1,0\n", &many,
        ":2: row 1: data.label_columns has 2 values; the model has 3 classes");
    row("a.csv", "joy\n1\n", &many,
        ":2: row 1 has no column \"anger\", which data.label_columns asks for; it has: joy");
    row("a.csv", "y\n-3.25e-1\n", &number, "-0.325");
    row("a.csv", "y\n3\n", &number, "3");
    row("a.csv", "y\nthree\n", &number,
        ":2: row 1: y is \"three\"; it should be a number (model.problem_type is regression)");
    row("a.csv", "y\nnan\n", &number,
        ":2: row 1: y is \"nan\"; it should be a number (model.problem_type is regression)");
    row("a.csv", "y\n0x10\n", &number,
        ":2: row 1: y is \"0x10\"; it should be a number (model.problem_type is regression)");
    row("a.csv", "y\n1e999\n", &number,
        ":2: row 1: y is \"1e999\"; it should be a number (model.problem_type is regression)");
    row("a.csv", "y,x\n,1\n", &number,
        ":2: row 1: y is empty; it should be a number (model.problem_type is regression)");
    row("a.jsonl", "{\"y\": [1.5, 2]}\n", &number,
        ":1: row 1: y has 2 values; the model has 1 output");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_looks), cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
