/* test_dataset.c - rows in, examples out; what is too long, empty or masked is said and counted;
 * threads change nothing. */
#include "data/dataset.h"

#include "base/mem.h"

#include "data_test.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/data/"

static pf_tokenizer *tokenizer; /* byte-level, EOS 0, no BOS */

static int setup(void **state) {
    (void)state;
    return pf_tokenizer_open(&tokenizer, GOLDEN "bytelevel", NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_tokenizer_close(tokenizer);
    return 0;
}

static pf_dataset_options options(void) {
    return (pf_dataset_options){.prompt = "Q: {question}\nA:",
                                .target = " {answer}",
                                .encode = {.tokenizer = tokenizer, .add_eos = true}};
}

static void load(pf_dataset *ds, const char *path, const pf_dataset_options *opt) {
    peft_error err = {0};
    if (pf_dataset_load(ds, path, opt, &err) != PEFT_OK) fail_msg("%s", err.message);
}

static const char csv[] = "question,answer\nWhat is the capital of France?,Paris\n"
                          "\"Who wrote it?\nSay.\",Nobody wrote it\n,\n";

static void test_load(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    pf_dataset ds;
    load(&ds, write_text("small.csv", csv), &opt);
    assert_int_equal(ds.n, 3);
    assert_int_equal(ds.counts.rows, 3);
    assert_int_equal(ds.counts.empty_targets, 0); /* " " is something */
    static const int64_t lines[] = {2, 3, 5};
    int64_t at = 0, supervised = 0;
    for (int64_t i = 0; i < 3; i++) {
        const pf_example *e = &ds.examples[i];
        assert_int_equal(e->row, i + 1);
        assert_int_equal(e->line, lines[i]);
        assert_int_equal(e->first, at);
        at += e->n_tokens;
        supervised += pf_example_supervised(e);
        pf_sample s = pf_dataset_sample(&ds, i, 7);
        assert_int_equal(s.index, 7);
        assert_int_equal(s.first_label, e->n_prompt);
        assert_int_equal(s.tokens[s.n_tokens - 1], 0); /* EOS, learned */
        assert_int_equal(pf_example_supervised(e), s.n_tokens - s.first_label);
    }
    assert_int_equal(ds.n_tokens, at);
    assert_int_equal(ds.counts.tokens, at);
    assert_int_equal(ds.counts.supervised, supervised);
    assert_text(pf_dataset_prompt(&ds, 0), "Q: What is the capital of France?\nA:");
    assert_text(pf_dataset_target(&ds, 0), " Paris");
    assert_text(pf_dataset_prompt(&ds, 1), "Q: Who wrote it?\nSay.\nA:");
    assert_text(pf_dataset_target(&ds, 2), " ");
    /* the learned tokens are the target's */
    pf_buf text = {0};
    const pf_example *e = &ds.examples[0];
    assert_int_equal(pf_tokenizer_decode(tokenizer, ds.tokens + e->first + e->n_prompt,
                                         (size_t)(e->n_tokens - e->n_prompt), true, &text, NULL),
                     PEFT_OK);
    assert_string_equal(pf_buf_str(&text), " Paris");
    pf_buf_free(&text);
    pf_dataset_release(&ds);
    pf_dataset_release(&ds);
}

static void test_plain_text(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    opt.prompt = opt.target = NULL;
    opt.text = "{text}!";
    pf_dataset ds;
    load(&ds, write_text("plain.txt", "Paris\n\nBerlin Paris\n"), &opt);
    assert_int_equal(ds.n, 2);
    assert_true(ds.plain_text);
    assert_text(pf_dataset_target(&ds, 1), "Berlin Paris!");
    for (int64_t i = 0; i < 2; i++) {
        assert_int_equal(ds.examples[i].n_prompt, 0);
        assert_int_equal(pf_dataset_sample(&ds, i, 0).first_label, 1); /* all but the first */
        assert_int_equal(pf_example_supervised(&ds.examples[i]), ds.examples[i].n_tokens - 1);
    }
    pf_dataset_release(&ds);

    pf_tokenizer *with_bos = NULL;
    assert_int_equal(pf_tokenizer_open(&with_bos, GOLDEN "metaspace", NULL), PEFT_OK);
    opt.encode.tokenizer = with_bos;
    load(&ds, write_text("plain.txt", "Paris"), &opt);
    assert_int_equal(ds.tokens[0], 1);
    assert_int_equal(pf_dataset_sample(&ds, 0, 0).first_label,
                     1); /* BOS is given, the rest is learned */
    pf_dataset_release(&ds);
    pf_tokenizer_close(with_bos);
}

/* Row k has a target of k words, for k from 1 to 40. */
static const char *make_lengths(void) {
    pf_buf text = {0};
    pf_buf_adds(&text, "question,answer\n");
    for (int k = 1; k <= 40; k++) {
        pf_buf_addf(&text, "%d?,", k);
        for (int i = 0; i < k; i++) pf_buf_adds(&text, i > 0 ? " Paris" : "Paris");
        pf_buf_addc(&text, '\n');
    }
    const char *path = write_bytes("lengths.csv", text.data, text.len);
    pf_buf_free(&text);
    return path;
}

static void test_overlength(void **state) {
    (void)state;
    const char *path = make_lengths();
    pf_dataset_options opt = options();
    pf_dataset all, ds;
    load(&all, path, &opt);
    assert_int_equal(all.n, 40);
    assert_int_equal(all.counts.limit, 0);
    assert_int_equal(all.counts.longest_row, 40);
    int32_t limit = all.examples[24].n_tokens; /* row 25 just fits */
    opt.max_length = limit;
    opt.max_positions = limit + 2;
    peft_error err = {0};
    assert_int_equal(pf_dataset_load(&ds, path, &opt, &err), PEFT_E_FORMAT);
    char expected[400];
    snprintf(
        expected, sizeof expected,
        "lengths.csv:27: row 26 has %d tokens, and training.max_length is %d. 15 of 40 rows are "
        "longer; the longest is row 40 with %lld. Choose data.overlength=drop to leave them out, "
        "data.overlength=truncate to cut their ends",
        all.examples[25].n_tokens, limit, (long long)all.counts.longest);
    assert_says(&err, expected);
    assert_null(strstr(err.message, "to let them all in")); /* the model could not */
    opt.max_positions = 1 << 20;
    assert_int_equal(pf_dataset_load(&ds, path, &opt, &err), PEFT_E_FORMAT);
    snprintf(expected, sizeof expected, ", or training.max_length=%lld to let them all in",
             (long long)all.counts.longest);
    assert_says(&err, expected);
    opt.max_length = 0;
    opt.max_positions = limit;
    assert_int_equal(pf_dataset_load(&ds, path, &opt, &err), PEFT_E_FORMAT);
    snprintf(expected, sizeof expected, "and the model's context is %d", limit);
    assert_says(&err, expected);

    opt.overlength = PF_OVERLENGTH_DROP;
    load(&ds, path, &opt);
    assert_int_equal(ds.n, 25);
    assert_int_equal(ds.counts.dropped, 15);
    assert_int_equal(ds.counts.over_limit, 15);
    assert_int_equal(ds.counts.rows, 40);
    assert_int_equal(ds.counts.max_tokens, limit);
    for (int64_t i = 0; i < ds.n; i++) {
        assert_int_equal(ds.examples[i].row, i + 1);
        assert_memory_equal(ds.tokens + ds.examples[i].first, all.tokens + all.examples[i].first,
                            sizeof(int32_t) * (size_t)ds.examples[i].n_tokens);
    }
    pf_dataset_release(&ds);

    opt.overlength = PF_OVERLENGTH_TRUNCATE;
    load(&ds, path, &opt);
    assert_int_equal(ds.n, 40);
    assert_int_equal(ds.counts.truncated, 15);
    assert_int_equal(ds.examples[39].n_tokens, limit);
    assert_int_equal(ds.examples[39].flags, PF_EXAMPLE_TRUNCATED);
    assert_int_not_equal(ds.tokens[ds.examples[39].first + limit - 1],
                         0); /* the end is gone, EOS with it */
    pf_dataset_release(&ds);

    /* cut inside the prompt: nothing is left to learn */
    opt.max_positions = all.examples[0].n_prompt;
    assert_int_equal(pf_dataset_load(&ds, path, &opt, &err), PEFT_E_FORMAT);
    assert_says(&err, "all labels are masked: of 40 rows 0 were dropped");
    opt.max_positions = all.examples[0].n_prompt + 1; /* some prompts are longer */
    load(&ds, path, &opt);
    assert_int_equal(ds.counts.without_labels + ds.n, 40);
    assert_true(ds.n >= 1 && ds.n < 40);
    pf_dataset_release(&ds);
    opt.overlength = PF_OVERLENGTH_DROP;
    assert_int_equal(pf_dataset_load(&ds, path, &opt, &err), PEFT_E_FORMAT);
    assert_says(&err, "all 40 rows are longer than");
    pf_dataset_release(&all);
}

static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"question,answer\n", "m.csv has no rows, only a header line"},
        {"question\nx\n",
         "m.csv:2: row 1 has no column \"answer\", which data.target asks for; it has: question"},
        {"question,Answer\nx,y\n", "did you mean {Answer}?"},
        {"question,answer\nx,\xff\n", "m.csv:2"},
        {"", "m.csv is empty"},
    };
    pf_dataset_options opt = options();
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_dataset ds;
        peft_error err = {0};
        assert_int_not_equal(pf_dataset_load(&ds, write_text("m.csv", rows[i].text), &opt, &err),
                             PEFT_OK);
        assert_says(&err, rows[i].says);
        assert_null(ds.tokens);
    }
    pf_dataset ds;
    peft_error err = {0};
    assert_int_equal(pf_dataset_load(&ds, "no/such.csv", &opt, &err), PEFT_E_MISSING);
    opt.prompt = "{question";
    assert_int_equal(pf_dataset_load(&ds, write_text("m.csv", csv), &opt, &err), PEFT_E_CONFIG);
    assert_says(&err, "data.prompt: the { at character 1");
}

