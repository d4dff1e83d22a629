/* test_data_load.c - a data section to training and test rows, what is said about them, their
 * figures and the preview. */
#include "base/log.h"
#include "data/data_stats.h"
#include "data/preview.h"
#include "text/json.h"

#include "data_test.h"

static pf_tokenizer *tokenizer;
static char logged[8192];

static void sink(void *ctx, pf_log_level level, const char *text) {
    (void)ctx, (void)level;
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%s\n", text);
}

static int setup(void **state) {
    (void)state;
    pf_log_set_sink(sink, NULL);
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

typedef struct fixture {
    pf_data_cfg data;
    pf_training_cfg training;
    pf_data_load_options opt;
} fixture;

static void make(fixture *f) {
    *f = (fixture){
        .data = {.prompt = "Q: {question}\nA:",
                 .target = " {answer}",
                 .shuffle = true,
                 .format = "auto",
                 .quotes = true,
                 .overlength = "error",
                 .add_bos = "auto",
                 .add_eos = true,
                 .share_prefixes = "auto"},
        .training = {.per_device_train_batch_size = 2,
                     .gradient_accumulation_steps = 2,
                     .data_seed = 42},
    };
    f->opt = (pf_data_load_options){
        .data = &f->data, .training = &f->training, .tokenizer = tokenizer, .max_positions = 100};
    logged[0] = 0;
}

static void load(pf_data *d, const fixture *f) {
    peft_error err = {0};
    if (pf_data_load(d, &f->opt, &err) != PEFT_OK) fail_msg("%s", err.message);
}

/* Ten different questions; rows 11 and 12 repeat row 1 and its question. */
static const char *make_rows(const char *name) {
    pf_buf text = {0};
    pf_buf_adds(&text, "question,answer\n");
    for (int i = 1; i <= 10; i++) pf_buf_addf(&text, "What is the capital of %d?,Paris %d\n", i, i);
    pf_buf_adds(&text, "What is the capital of 1?,Paris 1\nWhat is the capital of 1?,Berlin\n");
    const char *path = write_bytes(name, text.data, text.len);
    pf_buf_free(&text);
    return path;
}

static void test_sources(void **state) {
    (void)state;
    fixture f;
    make(&f);
    char train[512], test[512];
    snprintf(train, sizeof train, "%s", make_rows("rows.csv"));
    snprintf(test, sizeof test, "%s",
             write_text("test.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n"));
    f.data.train = train;
    pf_data d;
    load(&d, &f);
    assert_int_equal(d.train.n, 12);
    assert_int_equal(d.test.n, 0);
    assert_non_null(strstr(logged, "rows.csv: 12 of 12 rows, "));
    char whole[PF_SHA256_HEX];
    memcpy(whole, d.fingerprint, sizeof whole);
    pf_data_release(&d);

    f.data.test_size = 0.25;
    load(&d, &f);
    assert_int_equal(d.train.n, 9);
    assert_int_equal(d.test.n, 3);
    assert_ptr_equal(d.test.set, &d.train_set);
    assert_string_not_equal(d.fingerprint, whole);
    pf_data_release(&d);
    f.opt.test_only = true; /* the rows are in the training file */
    load(&d, &f);
    assert_int_equal(d.test.n, 3);
    pf_data_release(&d);

    f.data.test_size = 0;
    f.data.test = test;
    load(&d, &f);
    assert_int_equal(d.train.n, 0);
    assert_int_equal(d.test.n, 1);
    pf_data_release(&d);
    f.opt.test_only = false;
    f.data.max_samples = 5;
    load(&d, &f);
    assert_int_equal(d.train.n, 5);
    assert_int_equal(d.test.n, 1);
    assert_string_equal(d.test_set.format, "jsonl");
    pf_data_release(&d);

    f.data.train = f.data.test = NULL;
    peft_error err = {0};
    assert_int_equal(pf_data_load(&d, &f.opt, &err), PEFT_E_CONFIG);
    assert_says(&err, "data.train is not given");
    pf_data_release(&d);
}

/* Nothing is dropped or cut without a word. */
static void test_says(void **state) {
    (void)state;
    fixture f;
    make(&f);
    f.data.train = make_rows("rows.csv");
    pf_data d;
    load(&d, &f);
    int32_t limit = d.train_set.counts.max_tokens - 1;
    pf_data_release(&d);
    f.training.max_length = limit;
    peft_error err = {0};
    char line[100];
    assert_int_equal(pf_data_load(&d, &f.opt, &err), PEFT_E_FORMAT);
    snprintf(line, sizeof line, "training.max_length is %d", limit);
    assert_says(&err, line);
    f.data.overlength = "drop";
    load(&d, &f);
    int64_t dropped = d.train_set.counts.dropped;
    assert_true(dropped > 0 && dropped < 12);
    snprintf(line, sizeof line, "%lld of 12 rows are longer than %d tokens and were dropped",
             (long long)dropped, limit);
    assert_non_null(strstr(logged, line));
    pf_data_release(&d);
    f.data.overlength = "truncate";
    load(&d, &f);
    assert_int_equal(d.train_set.counts.truncated, dropped);
    assert_non_null(strstr(logged, "were cut at the end"));
    pf_data_release(&d);
    f.training.max_length = 0;
    f.data.train = write_text("empty.csv", "question,answer\na,\n");
    f.data.target = "{answer}";
    load(&d, &f);
    assert_non_null(strstr(logged, "1 of 1 rows have an empty target"));
    pf_data_release(&d);
}

static void test_stats(void **state) {
    (void)state;
    fixture f;
    make(&f);
    char train[512];
    snprintf(train, sizeof train, "%s", make_rows("rows.csv"));
    f.data.train = train;
    f.data.test = write_text("test.csv", "question,answer\nWhat is the capital of 3?,Paris 3\n"
                                         "What is the capital of 4?,Rome\nWho?,Me\n");
    pf_data d;
    load(&d, &f);
    pf_step_plan_options step = pf_data_step_options(&f.opt);
    assert_int_equal(step.batch_size, 2);
    assert_int_equal(step.seed, 42);
    pf_data_stats s;
    peft_error err = {0};
    assert_int_equal(pf_data_stats_make(&s, &d, &step, pf_data_share(&f.data), &err), PEFT_OK);
    assert_int_equal(s.train.examples, 12);
    assert_int_equal(s.train.tokens, d.train_set.counts.tokens);
    assert_int_equal(s.train.supervised, d.train_set.counts.supervised);
    assert_int_equal(s.train.duplicates, 1);
    assert_int_equal(s.train.contradictory, 1);
    assert_int_equal(s.test.examples, 3);
    assert_int_equal(s.test.duplicates, 0);
    assert_int_equal(s.test_in_train, 1);
    assert_int_equal(s.test_prompts_in_train, 2);
    assert_int_equal(s.steps_per_epoch, 3);
    assert_int_equal(s.rows_plain,
                     s.train.tokens - 12);      /* the last token of each is not computed */
    assert_true(s.rows < s.rows_plain * 3 / 4); /* "Q: What is the capital of " */
    int64_t sum = 0;
    for (int i = 0; i < s.train.n_bins; i++) sum += s.train.bins[i];
    assert_int_equal(sum, 12);
    assert_true(s.train.shortest <= s.train.p50 && s.train.p50 <= s.train.p90 &&
                s.train.p99 <= s.train.longest);
    assert_int_equal(s.train.longest, d.train_set.counts.max_tokens);

    pf_buf text = {0}, json = {0};
    pf_data_stats_text(&s, &d, &text);
    assert_non_null(strstr(pf_buf_str(&text),
                           "1 of 3 test examples are in the training set, 2 of their prompts are"));
    assert_non_null(strstr(pf_buf_str(&text), "12 examples"));
    pf_data_stats_json(&s, &d, &json);
    json_t *v = NULL;
    assert_int_equal(pf_json_parse(&v, json.data, json.len, "stats", &err), PEFT_OK);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "train"), "duplicates")),
                     1);
    assert_int_equal(json_integer_value(json_object_get(v, "rows")), s.rows);
    assert_string_equal(json_string_value(json_object_get(v, "fingerprint")), d.fingerprint);
    json_decref(v);
    pf_buf_free(&text);
    pf_buf_free(&json);
    pf_data_release(&d);
}

