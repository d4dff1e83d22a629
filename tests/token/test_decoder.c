/* test_decoder.c - every kind of decoder by itself, and decoding while tokens arrive. */
#include "token_util.h"

#include "token/decoder.h"

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden("parts.json");
    const json_t *list = json_object_get(all, "decoders");
    assert_true(json_array_size(list) > 10);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i), *cases = json_object_get(part, "cases");
        char *what = json_dumps(json_object_get(part, "json"), JSON_COMPACT);
        pf_arena a;
        pf_decoders z = {0};
        pf_strings tokens = {0}, spare = {0};
        peft_error err = {0};
        pf_arena_init(&a, "test");
        if (pf_decoders_load(&z, pf_tj_root(json_object_get(part, "json"), "part", &a), &err) !=
            PEFT_OK)
            fail_msg("%s", err.message);
        for (size_t k = 0; k < json_array_size(cases); k++) {
            const json_t *in = json_array_get(json_array_get(cases, k), 0);
            pf_buf out = {0};
            pf_strings_clear(&tokens);
            for (size_t t = 0; t < json_array_size(in); t++) {
                pf_buf_adds(&tokens.bytes, json_string_value(json_array_get(in, t)));
                assert_int_equal(pf_strings_close(&tokens, NULL), PEFT_OK);
            }
            assert_int_equal(pf_decoders_run(&z, &tokens, &spare, &out, NULL), PEFT_OK);
            assert_text(&out, json_array_get(json_array_get(cases, k), 1), what);
            pf_buf_free(&out);
        }
        pf_strings_release(&tokens);
        pf_strings_release(&spare);
        pf_decoders_release(&z);
        pf_arena_release(&a);
        free(what);
    }
    json_decref(all);
}

/* Without a decoder tokens are joined by spaces. */
static void test_none(void **state) {
    (void)state;
    pf_decoders z = {0};
    pf_strings tokens = {0}, spare = {0};
    pf_buf out = {0};
    for (int i = 0; i < 2; i++) {
        pf_buf_adds(&tokens.bytes, i == 0 ? "a" : "b");
        assert_int_equal(pf_strings_close(&tokens, NULL), PEFT_OK);
    }
    assert_int_equal(pf_decoders_run(&z, &tokens, &spare, &out, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&out), "a b");
    pf_strings_release(&tokens);
    pf_strings_release(&spare);
    pf_buf_free(&out);
}

/* All chunks together are the text decoded at once, no chunk ends inside a character, and nothing
 * shown is taken back. */
static void test_stream(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level",      "llama3_like",   "sp_bpe",
                                        "metaspace_first", "unigram_bytes", "spm_bpe"};
    static const char *const texts[] = {"The fox \xf0\x9f\x99\x82\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd",
                                        " two  spaces \xe6\x9d\xb1\xe4\xba\xac",
                                        "  ",
                                        "<s>x</s> y",
                                        "na\xc3\xafve \xcc\x81z \xe2\x80\x8d",
                                        "\xed\x95\x9c\xea\xb5\xad\xec\x96\xb4"};
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        for (size_t i = 0; i < PF_COUNT(texts) * 2; i++) {
            bool skip = i % 2 == 1;
            pf_encoding e = {0};
            pf_buf whole = {0}, parts = {0};
            pf_decode_stream s;
            encode_into(t, texts[i / 2], strlen(texts[i / 2]), PF_ENCODE_SPECIAL, &e);
            assert_int_equal(pf_tokenizer_decode(t, e.ids, e.n, skip, &whole, NULL), PEFT_OK);
            pf_decode_stream_init(&s, t, skip);
            for (size_t n = 0; n < e.n; n++) {
                assert_int_equal(pf_decode_stream_add(&s, e.ids[n], &parts, NULL), PEFT_OK);
                assert_true(pf_utf8_valid(pf_buf_str(&parts), parts.len, NULL));
                assert_true(parts.len <= whole.len &&
                            memcmp(pf_buf_str(&parts), pf_buf_str(&whole), parts.len) == 0);
            }
            assert_int_equal(pf_decode_stream_end(&s, &parts, NULL), PEFT_OK);
            assert_string_equal(pf_buf_str(&parts), pf_buf_str(&whole));
            pf_decode_stream_release(&s);
            pf_encoding_release(&e);
            pf_buf_free(&whole);
            pf_buf_free(&parts);
        }
        pf_tokenizer_close(t);
    }
}

/* A character cut in half is shown at the end, and a long run of nonsense is not held back for
 * ever. */
static void test_stream_nonsense(void **state) {
    (void)state;
    pf_tokenizer *t = open_golden("byte_level");
    pf_decode_stream s;
    pf_buf out = {0};
    int32_t half = pf_tokenizer_id(t, "\xc3\xb0"); /* byte 0xf0 */
    assert_true(half >= 0);
    pf_decode_stream_init(&s, t, false);
    assert_int_equal(pf_decode_stream_add(&s, half, &out, NULL), PEFT_OK);
    assert_int_equal(out.len, 0);
    assert_int_equal(pf_decode_stream_end(&s, &out, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&out), "\xef\xbf\xbd");
    for (int i = 0; i < 100; i++)
        assert_int_equal(pf_decode_stream_add(&s, half, &out, NULL), PEFT_OK);
    assert_true(out.len > 3);
    assert_int_equal(pf_decode_stream_add(&s, 1 << 20, &out, NULL),
                     PEFT_OK); /* no token: nothing */
    pf_decode_stream_release(&s);
    pf_buf_free(&out);
    pf_tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_none),
                                       cmocka_unit_test(test_stream),
                                       cmocka_unit_test(test_stream_nonsense)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
