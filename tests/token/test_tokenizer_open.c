/* test_tokenizer_open.c - bad files: each gives one sentence that says what and where. */
#include "token_util.h"

#define JSON_HEAD "{\"version\":\"1.0\",\"model\":"

static void test_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *data, *message;
    } cases[] = {
        {"", "t: this is no tokenizer: neither tokenizer.json nor vocab.json, SentencePiece or "
             "tiktoken"},
        {"hello", "t: this is no tokenizer: neither tokenizer.json nor vocab.json, SentencePiece "
                  "or tiktoken"},
        {"{\"added_tokens\":[]}", "t: model: the tokenizer has no model"},
        {JSON_HEAD "{\"type\":\"BPE\"}}", "t: model: vocab is missing"},
        {JSON_HEAD "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "t: model: merges are missing"},
        {JSON_HEAD "\n{\"type\":\"BPE\",\"merges\":[],\n\"vocab\":{\"a\":0,\"b\":}}}",
         "t:3:20: expected a number"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":-1}}}",
         "t:1:67: token id is out of range"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":2000000000}}}",
         "t: token id 2000000000 in a vocabulary of 1 tokens"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[\"a b\"],\"vocab\":{\"a\":0,\"b\":1}}}",
         "t: merge 1 needs the token \"ab\", which is not in the vocabulary"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[\"ab\"],\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}}}",
         "t: merge 1 is not two tokens with a space between: \"ab\""},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[[\"a\",\"b\"],[\"a\",\"c\"]],\"vocab\":{\"a\":0,"
                   "\"b\":1,\"ab\":2}}}",
         "t: merge 2 needs the token \"c\", which is not in the vocabulary"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\\ud800\":0}}}",
         "t:1:69: half a surrogate pair in a string"},
        {JSON_HEAD "{\"type\":\"Unigram\",\"unk_id\":3,\"vocab\":[[\"a\",-1]]}}",
         "t: model: unk_id 3 is not in a vocabulary of 1 tokens"},
        {JSON_HEAD "{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "t:1:57: expected ','"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"decoder\":{\"type\":\"CTC\"}}",
         "t: decoder: decoder CTC is not supported"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"normalizer\":{\"type\":"
                   "\"Other\"}}",
         "t: normalizer: normalizer Other is not supported"},
        {JSON_HEAD "{\"type\":\"WordPiece\",\"vocab\":[[\"a\",-1]]}}",
         "t: model: vocab should be an object of tokens and ids"},
        {JSON_HEAD "{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"continuing_subword_prefix\":"
                   "\"#################\"}}",
         "t: model: continuing_subword_prefix has 17 bytes, at most 16 fit"},
        {JSON_HEAD "{\"type\":\"Other\",\"vocab\":{}}}",
         "t: model: a model of type Other is not supported; BPE, Unigram and WordPiece are"},
        {"[UNK]\na\n", "t: a vocabulary of WordPiece without [CLS] or [SEP]; is it BERT's?"},
        {JSON_HEAD
         "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"post_processor\":{\"type\":\"X\"}}",
         "t: post_processor: post-processor X is not supported"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"normalizer\":{\"type\":"
                   "\"Precompiled\",\"precompiled_charsmap\":\"AA\"}}",
         "t: normalizer.precompiled_charsmap: precompiled_charsmap is cut off"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"added_tokens\":[{\"id\":1}]}",
         "t: added_tokens[0].content: a string is missing"},
        {JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{}},\"post_processor\":{\"type\":"
                   "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}}",
         "t: post_processor.special_tokens: no ids for <s>"},
        {"YQ== 0\nYg 1\nYg== 2\n", "t:3: this token was there before"},
        {"YQ== 0\nY!== 1\n", "t:2: expected base64 of up to 1024 bytes, a space, and a rank"},
        {"\n\x03\n\x01"
         "a\x12\x02\x18\x03",
         "t: SentencePiece model type 3; unigram (1) and BPE (2) are supported"},
        {"\n\x03\n\x01"
         "a\x12\x7f",
         "t: damaged SentencePiece model at byte 5"},
        {"\n\x03\n\x01\xff", "t: piece 0 is not UTF-8"},
        {"{\"a\":0,\"b\":1}", "t: merges.txt should stand beside it"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_tokenizer *t = (pf_tokenizer *)&t;
        peft_error err = {0};
        if (pf_tokenizer_open_bytes(&t, cases[i].data, strlen(cases[i].data), "t", &err) == PEFT_OK)
            fail_msg("case %zu is taken: %s", i, cases[i].data);
        assert_null(t);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void write_text(const char *dir, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(pf_write_file(path, text, strlen(text), NULL), PEFT_OK);
}

static void test_folders(void **state) {
    (void)state;
    char dir[512], want[900];
    pf_tokenizer *t;
    peft_error err = {0};
    snprintf(dir, sizeof dir, "%s/tmp/tokenizer_open", TEST_BINARY_DIR);
    assert_int_equal(pf_remove_tree(dir, NULL), PEFT_OK);
    assert_int_equal(pf_make_dirs(dir, NULL), PEFT_OK);
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_E_MISSING);
    snprintf(want, sizeof want,
             "%s: no tokenizer in this folder; it takes a tokenizer.json, a tokenizer.model or "
             "spiece.model, or a vocab.json with merges.txt",
             dir);
    assert_string_equal(err.message, want);
    write_text(dir, "tokenizer.model", "what is this");
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want,
             "%s/tokenizer.model: this is no tokenizer: neither tokenizer.json nor vocab.json, "
             "SentencePiece or tiktoken",
             dir);
    assert_string_equal(err.message, want);
    write_text(dir, "tokenizer.json",
               JSON_HEAD "{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"a\":0,\"</s>\":1}}}");
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_OK);
    assert_int_equal(pf_tokenizer_special(t).eos, -1);
    pf_tokenizer_close(t);
    /* the config beside it adds names and tokens, and decides about bos and eos */
    write_text(
        dir, "tokenizer_config.json",
        "{\"eos_token\":\"</"
        "s>\",\"bos_token\":{\"content\":\"<b>\"},\"add_bos_token\":true,\"add_eos_token\":true,"
        "\"model_max_length\":1000000000000000019884624838656,\"chat_template\":[{\"name\":\"x\","
        "\"template\":\"X\"},{\"name\":\"default\",\"template\":\"D\"}]}");
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_OK);
    assert_int_equal(pf_tokenizer_special(t).eos, 1);
    assert_int_equal(pf_tokenizer_special(t).bos, 2);
    assert_string_equal(pf_tokenizer_chat_template(t), "D");
    pf_encoding e = {0};
    encode_into(t, "a", 1, PF_ENCODE_SPECIAL, &e);
    assert_int_equal(e.n, 3);
    assert_int_equal(e.ids[0], 2);
    assert_int_equal(e.ids[2], 1);
    pf_encoding_release(&e);
    pf_tokenizer_close(t);
    write_text(dir, "chat_template.jinja", "from a file");
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_OK);
    assert_string_equal(pf_tokenizer_chat_template(t), "from a file");
    pf_tokenizer_close(t);
    write_text(dir, "tokenizer_config.json", "{\"eos_token\": }");
    assert_int_equal(pf_tokenizer_open(&t, dir, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want, "%s/tokenizer_config.json:1:15: ", dir);
    assert_memory_equal(err.message, want, strlen(want));
    snprintf(want, sizeof want, "%s/none.json", dir);
    assert_int_equal(pf_tokenizer_open(&t, want, &err), PEFT_E_MISSING);
    assert_int_equal(pf_remove_tree(dir, NULL), PEFT_OK);
}

/* JSON escapes in vocabulary and merges; numbers; the order of members does not matter. */
static void test_escapes(void **state) {
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[],\"model\":{\"merges\":[\"\\u0061 "
        "\\\"\",[\"a\\\"\",\"\\ud83d\\ude00\"]],\"vocab\":"
        "{\"\\u0061\":0,\"\\\"\":1,\"a\\\"\":2,\"\\ud83d\\ude00\":3,\"a\\\"\\ud83d\\ude00\":4,"
        "\"\\u0000\":5,\"\\n\\/\":6},\"type\":\"BPE\"}}";
    pf_tokenizer *t;
    pf_encoding e = {0};
    peft_error err = {0};
    if (pf_tokenizer_open_bytes(&t, json, sizeof json - 1, "t", &err) != PEFT_OK)
        fail_msg("%s", err.message);
    encode_into(t, "a\"\xf0\x9f\x98\x80\0", 7, 0, &e);
    assert_int_equal(e.n, 2);
    assert_int_equal(e.ids[0], 4);
    assert_int_equal(e.ids[1], 5);
    assert_int_equal(pf_tokenizer_id(t, "\n/"), 6);
    pf_encoding_release(&e);
    pf_tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bad_files),
                                       cmocka_unit_test(test_folders),
                                       cmocka_unit_test(test_escapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