static void test_preview(void **state) {
    (void)state;
    fixture f;
    make(&f);
    f.data.train =
        write_text("p.csv", "question,answer\nWho wrote it?,No\nWho?,\"Say \"\"it\"\"\"\n");
    f.data.prompt = "{question} A: ";
    f.data.target = "{answer}";
    pf_data d;
    load(&d, &f);
    pf_buf text = {0}, json = {0};
    peft_error err = {0};
    assert_int_equal(pf_data_preview_text(&d.train, tokenizer, 0, 1, &text, &err), PEFT_OK);
    const char *t = pf_buf_str(&text);
    assert_non_null(strstr(t, "p.csv:2  row 1, "));
    assert_non_null(strstr(t, "split between prompt and target"));
    assert_non_null(
        strstr(t, "--- prompt\nWho wrote it? A: \n--- target\nNo\n--- tokens\n     0  "));
    assert_non_null(strstr(t, " *       0  \"<|end|>\"\n"));
    assert_int_equal(pf_data_preview_json(&d.train, tokenizer, 0, 10, &json, &err), PEFT_OK);
    pf_jsonl r;
    pf_jsonl_init(&r, json.data, json.len, "preview");
    json_t *v = NULL;
    for (int64_t i = 0; i < 2; i++) {
        assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_OK);
        assert_int_equal(json_integer_value(json_object_get(v, "row")), i + 1);
        const json_t *tokens = json_object_get(v, "tokens");
        pf_sample s = pf_dataset_sample(&d.train_set, i, 0);
        assert_int_equal(json_array_size(tokens), s.n_tokens);
        for (int32_t k = 0; k < s.n_tokens; k++) {
            const json_t *token = json_array_get(tokens, (size_t)k);
            assert_int_equal(json_integer_value(json_object_get(token, "id")), s.tokens[k]);
            assert_int_equal(json_is_true(json_object_get(token, "label")), k >= s.first_label);
            assert_true(json_is_string(json_object_get(token, "piece")));
        }
        if (i == 1)
            assert_string_equal(json_string_value(json_object_get(v, "target")), "Say \"it\"");
        json_decref(v);
    }
    assert_int_equal(pf_jsonl_next(&r, &v, &err), PEFT_OK);
    assert_null(v);
    pf_buf_clear(&text);
    assert_int_equal(pf_data_preview_text(&d.train, tokenizer, 5, 3, &text, &err), PEFT_OK);
    assert_int_equal(text.len, 0);
    assert_int_equal(pf_data_preview_text(&d.train, tokenizer, -1, 3, &text, &err), PEFT_E_USAGE);
    pf_buf_free(&text);
    pf_buf_free(&json);
    pf_data_release(&d);
}