static void test_threads(void **state) {
    (void)state;
    pf_buf text = {0};
    for (int i = 0; i < 1000; i++)
        pf_buf_addf(&text, "{\"question\": \"What is %d * %d?\", \"answer\": %d}\n", i, i % 7,
                    i * (i % 7));
    const char *path = write_bytes("many.jsonl", text.data, text.len);
    pf_buf_free(&text);
    pf_dataset_options opt = options();
    pf_dataset one, many;
    load(&one, path, &opt);
    for (int workers = 1; workers <= 5; workers += 2) {
        assert_int_equal(pf_pool_new(&opt.pool, workers, NULL), PEFT_OK);
        load(&many, path, &opt);
        assert_int_equal(many.n, one.n);
        assert_int_equal(many.n_tokens, one.n_tokens);
        assert_memory_equal(many.tokens, one.tokens, sizeof(int32_t) * (size_t)one.n_tokens);
        assert_memory_equal(many.examples, one.examples, sizeof(pf_example) * (size_t)one.n);
        assert_string_equal(many.fingerprint, one.fingerprint);
        pf_dataset_release(&many);
        pf_pool_free(opt.pool);
        opt.pool = NULL;
    }
    opt.max_rows = 130;
    load(&many, path, &opt);
    assert_int_equal(many.n, 130);
    assert_int_equal(many.counts.rows, 130);
    assert_memory_equal(many.tokens, one.tokens, sizeof(int32_t) * (size_t)many.n_tokens);
    pf_dataset_release(&many);
    pf_dataset_release(&one);
}

