/* test_tokenizer_shared.c - the tokenizers of real models, by digests of what `tokenizers` gives;
 * skipped without ../shared. */
#include "token_util.h"

#include "base/hash.h"

typedef struct digests {
    pf_sha256 *ids, *texts;
    uint64_t tokens;
} digests;

static void add_text(const pf_tokenizer *t, digests *d, const char *text, size_t n) {
    static const int32_t stop = -1;
    pf_encoding e = {0};
    pf_buf out = {0};
    encode_into(t, text, n, PF_ENCODE_SPECIAL, &e);
    pf_sha256_add(d->ids, e.ids, e.n * sizeof *e.ids);
    pf_sha256_add(d->ids, &stop, sizeof stop);
    d->tokens += e.n;
    for (int skip = 0; skip < 2; skip++) {
        assert_int_equal(pf_tokenizer_decode(t, e.ids, e.n, skip == 1, &out, NULL), PEFT_OK);
        pf_buf_addc(&out, 0);
    }
    pf_sha256_add(d->texts, out.data, out.len);
    pf_buf_free(&out);
    pf_encoding_release(&e);
}

static void finish(digests *d, const json_t *want, const char *name, const char *what) {
    char hex[PF_SHA256_HEX];
    if (d->tokens != (uint64_t)json_integer_value(json_object_get(want, "tokens")))
        fail_msg("%s, %s: %llu tokens", name, what, (unsigned long long)d->tokens);
    pf_sha256_hex(d->ids, hex);
    if (strcmp(hex, json_string_value(json_object_get(want, "ids"))) != 0)
        fail_msg("%s, %s: other ids", name, what);
    pf_sha256_hex(d->texts, hex);
    if (strcmp(hex, json_string_value(json_object_get(want, "texts"))) != 0)
        fail_msg("%s, %s: other texts", name, what);
    pf_sha256_free(d->ids);
    pf_sha256_free(d->texts);
}

static void add_lines(const pf_tokenizer *t, const char *path, int limit, const json_t *want,
                      const char *name) {
    digests d = {pf_sha256_new(), pf_sha256_new(), 0};
    pf_buf file = {0};
    char full[600];
    snprintf(full, sizeof full, "%s/%s", TEST_SHARED_DIR, path);
    assert_int_equal(pf_read_file(&file, full, 64u << 20, NULL), PEFT_OK);
    const char *p = pf_buf_str(&file), *end = p + file.len;
    for (int i = 0; i < limit && p < end; i++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (stop == NULL) stop = end;
        add_text(t, &d, p, (size_t)(stop - p));
        p = stop + 1;
    }
    finish(&d, want, name, path);
    pf_buf_free(&file);
}

static void test_shared(void **state) {
    (void)state;
    json_t *all = golden("shared.json"), *strings = golden("strings.json");
    const char *name;
    json_t *want;
    json_object_foreach(all, name, want) {
        char path[600];
        pf_tokenizer *t;
        peft_error err = {0};
        digests d = {pf_sha256_new(), pf_sha256_new(), 0};
        snprintf(path, sizeof path, "%s/%s", TEST_SHARED_DIR,
                 json_string_value(json_object_get(want, "path")));
        if (pf_tokenizer_open(&t, path, &err) != PEFT_OK) fail_msg("%s", err.message);
        for (size_t i = 0; i < json_array_size(strings); i++) {
            const json_t *s = json_array_get(strings, i);
            add_text(t, &d, json_string_value(s), json_string_length(s));
        }
        finish(&d, json_object_get(want, "strings"), name, "strings.json");
        add_lines(t, "data/datasets/gsm8k/test.jsonl", 400, json_object_get(want, "gsm8k"), name);
        add_lines(t, "data/datasets/text/wiki_demo.txt", 2000, json_object_get(want, "wiki"), name);
        pf_tokenizer_close(t);
    }
    assert_true(json_object_size(all) >= 13);
    json_decref(all);
    json_decref(strings);
}

int main(void) {
    if (!pf_is_dir(TEST_SHARED_DIR "/data/tokenizers")) {
        printf("skipped: no tokenizers in %s\n", TEST_SHARED_DIR);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shared)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