/* The whole way on a real data set: every label of an epoch comes out of the batches once, with few
 * rows. */
static void test_real_epoch(void **state) {
    (void)state;
    if (!pf_is_dir(TEST_SHARED_DIR "/data/datasets")) {
        print_message("no %s: skipped\n", TEST_SHARED_DIR);
        skip();
    }
    fixture f;
    make(&f);
    pf_tokenizer *t = NULL;
    assert_int_equal(pf_tokenizer_open(&t, TEST_SHARED_DIR "/data/tokenizers/qwen2.5", NULL),
                     PEFT_OK);
    f.opt.tokenizer = t;
    f.opt.max_positions = 512;
    f.data.train = TEST_SHARED_DIR "/data/datasets/qa-epic/train.csv";
    f.data.test = TEST_SHARED_DIR "/data/datasets/qa-epic/test.csv";
    f.training.per_device_train_batch_size = 4;
    f.training.gradient_accumulation_steps = 8;
    pf_data d;
    load(&d, &f);
    pf_step_plan *plan = NULL;
    pf_step_plan_options step = pf_data_step_options(&f.opt);
    assert_int_equal(pf_step_plan_new(&plan, &d.train, &step, NULL), PEFT_OK);
    assert_int_equal(pf_step_plan_steps_per_epoch(plan), 35); /* 1100 rows, 275 batches */
    pf_batch_builder_options opt = {.max_tokens = 256,
                                    .max_labels = pf_step_plan_max_labels(plan, 256, false),
                                    .max_samples = pf_step_plan_max_samples(plan)};
    pf_batch_builder *bb = NULL;
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    int64_t labels = 0, rows = 0, plain = 0;
    for (int64_t k = 0; k < 35; k++) {
        pf_step s;
        pf_sample samples[32];
        int32_t n_micro = 0;
        int64_t of_step = 0;
        pf_step_plan_get(plan, k, &s);
        for (int32_t i = 0; i < s.n; i++)
            samples[i] = pf_dataset_sample(d.train.set, s.examples[i], i);
        assert_int_equal(pf_batch_builder_begin(bb, samples, s.n, (uint64_t)k, &n_micro, NULL),
                         PEFT_OK);
        for (int32_t m = 0; m < n_micro; m++) {
            pf_batch b;
            peft_error err = {0};
            pf_batch_builder_get(bb, m, &b);
            if (pf_batch_check(&b, pf_tokenizer_size(t), 0, &err) != PEFT_OK)
                fail_msg("%s", err.message);
            of_step += b.n_labels;
        }
        assert_int_equal(of_step, s.supervised);
        labels += of_step;
        rows += pf_batch_builder_figures(bb).rows;
        plain += pf_batch_builder_figures(bb).rows_plain;
    }
    assert_int_equal(labels, d.train_set.counts.supervised);
    assert_true(rows < plain * 9 / 10);
    pf_data_stats s;
    assert_int_equal(pf_data_stats_make(&s, &d, &step, PF_SHARE_AUTO, NULL), PEFT_OK);
    assert_int_equal(s.test.examples, d.test.n);
    pf_batch_builder_free(bb);
    pf_step_plan_free(plan);
    pf_data_release(&d);
    pf_tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),    cmocka_unit_test(test_says),
        cmocka_unit_test(test_stats),      cmocka_unit_test(test_preview),
        cmocka_unit_test(test_real_epoch),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