/* Each thing that decides the tokens decides the fingerprint; the name of the file does not. */
static void test_fingerprint(void **state) {
    (void)state;
    pf_dataset_options base = options(), changed[7];
    pf_dataset ds, other;
    load(&ds, write_text("f.csv", csv), &base);
    assert_int_equal(strlen(ds.fingerprint), 64);
    load(&other, write_text("g.csv", csv), &base);
    assert_string_equal(other.fingerprint, ds.fingerprint);
    pf_dataset_release(&other);
    pf_tokenizer *with_bos = NULL;
    assert_int_equal(pf_tokenizer_open(&with_bos, GOLDEN "metaspace", NULL), PEFT_OK);
    for (size_t i = 0; i < PF_COUNT(changed); i++) changed[i] = base;
    changed[0].prompt = "Q:{question}\nA:";
    changed[1].target = "{answer}";
    changed[2].encode.tokenizer = with_bos;
    changed[3].encode.add_eos = false;
    changed[4].encode.add_bos = PF_BOS_ALWAYS;
    changed[5].max_length = 1000;
    changed[6].max_rows = 3;
    for (size_t i = 0; i < PF_COUNT(changed); i++) {
        load(&other, write_text("f.csv", csv), &changed[i]);
        assert_string_not_equal(other.fingerprint, ds.fingerprint);
        pf_dataset_release(&other);
    }
    load(&other, write_text("f.csv", "question,answer\nx,y\n"), &base);
    assert_string_not_equal(other.fingerprint, ds.fingerprint);
    pf_dataset_release(&other);
    pf_dataset_release(&ds);
    pf_tokenizer_close(with_bos);
}

static void test_out_of_memory(void **state) {
    (void)state;
    const char *path = write_text("oom.csv", csv);
    pf_dataset_options opt = options();
    int failures = 0;
    for (int n = 1; n < 2000; n++) {
        pf_dataset ds;
        peft_error err = {0};
        pf_alloc_fail_at(n);
        peft_status status = pf_dataset_load(&ds, path, &opt, &err);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) {
            /* a failure inside a cache is none */
            assert_int_equal(ds.n, 3);
            pf_dataset_release(&ds);
            if (n > failures + 20) break;
            continue;
        }
        assert_int_equal(status, PEFT_E_NOMEM);
        assert_null(ds.tokens);
        failures++;
    }
    assert_true(failures > 5);
}

