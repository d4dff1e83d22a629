/* test_map.c - lookups, order of insertion, keys with NULs, and failure of each allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/map.h"
#include "base/mem.h"

static void finds_what_was_put(void **state) {
    (void)state;
    pf_map m;
    pf_map_init(&m);
    assert_null(pf_map_finds(&m, "absent"));
    enum { N = 20000 };
    char key[32];
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "key%d", i);
        bool existed = true;
        assert_int_equal(pf_map_put(&m, key, strlen(key), i, NULL, &existed, NULL), PEFT_OK);
        assert_false(existed);
    }
    assert_int_equal(m.n, N);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "key%d", i);
        const pf_map_entry *e = pf_map_finds(&m, key);
        assert_non_null(e);
        assert_int_equal(e->value, i);
        assert_string_equal(m.entries[i].key, key); /* in order of insertion */
    }
    assert_null(pf_map_finds(&m, "key20000"));
    assert_null(pf_map_finds(&m, ""));
    pf_map_release(&m);
    pf_map_release(&m);
    pf_map_release(NULL);
}

static void putting_again_overwrites_in_place(void **state) {
    (void)state;
    pf_map m;
    pf_map_init(&m);
    bool existed;
    int there;
    pf_map_put(&m, "a", 1, 1, NULL, NULL, NULL);
    pf_map_put(&m, "b", 1, 2, NULL, NULL, NULL);
    assert_int_equal(pf_map_put(&m, "a", 1, 3, &there, &existed, NULL), PEFT_OK);
    assert_true(existed);
    assert_int_equal(m.n, 2);
    assert_string_equal(m.entries[0].key, "a");
    assert_int_equal(pf_map_finds(&m, "a")->value, 3);
    assert_ptr_equal(pf_map_finds(&m, "a")->ptr, &there);
    pf_map_release(&m);
}

static void keys_are_bytes(void **state) {
    (void)state;
    pf_map m;
    pf_map_init(&m);
    char key[] = "a\0b";
    pf_map_put(&m, key, 3, 1, NULL, NULL, NULL);
    pf_map_put(&m, key, 2, 2, NULL, NULL, NULL);
    pf_map_put(&m, key, 1, 3, NULL, NULL, NULL);
    pf_map_put(&m, "", 0, 4, NULL, NULL, NULL);
    memset(key, 'z', 3); /* the map has copies */
    assert_int_equal(pf_map_find(&m, "a\0b", 3)->value, 1);
    assert_int_equal(pf_map_find(&m, "a\0", 2)->value, 2);
    assert_int_equal(pf_map_finds(&m, "a")->value, 3);
    assert_int_equal(pf_map_find(&m, "", 0)->value, 4);
    assert_null(pf_map_find(&m, "a\0c", 3));
    pf_map_release(&m);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t before = pf_alloc_count();
    pf_map probe;
    pf_map_init(&probe);
    char key[32];
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "model.layers.%d", i);
        pf_map_put(&probe, key, strlen(key), i, NULL, NULL, NULL);
    }
    int64_t n_allocations = pf_alloc_count() - before;
    pf_map_release(&probe);
    assert_true(n_allocations >= 10);
    for (int64_t n = 1; n <= n_allocations; n++) {
        pf_map m;
        pf_map_init(&m);
        pf_alloc_fail_at(n);
        int failed = 0;
        for (int i = 0; i < 300; i++) {
            snprintf(key, sizeof key, "model.layers.%d", i);
            peft_error err = {0};
            peft_status s = pf_map_put(&m, key, strlen(key), i, NULL, NULL, &err);
            if (s != PEFT_OK) {
                assert_int_equal(s, PEFT_E_NOMEM);
                assert_non_null(strstr(err.message, "memory"));
                assert_null(pf_map_finds(&m, key));
                failed++;
                i--; /* again: the map must be as it was */
            }
        }
        pf_alloc_fail_at(0);
        assert_int_equal(failed, 1);
        assert_int_equal(m.n, 300);
        for (int i = 0; i < 300; i++) {
            snprintf(key, sizeof key, "model.layers.%d", i);
            assert_int_equal(pf_map_finds(&m, key)->value, i);
        }
        pf_map_release(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_put),
        cmocka_unit_test(putting_again_overwrites_in_place),
        cmocka_unit_test(keys_are_bytes),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
