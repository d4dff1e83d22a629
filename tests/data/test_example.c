/* test_example.c - prompt and target meet as the oracle says (tests/golden/data,
 * tools/make_data_fixtures.py), and the rule holds by itself with real tokenizers. */
#include "data/example.h"

#include "data_test.h"
#include "text/json.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/data/"

static pf_tokenizer *open_tokenizer(const char *path) {
    pf_tokenizer *t = NULL;
    peft_error err = {0};
    if (pf_tokenizer_open(&t, path, &err) != PEFT_OK) fail_msg("%s", err.message);
    return t;
}

static const int32_t *ids_of(const pf_buf *b) {
    return (const int32_t *)(const void *)b->data;
}

static void test_golden(void **state) {
    (void)state;
    pf_buf text = {0};
    assert_int_equal(pf_read_file(&text, GOLDEN "pairs.jsonl", 1 << 20, NULL), PEFT_OK);
    pf_tokenizer *tokenizers[] = {open_tokenizer(GOLDEN "bytelevel"),
                                  open_tokenizer(GOLDEN "metaspace")};
    pf_jsonl r;
    pf_jsonl_init(&r, text.data, text.len, "pairs.jsonl");
    json_t *row = NULL;
    pf_encoding scratch = {0};
    int pairs = 0, splits = 0;
    while (pf_jsonl_next(&r, &row, NULL) == PEFT_OK && row != NULL) {
        const char *name = json_string_value(json_object_get(row, "tokenizer"));
        const char *prompt = json_string_value(json_object_get(row, "prompt"));
        const char *target = json_string_value(json_object_get(row, "target"));
        const json_t *expected = json_object_get(row, "ids");
        pf_buf whole = {0}, ids = {0};
        pf_buf_adds(&whole, prompt);
        pf_buf_adds(&whole, target);
        pf_encode_options opt = {.tokenizer = tokenizers[pf_streq(name, "metaspace")],
                                 .add_eos = true};
        pf_encoded e;
        peft_error err = {0};
        if (pf_example_encode(&opt, pf_buf_str(&whole), whole.len, strlen(prompt), &scratch, &ids,
                              &e, &err) != PEFT_OK)
            fail_msg("%s", err.message);
        bool good = e.split == json_is_true(json_object_get(row, "split")) &&
                    e.n_prompt == json_integer_value(json_object_get(row, "n_prompt")) &&
                    (size_t)e.n_tokens == json_array_size(expected) &&
                    ids.len == sizeof(int32_t) * (size_t)e.n_tokens;
        for (int32_t i = 0; i < e.n_tokens && good; i++)
            good = ids_of(&ids)[i] == json_integer_value(json_array_get(expected, (size_t)i));
        if (!good)
            fail_msg("%s, '%s' + '%s': %d tokens, %d of the prompt, split %d", name, prompt, target,
                     e.n_tokens, e.n_prompt, e.split);
        pairs++;
        splits += e.split;
        pf_buf_free(&whole);
        pf_buf_free(&ids);
        json_decref(row);
    }
    assert_int_equal(pairs, 60);
    assert_int_equal(splits, 14);
    pf_encoding_release(&scratch);
    pf_buf_free(&text);
    pf_tokenizer_close(tokenizers[0]);
    pf_tokenizer_close(tokenizers[1]);
}

static void expect_ids(const pf_encode_options *opt, const char *text, size_t n_prompt,
                       int32_t first, int32_t last, int32_t n_tokens, int32_t n_in_prompt) {
    pf_encoding scratch = {0};
    pf_buf ids = {0}, prompt = {0};
    pf_encoded e;
    assert_int_equal(pf_example_encode(opt, text, strlen(text), n_prompt, &scratch, &ids, &e, NULL),
                     PEFT_OK);
    assert_int_equal(e.n_tokens, n_tokens);
    assert_int_equal(e.n_prompt, n_in_prompt);
    if (first >= 0) assert_int_equal(ids_of(&ids)[0], first);
    if (last >= 0) assert_int_equal(ids_of(&ids)[n_tokens - 1], last);
    /* generation starts from the same tokens */
    assert_int_equal(pf_prompt_encode(opt, text, n_prompt, &scratch, &prompt, NULL), PEFT_OK);
    assert_int_equal(prompt.len, sizeof(int32_t) * (size_t)n_in_prompt);
    if (n_in_prompt > 0) assert_memory_equal(prompt.data, ids.data, prompt.len);
    pf_buf_free(&ids);
    pf_buf_free(&prompt);
    pf_encoding_release(&scratch);
}