static void test_real_data(void **state) {
    (void)state;
    if (!pf_is_dir(TEST_SHARED_DIR "/data/datasets")) {
        print_message("no %s: skipped\n", TEST_SHARED_DIR);
        skip();
    }
    pf_tokenizer *t = NULL;
    assert_int_equal(pf_tokenizer_open(&t, TEST_SHARED_DIR "/data/models/tinystories-656k", NULL),
                     PEFT_OK);
    pf_dataset_options opt = options();
    opt.encode.tokenizer = t;
    opt.max_positions = 512;
    opt.overlength = PF_OVERLENGTH_DROP;
    pf_dataset ds;
    load(&ds, TEST_SHARED_DIR "/data/datasets/qa-epic/train.csv", &opt);
    assert_int_equal(ds.n, 1100);
    assert_int_equal(ds.counts.dropped, 0);
    pf_dataset_release(&ds);
    load(&ds, TEST_SHARED_DIR "/data/datasets/gsm8k/train.jsonl", &opt);
    assert_int_equal(ds.n + ds.counts.dropped, 7473);
    assert_true(ds.counts.dropped > 0 && ds.counts.dropped < 500);
    assert_true(ds.counts.max_tokens <= 512 && ds.counts.longest > 512);
    pf_dataset_release(&ds);
    pf_tokenizer_close(t);
}

/* With an encoder: source and EOS, the decoder's start, target and EOS; cut each by itself, with
 * EOS kept. */
static void test_sources(void **state) {
    (void)state;
    pf_dataset_options opt = options();
    const char *path = write_text("pairs.csv", csv);
    pf_dataset ds, plain;
    load(&plain, path, &opt);
    opt.encode.encoder_decoder = true;
    opt.encode.decoder_start = 5;
    load(&ds, path, &opt);
    assert_string_not_equal(ds.fingerprint, plain.fingerprint);
    assert_int_equal(ds.n, 3);
    for (int64_t i = 0; i < ds.n; i++) {
        const pf_example *e = &ds.examples[i];
        const pf_sample s = pf_dataset_sample(&ds, i, 3);
        assert_int_equal(s.n_source, e->n_source);
        assert_int_equal(s.source[s.n_source - 1], 0); /* EOS */
        assert_int_equal(s.tokens[0], 5);
        assert_int_equal(s.tokens[s.n_tokens - 1], 0);
        assert_int_equal(s.first_label, 1);
        assert_int_equal(s.n_source + s.n_tokens, e->n_tokens);
        assert_int_equal(pf_example_supervised(e), s.n_tokens - 1);
        pf_buf text = {0};
        assert_int_equal(
            pf_tokenizer_decode(tokenizer, s.source, (size_t)s.n_source, true, &text, NULL),
            PEFT_OK);
        assert_text(pf_dataset_prompt(&ds, i), pf_buf_str(&text));
        pf_buf_free(&text);
    }
    pf_dataset_release(&plain);

    opt.max_source = 9;
    opt.max_target = 3;
    peft_error err = {0};
    assert_int_equal(pf_dataset_load(&plain, path, &opt, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "training.max_source_length is 9 and max_target_length 3"));
    opt.overlength = PF_OVERLENGTH_TRUNCATE;
    load(&plain, path, &opt);
    assert_int_equal(plain.n, 3);
    for (int64_t i = 0; i < ds.n; i++) {
        const pf_sample whole = pf_dataset_sample(&ds, i, 0), cut = pf_dataset_sample(&plain, i, 0);
        assert_int_equal(cut.n_source, whole.n_source < 9 ? whole.n_source : 9);
        assert_int_equal(cut.n_tokens, whole.n_tokens < 4 ? whole.n_tokens : 4);
        assert_memory_equal(cut.source, whole.source, sizeof(int32_t) * (size_t)(cut.n_source - 1));
        assert_memory_equal(cut.tokens, whole.tokens, sizeof(int32_t) * (size_t)(cut.n_tokens - 1));
        assert_int_equal(cut.source[cut.n_source - 1], 0);
        assert_int_equal(cut.tokens[cut.n_tokens - 1], 0);
        assert_int_equal((plain.examples[i].flags & PF_EXAMPLE_TRUNCATED) != 0,
                         cut.n_source < whole.n_source || cut.n_tokens < whole.n_tokens);
    }
    assert_true(plain.counts.truncated > 0);
    pf_dataset_release(&plain);
    opt.overlength = PF_OVERLENGTH_DROP;
    opt.max_target = 0;
    opt.max_source = ds.examples[0].n_source;
    load(&plain, path, &opt);
    assert_true(plain.n > 0 && plain.n == 3 - plain.counts.dropped);
    pf_dataset_release(&plain);
    pf_dataset_release(&ds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),     cmocka_unit_test(test_load),
        cmocka_unit_test(test_plain_text),  cmocka_unit_test(test_overlength),
        cmocka_unit_test(test_mistakes),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_real_data),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
