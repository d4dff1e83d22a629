/* test_arena.c - alignment, zeroing, marks, and failure of every allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/arena.h"
#include "base/mem.h"

static void blocks_are_zeroed_aligned_and_apart(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    unsigned char *last = NULL;
    for (size_t n = 0; n < 5000; n += 37) {
        unsigned char *p = pf_arena_aligned(&a, n, n % 2 == 0 ? 64 : 16);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % (n % 2 == 0 ? 64 : 16), 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 0xAB, n);
        assert_ptr_not_equal(p, last);
        last = p;
    }
    pf_arena_release(&a);
    pf_arena_release(&a);
}

static void rewind_gives_memory_back_zeroed(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    char *kept = pf_arena_strdup(&a, "kept");
    pf_arena_mark mark = pf_arena_get_mark(&a);
    size_t reserved = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) memset(pf_arena_alloc(&a, 3000), 0x55, 3000);
        if (round == 0) reserved = a.reserved;
        pf_arena_rewind(&a, mark);
        assert_int_equal(a.used, 5);
    }
    assert_int_equal(a.reserved, reserved); /* later rounds reuse the chunks of the first */
    assert_string_equal(kept, "kept");
    const unsigned char *p = pf_arena_alloc(&a, 64);
    for (int i = 0; i < 64; i++) assert_int_equal(p[i], 0);
    pf_arena_release(&a);
}

static void absurd_sizes_fail(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    assert_null(pf_arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(pf_arena_alloc(&a, SIZE_MAX));
    assert_null(pf_arena_alloc(&a, SIZE_MAX - 40));
    assert_non_null(pf_arena_alloc(&a, 1));
    pf_arena_release(&a);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    for (int n = 1; n < 10; n++) {
        pf_arena a;
        pf_arena_init(&a, "test");
        pf_alloc_fail_at(n);
        int failed = 0;
        for (int i = 0; i < 40; i++) failed += pf_arena_alloc(&a, 1000) == NULL;
        pf_alloc_fail_at(0);
        assert_true(failed <= 1);
        if (n <= 3) assert_int_equal(failed, 1);
        assert_non_null(pf_arena_alloc(&a, 1000));
        pf_arena_release(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_zeroed_aligned_and_apart),
        cmocka_unit_test(rewind_gives_memory_back_zeroed),
        cmocka_unit_test(absurd_sizes_fail),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
