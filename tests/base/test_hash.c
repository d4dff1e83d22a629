/* test_hash.c - SHA-256 against FIPS 180-4's examples; the table hash spreads and sees every byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"

static const char *const empty_hash =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char *const abc_hash =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char *const long_hash =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void sha256_gives_the_known_answers(void **state) {
    (void)state;
    char hex[PF_SHA256_HEX];
    pf_sha256_of("", 0, hex);
    assert_string_equal(hex, empty_hash);
    pf_sha256_of("abc", 3, hex);
    assert_string_equal(hex, abc_hash);
    pf_sha256 *h = pf_sha256_new();
    char a[1000];
    memset(a, 'a', sizeof a);
    for (int i = 0; i < 1000; i++) {
        pf_sha256_add(h, a, (size_t)i);
        pf_sha256_add(h, a, sizeof a - (size_t)i);
    }
    pf_sha256_add(h, NULL, 0);
    pf_sha256_hex(h, hex);
    pf_sha256_free(h);
    pf_sha256_free(NULL);
    assert_string_equal(hex, long_hash); /* a million times "a" */
}

static void sha256_reads_files(void **state) {
    (void)state;
    char path[] = "/tmp/peft-hash-XXXXXX", hex[PF_SHA256_HEX];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(pf_sha256_file(path, hex, NULL), PEFT_OK);
    assert_string_equal(hex, empty_hash);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    assert_int_equal(pf_sha256_file(path, hex, NULL), PEFT_OK);
    assert_string_equal(hex, abc_hash);
    unlink(path);
    peft_error err = {0};
    assert_int_equal(pf_sha256_file(path, hex, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, path));
}

static void allocation_may_fail(void **state) {
    (void)state;
    pf_alloc_fail_at(1);
    assert_null(pf_sha256_new());
    pf_alloc_fail_at(0);
}

static void table_hash_sees_every_bit(void **state) {
    (void)state;
    unsigned char text[40];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (unsigned char)(i * 7);
    for (size_t n = 0; n <= sizeof text; n++) {
        uint64_t h = pf_hash64(text, n, 0);
        assert_true(h == pf_hash64(text, n, 0));
        assert_true(h != pf_hash64(text, n, 1));
        if (n > 0) assert_true(h != pf_hash64(text, n - 1, 0));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            text[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_true(h != pf_hash64(text, n, 0));
            text[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
}

static void table_hash_spreads_names(void **state) {
    (void)state;
    enum { N = 1 << 16 };
    static unsigned char load[N];
    memset(load, 0, sizeof load);
    int most = 0;
    for (int i = 0; i < N; i++) {
        char name[64];
        int n = snprintf(name, sizeof name, "model.layers.%d.self_attn.q_proj.weight", i);
        int at = (int)(pf_hash64(name, (size_t)n, 0) & (N - 1));
        if (++load[at] > most) most = load[at];
    }
    assert_true(most <= 12); /* Poisson with mean 1: above 12 once in 1e10 slots */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_gives_the_known_answers),
        cmocka_unit_test(sha256_reads_files),
        cmocka_unit_test(allocation_may_fail),
        cmocka_unit_test(table_hash_sees_every_bit),
        cmocka_unit_test(table_hash_spreads_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
