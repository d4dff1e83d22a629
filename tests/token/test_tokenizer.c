/* test_tokenizer.c - whole tokenizers against what `tokenizers` says: ids, offsets, decoded text;
 * and what the header promises besides: continuation, invalid UTF-8, threads, memory failures. */
#include "token_util.h"

#include "base/mem.h"

#include <pthread.h>

/* Two texts with what stands around them. */
static void check_pair(const pf_tokenizer *t, const char *name, const char *p, size_t n,
                       const json_t *want) {
    static const char second[] = "The end x";
    int32_t ids[512];
    pf_encoding e = {0};
    size_t count = 0;
    for (int part = 0; part < 3; part++) {
        int k;
        const int32_t *special = pf_tokenizer_pair(t, part, &k);
        assert_true(count + (size_t)k <= PF_COUNT(ids));
        if (k > 0) memcpy(ids + count, special, (size_t)k * sizeof *ids);
        count += (size_t)k;
        if (part == 2) break;
        encode_into(t, part == 0 ? p : second, part == 0 ? n : strlen(second), 0, &e);
        assert_true(count + e.n <= PF_COUNT(ids));
        if (e.n > 0) memcpy(ids + count, e.ids, e.n * sizeof *ids);
        count += e.n;
    }
    const pf_encoding all = {.ids = ids, .n = count};
    assert_ids(&all, want, name, p);
    pf_encoding_release(&e);
}

static void check_case(const pf_tokenizer *t, const char *name, const json_t *c) {
    const json_t *text = json_object_get(c, "text"), *offsets = json_object_get(c, "offsets");
    const char *p = json_string_value(text);
    size_t n = json_string_length(text);
    pf_encoding e = {0};
    pf_buf out = {0};
    encode_into(t, p, n, PF_ENCODE_SPECIAL, &e);
    assert_ids(&e, json_object_get(c, "ids"), name, p);
    assert_int_equal(pf_tokenizer_decode(t, e.ids, e.n, false, &out, NULL), PEFT_OK);
    assert_text(&out, json_object_get(c, "decode"), name);
    pf_buf_clear(&out);
    assert_int_equal(pf_tokenizer_decode(t, e.ids, e.n, true, &out, NULL), PEFT_OK);
    assert_text(&out, json_object_get(c, "skip"), name);
    encode_into(t, p, n, PF_ENCODE_TRIM, &e);
    assert_ids(&e, json_object_get(c, "plain"), name, p);
    if (json_object_get(c, "pair") != NULL) check_pair(t, name, p, n, json_object_get(c, "pair"));
    for (size_t i = 0; i < json_array_size(offsets); i++) {
        uint32_t got = i % 2 == 0 ? e.from[i / 2] : e.to[i / 2];
        if (got != json_integer_value(json_array_get(offsets, i)))
            fail_msg("%s: token %zu of \"%s\" stands for [%u, %u)", name, i / 2, p, e.from[i / 2],
                     e.to[i / 2]);
    }
    pf_buf_free(&out);
    pf_encoding_release(&e);
}

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden("cases.json");
    const char *name;
    json_t *cases;
    json_object_foreach(all, name, cases) {
        pf_tokenizer *t = open_golden(name);
        assert_true(json_array_size(cases) > 40);
        for (int round = 0; round < 2; round++) /* the second time from remembered pieces */
            for (size_t i = 0; i < json_array_size(cases); i++)
                check_case(t, name, json_array_get(cases, i));
        pf_tokenizer_close(t);
    }
    json_decref(all);
}

/* Tokens cover whole characters, in order, and PF_ENCODE_TRIM only moves ends inwards. */
static void test_offsets_cover(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level", "sp_bpe", "llama3_like", "unigram_bytes"};
    static const char text[] = "  The \xc3\xa9\xe6\x9d\xb1 \xf0\x9f\x99\x82 fox\n\n";
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        pf_encoding e = {0}, trimmed = {0};
        encode_into(t, text, strlen(text), PF_ENCODE_SPECIAL, &e);
        encode_into(t, text, strlen(text), PF_ENCODE_SPECIAL | PF_ENCODE_TRIM, &trimmed);
        for (size_t i = e.n_before; i + e.n_after < e.n; i++) {
            assert_true(e.from[i] < e.to[i]);
            assert_true(((unsigned char)text[e.from[i]] & 0xc0) != 0x80 &&
                        ((unsigned char)text[e.to[i]] & 0xc0) != 0x80);
            assert_true(i == e.n_before || e.from[i] >= e.from[i - 1]);
            assert_true(trimmed.from[i] >= e.from[i] && trimmed.to[i] <= e.to[i]);
        }
        for (size_t i = 0; i < e.n_before; i++) assert_true(e.from[i] == 0 && e.to[i] == 0);
        for (size_t i = 0; i < e.n_after; i++) assert_int_equal(e.from[e.n - 1 - i], strlen(text));
        pf_encoding_release(&e);
        pf_encoding_release(&trimmed);
        pf_tokenizer_close(t);
    }
}

