/* test_class_row.c - classes in files: which names there are, which rows are refused, where the
 * class of a text or a word stands among its tokens, and what a cut leaves. */
#include "data_test.h"

#include "data/data_load.h"

#define TOKENIZER TEST_SOURCE_DIR "/tests/golden/tokenizers/bert_like"

static pf_tokenizer *tokenizer;

static int setup(void **state) {
    (void)state;
    return pf_tokenizer_open(&tokenizer, TOKENIZER, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_tokenizer_close(tokenizer);
    return 0;
}

static const char *const pos_neg[] = {"negative", "positive"};
static const pf_strlist two = {(const char **)pos_neg, 2};
static const char *const iob_names[] = {"O", "B-X", "I-X", "B-Y"};
static const pf_strlist iob = {(const char **)iob_names, 4};

static pf_dataset_options options(const pf_class_rules *rules) {
    return (pf_dataset_options){.text = rules->columns.words == NULL ? "{text}" : NULL,
                                .classes = *rules,
                                .encode = {.tokenizer = tokenizer}};
}

/* ---- names ----------------------------------------------------------------------------------- */

static void assert_names(const char *text, const char *words, const char *want) {
    pf_arena a;
    pf_strlist l;
    char got[256];
    peft_error err = {0};
    pf_arena_init(&a, "test");
    const pf_reader_options reader = {0};
    const pf_class_columns columns = {.label = "label", .words = words};
    if (pf_labels_scan(write_text("names.jsonl", text), &reader, &columns, 0, &a, &l, &err) !=
        PEFT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(pf_labels_text(&l, got, sizeof got), want);
    pf_arena_release(&a);
}

static void test_names(void **state) {
    (void)state;
    assert_names("{\"label\": \"pos\"}\n{\"label\": \"neg\"}\n{\"label\": \"pos\"}\n", NULL,
                 "neg, pos");
    assert_names("{\"label\": 2}\n{\"label\": 0}\n", NULL, "0, 1, 2"); /* ids keep their places */
    assert_names("{\"label\": 10}\n{\"label\": 9}\n", NULL, "9, 10");  /* numbers, not texts */
    assert_names("{\"label\": [\"O\", \"B-X\"]}\n{\"label\": [\"I-X\"]}\n", "words", "B-X, I-X, O");
    assert_names("{\"label\": \"O B-X  O\"}\n", "words", "B-X, O");
}

static void test_find(void **state) {
    (void)state;
    assert_int_equal(pf_label_find(&two, "positive", 8), 1);
    assert_int_equal(pf_label_find(&two, "1", 1), 1); /* a number, where no class is called so */
    assert_int_equal(pf_label_find(&two, "2", 1), -1);
    assert_int_equal(pf_label_find(&two, "01", 2), -1);
    assert_int_equal(pf_label_find(&two, "", 0), -1);
    const char *const numbers[] = {"9", "0"};
    const pf_strlist l = {(const char **)numbers, 2};
    assert_int_equal(pf_label_find(&l, "0", 1), 1); /* the name goes before the number */
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void assert_refused(const pf_class_rules *rules, const char *text, const char *message) {
    pf_dataset ds;
    peft_error err = {0};
    const pf_dataset_options o = options(rules);
    const char *path = write_text("rows.jsonl", text);
    assert_int_not_equal(pf_dataset_load(&ds, path, &o, &err), PEFT_OK);
    const size_t n = strlen(path);
    assert_true(strncmp(err.message, path, n) == 0);
    assert_string_equal(err.message + n, message);
}

static void test_wrong_rows(void **state) {
    (void)state;
    const pf_class_rules text = {.columns = {.label = "label"}, .labels = &two, .pad = -1};
    const pf_class_rules words = {
        .columns = {.label = "tags", .words = "words"}, .labels = &iob, .pad = -1};
    assert_refused(&text, "{\"text\": \"a\", \"label\": \"positiv\"}\n",
                   ":1: row 1: label is \"positiv\", which is none of the 2 classes: negative, "
                   "positive; did you mean \"positive\"?");
    assert_refused(&text, "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\", \"label\": 2}\n",
                   ":2: row 2: label is \"2\", which is none of the 2 classes: negative, positive");
    assert_refused(&text, "{\"text\": \"a\", \"lable\": 1}\n",
                   ":1: row 1 has no column \"label\", which data.label asks for; it has: text, "
                   "lable");
    assert_refused(&text, "{\"text\": \"a\", \"label\": null}\n",
                   ":1: row 1: label is empty; each row needs its class");
    assert_refused(&words, "{\"words\": [\"a\", \"b\"], \"tags\": [\"O\"]}\n",
                   ":1: row 1 has 2 words and 1 tags; each word needs its class");
    assert_refused(&words, "{\"words\": [\"a\"], \"tags\": [\"B-Z\"]}\n",
                   ":1: row 1: tags is \"B-Z\", which is none of the 4 classes: O, B-X, I-X, B-Y; "
                   "did you mean \"B-X\"?");
}

/* "[CLS] the=1 fo##x" ... as text, classes behind "="; -1 is left out. */
static const char *shown(const pf_dataset *ds, int64_t i) {
    static char out[1024];
    const pf_example *e = &ds->examples[i];
    size_t at = 0;
    out[0] = 0;
    for (int32_t k = 0; k < e->n_tokens; k++) {
        pf_buf piece = {0};
        assert_true(pf_tokenizer_token(tokenizer, ds->tokens[e->first + k], &piece));
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", k > 0 ? " " : "",
                               pf_buf_str(&piece));
        if (ds->classes[e->first + k] >= 0)
            at += (size_t)snprintf(out + at, sizeof out - at, "=%d", ds->classes[e->first + k]);
        pf_buf_free(&piece);
    }
    return out;
}

static void assert_row(const pf_class_rules *rules, int64_t limit, const char *text,
                       const char *want) {
    pf_dataset ds;
    peft_error err = {0};
    pf_dataset_options o = options(rules);
    o.max_length = limit;
    o.overlength = limit > 0 ? PF_OVERLENGTH_TRUNCATE : PF_OVERLENGTH_ERROR;
    if (pf_dataset_load(&ds, write_text("row.jsonl", text), &o, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    assert_int_equal(ds.n, 1);
    assert_string_equal(shown(&ds, 0), want);
    pf_dataset_release(&ds);
}

static void test_places(void **state) {
    (void)state;
    static const char fox[] = "{\"text\": \"the fox was very old\", \"label\": 1}\n";
    pf_class_rules r = {.columns = {.label = "label"}, .labels = &two, .pad = -1};
    assert_row(&r, 0, fox, "[CLS] the fox wa ##s ver ##y old [SEP]=1");
    assert_row(&r, 6, fox,
               "[CLS] the fox wa ##s [SEP]=1"); /* a cut keeps what is behind the text */
    r.on_first = true;
    assert_row(&r, 0, fox, "[CLS]=1 the fox wa ##s ver ##y old [SEP]");
    r.on_first = false;
    r.pad = 3; /* [SEP] */
    assert_row(&r, 0, fox, "[CLS] the fox wa ##s ver ##y old=1 [SEP]");
    r.pad = -1;

    r.pair = "{other}";
    static const char both[] =
        "{\"text\": \"the fox\", \"other\": \"the dog and the owl\", \"label\": \"negative\"}\n";
    assert_row(&r, 0, both, "[CLS] the fox [SEP] the dog and the ow ##l [SEP]=0");
    assert_row(&r, 8, both, "[CLS] the fox [SEP] the dog and [SEP]=0"); /* the longer one first */
    assert_row(&r, 6, both, "[CLS] the [SEP] the dog [SEP]=0");
}

static void test_words(void **state) {
    (void)state;
    static const char row[] = "{\"words\": [\"fox\", \"was,\", \"asleep\"], \"tags\": "
                              "[\"O\", \"B-X\", \"B-Y\"]}\n";
    pf_class_rules r = {.columns = {.label = "tags", .words = "words"}, .labels = &iob, .pad = -1};
    assert_row(&r, 0, row, "[CLS] fox=0 wa=1 ##s , as=3 ##lee ##p [SEP]");
    assert_row(&r, 4, row, "[CLS] fox=0 wa=1 [SEP]");
    r.all_tokens = true; /* B-X goes on as I-X; there is no I-Y */
    assert_row(&r, 0, row, "[CLS] fox=0 wa=1 ##s=2 ,=2 as=3 ##lee=3 ##p=3 [SEP]");
}

/* Entries stand on the classes' own rows, also where samples share a beginning. */
static void test_entries(void **state) {
    (void)state;
    const int32_t ids[2][4] = {{5, 6, 7, 8}, {5, 6, 9, 0}},
                  classes[2][4] = {{-1, 2, -1, 0}, {-1, 1, 1, 0}};
    pf_sample s[2] = {{.tokens = ids[0], .n_tokens = 4, .classes = classes[0], .index = 0},
                      {.tokens = ids[1], .n_tokens = 3, .classes = classes[1], .index = 1}};
    for (int shared = 0; shared < 2; shared++) {
        pf_batch_builder *bb;
        pf_batch b;
        int32_t n_micro;
        const pf_batch_builder_options o = {
            .max_tokens = 16, .max_samples = 2, .share = shared ? PF_SHARE_ALWAYS : PF_SHARE_NEVER};
        assert_int_equal(pf_batch_builder_new(&bb, &o, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_begin(bb, s, 2, 0, &n_micro, NULL), PEFT_OK);
        assert_int_equal(n_micro, 1);
        pf_batch_builder_get(bb, 0, &b);
        assert_int_equal(pf_batch_check(&b, 16, 0, NULL), PEFT_OK);
        assert_int_equal(b.n_tokens, shared ? 5 : 7);
        assert_int_equal(b.n_labels, 4);
        assert_true(pf_batch_builder_figures(bb).label_weight == 4);
        for (int32_t e = 0; e < b.n_labels; e++) {
            const int32_t pos = b.pos[b.label_row[e]];
            assert_int_equal(b.label_target[e], classes[b.label_sample[e]][pos]);
            assert_int_equal(b.ids[b.label_row[e]], ids[b.label_sample[e]][pos]);
        }
        pf_batch_builder_free(bb);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),      cmocka_unit_test(test_find),
        cmocka_unit_test(test_wrong_rows), cmocka_unit_test(test_places),
        cmocka_unit_test(test_words),      cmocka_unit_test(test_entries),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
