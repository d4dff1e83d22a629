/* test_buf.c - growing text, and failure that sticks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"

static void text_grows_and_ends_in_a_nul(void **state) {
    (void)state;
    pf_buf b = {0};
    assert_string_equal(pf_buf_str(&b), "");
    for (int i = 0; i < 1000; i++) {
        pf_buf_addf(&b, "%d,", i);
        pf_buf_adds(&b, "x");
        pf_buf_addc(&b, ';');
        assert_int_equal(b.data[b.len], 0);
    }
    assert_true(pf_buf_ok(&b));
    assert_int_equal(b.len, 10 * 1 + 90 * 2 + 900 * 3 + 3000);
    assert_memory_equal(b.data, "0,x;1,x;", 8);
    assert_string_equal(b.data + b.len - 6, "999,x;");
    size_t cap = b.cap;
    pf_buf_clear(&b);
    assert_int_equal(b.len, 0);
    assert_string_equal(pf_buf_str(&b), "");
    assert_int_equal(b.cap, cap);
    pf_buf_add(&b, "a\0b", 3);
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "a\0b", 4);
    pf_buf_add(&b, NULL, 0);
    assert_int_equal(b.len, 3);
    pf_buf_free(&b);
    pf_buf_free(&b);
    pf_buf_free(NULL);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char chunk[300];
    memset(chunk, 'c', sizeof chunk);
    for (int n = 1; n < 12; n++) {
        pf_buf b;
        pf_buf_init(&b);
        pf_alloc_fail_at(n);
        for (int i = 0; i < 20; i++) {
            pf_buf_add(&b, chunk, sizeof chunk);
            pf_buf_addf(&b, "%s", "formatted");
        }
        pf_alloc_fail_at(0);
        if (pf_buf_ok(&b)) {
            assert_int_equal(b.len, 20 * 309);
            assert_true(n > 5); /* 64 doubled until it holds 6180: at most 8 */
        } else {
            size_t kept = b.len;
            assert_true(kept < 20 * 309);
            pf_buf_adds(&b, "later"); /* sticky: memory is back, but the text has a hole */
            assert_int_equal(b.len, kept);
            assert_false(pf_buf_ok(&b));
            assert_int_equal(strlen(pf_buf_str(&b)), kept);
        }
        pf_buf_free(&b);
        assert_true(pf_buf_ok(&b));
    }
}

static void absurd_sizes_fail(void **state) {
    (void)state;
    pf_buf b = {0};
    pf_buf_adds(&b, "kept");
    pf_buf_reserve(&b, SIZE_MAX);
    assert_false(pf_buf_ok(&b));
    assert_string_equal(pf_buf_str(&b), "kept");
    pf_buf_free(&b);
    pf_buf_adds(&b, "kept");
    pf_buf_add(&b, "x", SIZE_MAX - 2);
    assert_false(pf_buf_ok(&b));
    assert_string_equal(pf_buf_str(&b), "kept");
    pf_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_grows_and_ends_in_a_nul),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(absurd_sizes_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