static void test_continuation(void **state) {
    (void)state;
    pf_encoding e = {0};
    pf_buf out = {0};
    static const char *const names[] = {"sp_bpe", "metaspace_first", "unigram", "roberta_like"};
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        encode_into(t, "fox and dog", 11, PF_ENCODE_CONTINUE, &e);
        pf_buf_clear(&out);
        for (size_t i = 0; i < e.n; i++) assert_true(pf_tokenizer_token(t, e.ids[i], &out));
        /* no mark before the first word, marks before the others, nothing special around */
        const char *want = k == 3 ? "fox\xc4\xa0"
                                    "and\xc4\xa0"
                                    "dog"
                                  : "fox\xe2\x96\x81"
                                    "and\xe2\x96\x81"
                                    "dog";
        assert_string_equal(pf_buf_str(&out), want);
        encode_into(t, " fox", 4, PF_ENCODE_CONTINUE, &e);
        pf_buf_clear(&out);
        for (size_t i = 0; i < e.n; i++) assert_true(pf_tokenizer_token(t, e.ids[i], &out));
        assert_string_equal(pf_buf_str(&out), k == 3 ? "\xc4\xa0"
                                                       "fox"
                                                     : "\xe2\x96\x81"
                                                       "fox");
        pf_tokenizer_close(t);
    }
    pf_buf_free(&out);
    pf_encoding_release(&e);
}

/* Bytes that are no UTF-8 give the ids of U+FFFD, and offsets into the bytes as they are. */
static void test_invalid_utf8(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xe2\x82", "\xef\xbf\xbd"},
        {"\xe2\x82z", "\xef\xbf\xbdz"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf0\x9f\x99 \xf0\x9f\x99\x82", "\xef\xbf\xbd \xf0\x9f\x99\x82"},
    };
    static const char *const names[] = {"byte_level", "sp_bpe", "unigram"};
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        for (size_t i = 0; i < PF_COUNT(cases); i++) {
            pf_encoding bad = {0}, good = {0};
            encode_into(t, cases[i].bytes, strlen(cases[i].bytes), 0, &bad);
            encode_into(t, cases[i].text, strlen(cases[i].text), 0, &good);
            assert_int_equal(bad.n, good.n);
            assert_memory_equal(bad.ids, good.ids, good.n * sizeof *good.ids);
            assert_int_equal(bad.to[bad.n - 1], strlen(cases[i].bytes));
            pf_encoding_release(&bad);
            pf_encoding_release(&good);
        }
        pf_tokenizer_close(t);
    }
}

