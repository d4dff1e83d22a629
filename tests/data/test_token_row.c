/* test_token_row.c - rows of token ids: which tokens are learned, and every way in which such a row
 * can be wrong. */
#include "data/dataset.h"

#include "data_test.h"

static pf_tokenizer *tokenizer;

static int setup(void **state) {
    (void)state;
    return pf_tokenizer_open(&tokenizer, TEST_SOURCE_DIR "/tests/golden/data/bytelevel", NULL) ==
                   PEFT_OK
               ? 0
               : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_tokenizer_close(tokenizer);
    return 0;
}

static pf_dataset_options options(void) {
    return (pf_dataset_options){.tokens = {.ids = "input_ids", .vocab = 100},
                                .encode = {.tokenizer = tokenizer, .add_eos = true}};
}

static void load(pf_dataset *ds, const char *name, const char *text,
                 const pf_dataset_options *opt) {
    peft_error err = {0};
    if (pf_dataset_load(ds, write_text(name, text), opt, &err) != PEFT_OK)
        fail_msg("%s", err.message);
}

/* Compares the learned tokens of an example with a string such as "--*-*". */
static void assert_learned(const pf_dataset *ds, int64_t i, const char *marks) {
    const pf_example *e = &ds->examples[i];
    assert_int_equal(e->n_tokens, strlen(marks));
    int32_t n = 0;
    pf_sample s = pf_dataset_sample(ds, i, 0);
    int32_t end = s.end_label > 0 ? s.end_label : s.n_tokens;
    for (int32_t k = 0; k < e->n_tokens; k++) {
        bool learned = marks[k] == '*';
        assert_int_equal(pf_dataset_learns(ds, i, k), learned);
        bool target = k >= s.first_label && k < end && (s.weights == NULL || s.weights[k] == 1.0f);
        assert_int_equal(target, learned);
        n += learned;
    }
    assert_int_equal(pf_example_supervised(e), n);
}

static const char rows[] =
    "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, -100, 7, 8]}\n"
    "{\"input_ids\": [5, 6, 7, 8], \"labels\": [5, 6, 7, 8]}\n"
    "{\"input_ids\": [5, 6, 7, 8, 9], \"labels\": [-100, 6, -100, 8, -100]}\n"
    "{\"input_ids\": [5, 6, 7, 8], \"labels\": [-100, 6, 7, -100]}\n"
    "{\"input_ids\": [5, 6, 7], \"labels\": [5, -100, 7], \"attention_mask\": [1, 1, 1]}\n";

static void test_labels(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    pf_dataset ds;
    load(&ds, "rows.jsonl", rows, &opt);
    assert_int_equal(ds.n, 5);
    assert_true(ds.from_tokens);
    assert_int_equal(ds.counts.tokens, 20);
    assert_learned(&ds, 0, "--**");
    assert_learned(&ds, 1, "-***"); /* nothing predicts the first token */
    assert_learned(&ds, 2, "-*-*-");
    assert_learned(&ds, 3, "-**-");
    assert_learned(&ds, 4, "--*");
    assert_int_equal(ds.counts.supervised, 2 + 3 + 2 + 2 + 1);
    assert_int_equal(ds.examples[0].n_prompt, 2);
    assert_int_equal(ds.examples[2].n_prompt, 1);
    assert_int_equal(ds.examples[2].flags, PF_EXAMPLE_GAPS);
    assert_int_equal(ds.examples[3].flags, 0); /* labels in one piece need no weights */
    assert_int_equal(pf_dataset_sample(&ds, 3, 0).end_label, 3);
    static const int32_t ids[] = {5, 6, 7, 8, 9};
    assert_memory_equal(pf_dataset_sample(&ds, 2, 0).tokens, ids, sizeof ids);
    assert_int_equal(pf_dataset_prompt(&ds, 0).n + pf_dataset_target(&ds, 0).n, 0);
    pf_buf text = {0}, whole = {0};
    assert_int_equal(pf_dataset_text(&ds, 0, tokenizer, &text, NULL), PEFT_OK);
    assert_int_equal(pf_tokenizer_decode(tokenizer, ids, 4, false, &whole, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&text), pf_buf_str(&whole));
    pf_buf_free(&text);
    pf_buf_free(&whole);
    pf_dataset_release(&ds);
}

