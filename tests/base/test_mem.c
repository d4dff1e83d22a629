/* test_mem.c - the door to malloc: counting, failing on request, checked products. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static void the_nth_allocation_fails(void **state) {
    (void)state;
    int64_t before = pf_alloc_count();
    pf_alloc_fail_at(3);
    void *a = pf_malloc(1), *b = pf_calloc(2, 8), *c = pf_malloc(1), *d = pf_aligned_malloc(5, 64);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(c);
    assert_non_null(d);
    assert_int_equal((uintptr_t)d % 64, 0);
    assert_int_equal(pf_alloc_count() - before, 4);
    pf_alloc_fail_at(1);
    void *same = pf_realloc(a, 1000); /* a is still good */
    assert_null(same);
    pf_alloc_fail_at(1);
    assert_null(pf_aligned_malloc(1, 16));
    pf_alloc_fail_at(1);
    assert_null(pf_calloc(1, 1));
    pf_alloc_fail_at(1);
    pf_alloc_fail_at(0);
    void *e = pf_malloc(1);
    assert_non_null(e);
    pf_free(a);
    pf_free(b);
    pf_free(c);
    pf_free(d);
    pf_free(e);
}

static void empty_blocks_are_unique_and_zeroed_ones_zero(void **state) {
    (void)state;
    void *a = pf_malloc(0), *b = pf_malloc(0), *r = pf_realloc(NULL, 0);
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(r);
    assert_ptr_not_equal(a, b);
    pf_free(a);
    pf_free(b);
    pf_free(r);
    unsigned char *z = pf_calloc(100, 10);
    for (int i = 0; i < 1000; i++) assert_int_equal(z[i], 0);
    pf_free(z);
    size_t half = SIZE_MAX / 2;
    assert_null(pf_calloc(half, 4));
}

static void products_and_sums_are_checked(void **state) {
    (void)state;
    size_t out = 77;
    assert_false(pf_mul_size(SIZE_MAX / 2, 3, &out));
    assert_int_equal(out, 77);
    assert_false(pf_add_size(SIZE_MAX, 1, &out));
    assert_int_equal(out, 77);
    assert_true(pf_mul_size(SIZE_MAX, 1, &out));
    assert_true(out == SIZE_MAX);
    assert_true(pf_mul_size(0, SIZE_MAX, &out));
    assert_int_equal(out, 0);
    assert_true(pf_add_size(SIZE_MAX - 1, 1, &out));
    assert_true(out == SIZE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nth_allocation_fails),
        cmocka_unit_test(empty_blocks_are_unique_and_zeroed_ones_zero),
        cmocka_unit_test(products_and_sums_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