static void test_looking_in(void **state) {
    (void)state;
    pf_buf out = {0};
    pf_tokenizer *t = open_golden("byte_level");
    pf_special_ids s = pf_tokenizer_special(t);
    assert_string_equal(pf_tokenizer_model(t), "BPE");
    assert_string_equal(pf_tokenizer_chat_template(t), "{{ x }}");
    assert_int_equal(pf_tokenizer_max_length(t), -1);
    assert_int_equal(s.bos, -1);
    assert_int_equal(s.eos, pf_tokenizer_id(t, "</s>"));
    assert_true(pf_tokenizer_is_special(t, s.eos));
    assert_false(pf_tokenizer_is_special(t, 5));
    assert_int_equal(pf_tokenizer_id(t, "no such token"), -1);
    assert_int_equal(pf_tokenizer_size(t), pf_tokenizer_count(t));
    assert_int_equal(pf_tokenizer_added_count(t), 6);
    assert_true(pf_tokenizer_added(t, 2).lstrip);
    assert_string_equal(pf_tokenizer_added(t, 2).content, "<mask>");
    for (int32_t i = 0; i < pf_tokenizer_size(t);
         i++) { /* every token is found under its own name */
        pf_buf_clear(&out);
        assert_true(pf_tokenizer_token(t, i, &out));
        assert_int_equal(pf_tokenizer_id(t, pf_buf_str(&out)), i);
    }
    assert_false(pf_tokenizer_token(t, pf_tokenizer_size(t), &out));
    assert_false(pf_tokenizer_token(t, -1, &out));
    static const int32_t none[] = {-5, INT32_MAX, 1 << 30};
    pf_buf_clear(&out);
    assert_int_equal(pf_tokenizer_decode(t, none, 3, false, &out, NULL), PEFT_OK);
    assert_int_equal(out.len, 0);
    char first[PF_SHA256_HEX];
    snprintf(first, sizeof first, "%s", pf_tokenizer_fingerprint(t));
    pf_tokenizer_close(t);
    t = open_golden("byte_level/tokenizer.json");
    assert_string_equal(pf_tokenizer_fingerprint(t),
                        first); /* the file and its folder are the same tokenizer */
    pf_tokenizer_close(t);
    t = open_golden("sp_bpe");
    assert_string_not_equal(pf_tokenizer_fingerprint(t), first);
    s = pf_tokenizer_special(t);
    assert_int_equal(s.bos, 1);
    assert_int_equal(s.eos, 2);
    assert_int_equal(s.unk, 0);
    assert_int_equal(s.pad, -1);
    pf_tokenizer_close(t);
    pf_buf_free(&out);
}

static const char *const thread_texts[] = {"The quick brown fox", "na\xc3\xafve \xf0\x9f\x99\x82",
                                           "a <mask> b", "12345"};

static void *encode_many(void *arg) {
    const pf_tokenizer *t = arg;
    uintptr_t sum = 0;
    pf_encoding e = {0};
    pf_buf out = {0};
    for (int i = 0; i < 400; i++) {
        const char *text = thread_texts[i % 4];
        if (pf_tokenizer_encode(t, text, strlen(text), PF_ENCODE_SPECIAL, &e, NULL) != PEFT_OK)
            return NULL;
        for (size_t k = 0; k < e.n; k++) sum = sum * 31 + (uintptr_t)e.ids[k];
        pf_buf_clear(&out);
        if (pf_tokenizer_decode(t, e.ids, e.n, false, &out, NULL) != PEFT_OK) return NULL;
        sum = sum * 31 + out.len;
    }
    pf_encoding_release(&e);
    pf_buf_free(&out);
    return (void *)(sum | 1); // NOLINT: a number on its way through a pointer
}

static void test_threads(void **state) {
    (void)state;
    pf_tokenizer *t = open_golden("llama3_like");
    pthread_t threads[4];
    void *want = encode_many(t), *got;
    assert_non_null(want);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, t), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &got);
        assert_ptr_equal(got, want);
    }
    pf_tokenizer_close(t);
}

/* Each allocation fails in turn; nothing leaks, and what succeeds is right. */
static void test_out_of_memory(void **state) {
    (void)state;
    static const char *const names[] = {"llama3_like", "unigram", "spm_bpe", "tiktoken",
                                        "vocab_merges"};
    static const char text[] = "The fox's den \xc3\xa9 <mask> 12";
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "%s", names[k]);
        int64_t n = 1, done = 0;
        for (; done < 3; n += n < 60 ? 1 : 17) {
            pf_tokenizer *t = NULL;
            pf_encoding e = {0};
            pf_buf out = {0};
            pf_alloc_fail_at(n);
            peft_status status = pf_tokenizer_open(&t, path, NULL);
            if (status == PEFT_OK) status = pf_tokenizer_encode(t, text, strlen(text), 1, &e, NULL);
            if (status == PEFT_OK) status = pf_tokenizer_decode(t, e.ids, e.n, false, &out, NULL);
            pf_alloc_fail_at(0);
            if (status == PEFT_OK) done++;
            pf_encoding_release(&e);
            pf_buf_free(&out);
            pf_tokenizer_close(t);
        }
        assert_true(n > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),        cmocka_unit_test(test_offsets_cover),
        cmocka_unit_test(test_continuation),  cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_looking_in),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