/* BOS 1 and EOS 2 of the metaspace vocabulary. "x" is one token with its dummy prefix or two. */
static void test_specials(void **state) {
    (void)state;
    pf_tokenizer *t = open_tokenizer(GOLDEN "metaspace");
    pf_special_ids s = pf_tokenizer_special(t);
    assert_int_equal(s.bos, 1);
    assert_int_equal(s.eos, 2);
    pf_encode_options opt = {.tokenizer = t, .add_eos = true};
    expect_ids(&opt, "Paris", 5, 1, 2, 5, 4);
    int32_t n = 5;
    opt.add_eos = false;
    expect_ids(&opt, "Paris", 5, 1, -1, n - 1, n - 1);
    opt.add_bos = PF_BOS_NEVER;
    expect_ids(&opt, "Paris", 5, -1, -1, n - 2, n - 2);
    opt.add_bos = PF_BOS_ALWAYS; /* it is there already */
    expect_ids(&opt, "Paris", 5, 1, -1, n - 1, n - 1);
    expect_ids(&opt, "", 0, 1, -1, 1, 1);
    opt.add_eos = true;
    expect_ids(&opt, "", 0, 1, 2, 2, 1);
    pf_tokenizer_close(t);
    t = open_tokenizer(GOLDEN "bytelevel");
    opt = (pf_encode_options){.tokenizer = t, .add_bos = PF_BOS_ALWAYS, .add_eos = true};
    assert_int_equal(pf_tokenizer_special(t).bos, -1); /* there is none to put */
    expect_ids(&opt, "", 0, 0, 0, 1, 0);
    pf_tokenizer_close(t);
}

/* Either the whole text's tokens are cut where the
 * target begins, or the prompt's own tokens stand first. In both cases they decode to
 * the text. */
static void check_rule(const pf_tokenizer *t, const char *prompt, const char *target, int *splits) {
    pf_encode_options opt = {.tokenizer = t, .add_eos = true};
    pf_encoding whole = {0}, scratch = {0}, head = {0};
    pf_buf text = {0}, ids = {0};
    pf_encoded e;
    pf_buf_adds(&text, prompt);
    size_t boundary = text.len;
    pf_buf_adds(&text, target);
    assert_int_equal(
        pf_example_encode(&opt, text.data, text.len, boundary, &scratch, &ids, &e, NULL), PEFT_OK);
    assert_int_equal(pf_tokenizer_encode(t, text.data, text.len, PF_ENCODE_SPECIAL, &whole, NULL),
                     PEFT_OK);
    assert_int_equal(pf_tokenizer_encode(t, prompt, boundary, PF_ENCODE_SPECIAL, &head, NULL),
                     PEFT_OK);
    if (e.split) {
        assert_int_equal(e.n_prompt, head.n - head.n_after);
        assert_memory_equal(ids.data, head.ids, sizeof(int32_t) * (head.n - head.n_after));
    } else {
        size_t n = whole.n - whole.n_after;
        assert_memory_equal(ids.data, whole.ids, sizeof(int32_t) * n);
        for (size_t i = whole.n_before; i < n; i++)
            assert_int_equal((int32_t)i >= e.n_prompt, whole.from[i] >= boundary);
    }
    *splits += e.split;
    bool unknown =
        false; /* a run of unknown characters is one token or two, depending on the cut */
    for (int32_t i = 0; i < e.n_tokens; i++)
        unknown = unknown || ids_of(&ids)[i] == pf_tokenizer_special(t).unk;
    pf_buf back = {0}, plain = {0};
    assert_int_equal(
        pf_tokenizer_decode(t, ids_of(&ids), (size_t)e.n_tokens - 1, true, &back, NULL), PEFT_OK);
    assert_int_equal(pf_tokenizer_decode(t, whole.ids, whole.n - whole.n_after, true, &plain, NULL),
                     PEFT_OK);
    if (!unknown) assert_string_equal(pf_buf_str(&back), pf_buf_str(&plain));
    pf_buf_free(&back);
    pf_buf_free(&plain);
    pf_buf_free(&text);
    pf_buf_free(&ids);
    pf_encoding_release(&whole);
    pf_encoding_release(&scratch);
    pf_encoding_release(&head);
}

static void test_real_tokenizers(void **state) {
    (void)state;
    static const char *const paths[] = {
        "tokenizers/gpt2",     "tokenizers/llama-2",    "tokenizers/llama-3",
        "tokenizers/qwen2.5",  "tokenizers/smollm2",    "tokenizers/mistral-v0.1",
        "tokenizers/t5-small", "models/stories260K-hf", "models/tinystories-656k"};
    static const char *const pairs[][2] = {
        {"Q: What is the capital of France?\nA:", " Paris"},
        {"Q: What is the capital of France?\nA: ", "Paris"},
        {"Q: What is the capital of France?\nA:", "Paris"},
        {"Q: 7 * 8?\nA:\n", "56"},
        {"Internation", "al law"},
        {"", "Once upon a time"},
        {"The sum is 12", "3"},
        {"\xe6\x9d\xb1", "\xe4\xba\xac"},
    };
    if (!pf_is_dir(TEST_SHARED_DIR "/data/tokenizers")) {
        print_message("no %s: skipped\n", TEST_SHARED_DIR);
        skip();
    }
    int all_splits = 0;
    for (size_t i = 0; i < PF_COUNT(paths); i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/data/%s", TEST_SHARED_DIR, paths[i]);
        pf_tokenizer *t = open_tokenizer(path);
        int splits = 0;
        for (size_t k = 0; k < PF_COUNT(pairs); k++)
            check_rule(t, pairs[k][0], pairs[k][1], &splits);
        assert_true(splits < (int)PF_COUNT(pairs));
        all_splits += splits;
        pf_tokenizer_close(t);
    }
    assert_true(all_splits >= 15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_real_tokenizers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
