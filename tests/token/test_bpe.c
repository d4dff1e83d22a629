/* test_bpe.c - the two ways of merging, the cuts, and how the work grows with the text. */
#include "token_util.h"

#include "token/tokenizer_impl.h"

/* Random text over the letters of the golden vocabularies, with a generator of its own. */
static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void random_text(pf_buf *out, uint32_t seed, size_t n) {
    static const char *const parts[] = {"th",
                                        "e",
                                        " ",
                                        "o",
                                        "x",
                                        " the",
                                        "\xe2\x96\x81",
                                        "\xc3\xa9",
                                        "qu",
                                        "a",
                                        ".",
                                        "\n",
                                        "\xe6\x9d\xb1",
                                        "ing",
                                        "zz",
                                        "\xf0\x9f\x99\x82"};
    pf_buf_clear(out);
    while (out->len < n) pf_buf_adds(out, parts[next_random(&seed) % PF_COUNT(parts)]);
}

static void assert_same_tokens(const pf_tokens *a, const pf_tokens *b) {
    assert_int_equal(a->n, b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_int_equal(a->v[i].id, b->v[i].id);
        assert_int_equal(a->v[i].begin, b->v[i].begin);
        assert_int_equal(a->v[i].end, b->v[i].end);
    }
}

/* Cutting where no merge reaches across changes nothing; neither does remembering pieces. */
static void test_cuts(void **state) {
    (void)state;
    static const char *const names[] = {"sp_bpe", "sp_bpe_unk", "spm_bpe", "metaspace_first"};
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        pf_bpe whole = t->bpe;
        pf_model_scratch s = {0}, fresh = {0};
        pf_tokens a = {0}, b = {0};
        pf_buf text = {0};
        assert_true(t->bpe.cuts);
        whole.cuts = false;
        for (uint32_t i = 0; i < 150; i++) {
            random_text(&text, i, 1 + i);
            assert_int_equal(pf_bpe_encode(&t->bpe, &s, text.data, (uint32_t)text.len, &a, NULL),
                             PEFT_OK);
            pf_model_scratch_release(&fresh);
            assert_int_equal(pf_bpe_encode(&whole, &fresh, text.data, (uint32_t)text.len, &b, NULL),
                             PEFT_OK);
            assert_same_tokens(&a, &b);
        }
        pf_model_scratch_release(&s);
        pf_model_scratch_release(&fresh);
        pf_buf_free(&text);
        pf_tokens_release(&a);
        pf_tokens_release(&b);
        pf_tokenizer_close(t);
    }
}

/* Scanning serves words of up to 40 symbols, the heap longer ones: a word that is both, by what
 * stands around it. */
static void test_scan_and_heap_agree(void **state) {
    (void)state;
    pf_tokenizer *t = open_golden("byte_level");
    pf_model_scratch s = {0};
    pf_tokens a = {0}, b = {0};
    pf_buf text = {0}, twice = {0};
    for (uint32_t i = 0; i < 400; i++) {
        random_text(&text, i + 1000, 1 + i % 30);
        while (text.len > 36) text.len--;
        /* bytes that no merge knows on both sides, so that the middle merges as it does alone */
        static const char wall[] = "\x01\x02\x01\x02\x01\x02\x01\x02\x01\x02\x01\x02\x01\x02\x01"
                                   "\x02\x01\x02\x01\x02\x01\x02\x01\x02\x01\x02";
        uint32_t n_wall = sizeof wall - 1;
        pf_buf_clear(&twice);
        pf_buf_add(&twice, wall, n_wall);
        pf_buf_add(&twice, text.data, text.len);
        pf_buf_add(&twice, wall, n_wall);
        assert_int_equal(pf_bpe_encode(&t->bpe, &s, text.data, (uint32_t)text.len, &a, NULL),
                         PEFT_OK);
        assert_int_equal(pf_bpe_encode(&t->bpe, &s, twice.data, (uint32_t)twice.len, &b, NULL),
                         PEFT_OK);
        assert_int_equal(b.n, a.n + 2 * n_wall);
        for (uint32_t k = 0; k < a.n; k++) {
            assert_int_equal(b.v[k + n_wall].id, a.v[k].id);
            assert_int_equal(b.v[k + n_wall].begin, a.v[k].begin + n_wall);
        }
    }
    pf_model_scratch_release(&s);
    pf_tokens_release(&a);
    pf_tokens_release(&b);
    pf_buf_free(&text);
    pf_buf_free(&twice);
    pf_tokenizer_close(t);
}

/* Twice the text is about twice the work, also where one word is the whole text. Counted in steps,
 * not in seconds. */
static void test_scaling(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level", "llama3_like", "sp_bpe", "spm_bpe",
                                        "unigram",    "tiktoken",    "affixes"};
    static const char *const units[] = {
        "a", "th", "the ", "\xc3\xa9", " ", "1", "the quick brown fox it's ", "\xcc\x81"};
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        for (size_t u = 0; u < PF_COUNT(units); u++) {
            uint64_t work[2];
            for (int size = 0; size < 2; size++) {
                pf_buf text = {0};
                pf_encoding e = {0};
                while (text.len < (16u << 10) << (2 * size)) pf_buf_adds(&text, units[u]);
                encode_into(t, text.data, text.len, 0, &e);
                work[size] = e.work + e.n;
                pf_encoding_release(&e);
                pf_buf_free(&text);
            }
            if (work[1] > work[0] * 5) /* four times the text; 4 log(4n)/log(n) is 4.5 */
                fail_msg("%s, \"%s\": %llu steps, then %llu", names[k], units[u],
                         (unsigned long long)work[0], (unsigned long long)work[1]);
        }
        pf_tokenizer_close(t);
    }
}

/* A megabyte of one letter, in each kind of model. */
static void test_megabyte_of_one_letter(void **state) {
    (void)state;
    static const char *const names[] = {"byte_level", "sp_bpe", "unigram"};
    char *text = malloc(1 << 20);
    assert_non_null(text);
    memset(text, 'a', 1 << 20);
    for (size_t k = 0; k < PF_COUNT(names); k++) {
        pf_tokenizer *t = open_golden(names[k]);
        pf_encoding e = {0};
        encode_into(t, text, 1 << 20, 0, &e);
        assert_true(e.n > 1000 && e.to[e.n - 1] == 1 << 20);
        assert_true(e.work < (uint64_t)(1 << 20) * 100);
        pf_encoding_release(&e);
        pf_tokenizer_close(t);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts), cmocka_unit_test(test_scan_and_heap_agree),
        cmocka_unit_test(test_scaling), cmocka_unit_test(test_megabyte_of_one_letter)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