static void test_columns(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    pf_dataset ds;
    load(&ds, "plain.jsonl", "{\"input_ids\": [5, 6, 7]}\n{\"input_ids\": [8, 9]}\n", &opt);
    assert_learned(&ds, 0, "-**");
    assert_learned(&ds, 1, "-*");
    assert_null(ds.weights);
    pf_dataset_release(&ds);

    opt.tokens.ids = "ids";
    opt.tokens.labels = "mask";
    load(&ds, "list.csv", "ids,mask\n\"[5, 6, 7]\",\"-100, 6,-100\"\n\" 8,9 \",\"[ 8 , 9 ]\"\n",
         &opt);
    assert_learned(&ds, 0, "-*-");
    assert_learned(&ds, 1, "-*");
    pf_dataset_release(&ds);
}

static void test_cut(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    opt.max_length = 3;
    opt.overlength = PF_OVERLENGTH_TRUNCATE;
    pf_dataset ds;
    load(&ds, "rows.jsonl", rows, &opt);
    assert_int_equal(ds.counts.truncated, 4);
    assert_learned(&ds, 0, "--*");
    assert_learned(&ds, 1, "-**");
    assert_learned(&ds, 2, "-*-"); /* its gap is gone, what is left is one piece */
    assert_int_equal(ds.examples[2].flags, PF_EXAMPLE_TRUNCATED);
    assert_learned(&ds, 3, "-**");
    pf_dataset_release(&ds);

    opt.max_length = 2; /* nothing is left to learn in the first row and in the last one */
    load(&ds, "rows.jsonl", rows, &opt);
    assert_int_equal(ds.n, 3);
    assert_int_equal(ds.counts.without_labels, 2);
    pf_dataset_release(&ds);
}

static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        const char *row, *says;
    } cases[] = {
        {"{\"input_ids\": [1, 100]}",
         "row 1: input_ids[1] is 100; the ids of this model are 0 to 99"},
        {"{\"input_ids\": [1, -1]}", "input_ids[1] is -1"},
        {"{\"input_ids\": [1, 99999999999999999999]}", "it should be a whole number"},
        {"{\"input_ids\": \"1, 99999999999999999999\"}", "is \"99999999999999999999\"; it should"},
        {"{\"input_ids\": [1, 2.5]}", "input_ids[1] is \"2.5\"; it should be a whole number"},
        {"{\"input_ids\": [1, null, 3]}", "input_ids[1] is \"null\"; it should be a whole number"},
        {"{\"input_ids\": [1, null]}", "input_ids[1] is \"null\""},
        {"{\"input_ids\": null}", "input_ids is empty"},
        {"{\"input_ids\": [\"a\"]}", "input_ids[0] is \"a\""},
        {"{\"input_ids\": [[1, 2], [3]]}", "it should be a whole number"},
        {"{\"input_ids\": []}", "input_ids is empty"},
        {"{\"ids\": [1]}",
         "has no column \"input_ids\", which data.input_ids asks for; it has: ids"},
        {"{\"input_ids\": [1, 2], \"labels\": [1]}", "row 1 has 2 tokens and 1 labels"},
        {"{\"input_ids\": [1, 2], \"labels\": [1, 2, 3]}", "row 1 has 2 tokens and 3 labels"},
        {"{\"input_ids\": [1, 2], \"labels\": [2, -100]}",
         "labels[0] is 2 and the token there is 1"},
        {"{\"input_ids\": [1, 2], \"labels\": [-1, 2]}", "labels[0] is -1"},
        {"{\"input_ids\": [1, 2], \"attention_mask\": [0, 1]}", "attention_mask[0] is 0"},
        {"{\"input_ids\": [1, 2], \"labels\": [-100, -100]}", "all labels are masked"},
        {"{\"input_ids\": [1, 2], \"labels\": [-100, 2]}\n{\"input_ids\": [3, 4]}",
         "rows.jsonl:2: row 2 has no column \"labels\""},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_dataset_options opt = options();
        pf_dataset ds;
        peft_error err = {0};
        assert_int_equal(pf_dataset_load(&ds, write_text("rows.jsonl", cases[i].row), &opt, &err),
                         PEFT_E_FORMAT);
        assert_says(&err, cases[i].says);
    }
}

static void test_fingerprint(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    pf_dataset a, b;
    load(&a, "rows.jsonl", rows, &opt);
    opt.tokens.labels = "labels";
    load(&b, "rows.jsonl", rows, &opt);
    assert_string_not_equal(a.fingerprint, b.fingerprint);
    assert_int_equal(a.counts.supervised, b.counts.supervised);
    pf_dataset_release(&a);
    pf_dataset_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels),      cmocka_unit_test(test_columns),
        cmocka_unit_test(test_cut),         cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_fingerprint),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
