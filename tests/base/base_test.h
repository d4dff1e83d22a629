/* base_test.h - a scratch folder of a test, and looking into it. */
#ifndef BASE_TEST_H
#define BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"

static inline char *test_dir_new(char path[64]) {
    snprintf(path, 64, "/tmp/peft-test-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static inline void test_dir_free(const char *path) {
    assert_int_equal(pf_remove_tree(path, NULL), PEFT_OK);
}

/* The names in a folder, joined with spaces; the caller's buffer. */
static inline const char *test_names(const char *dir, char *out, size_t size) {
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_strlist names;
    assert_int_equal(pf_list_dir(&names, &a, dir, NULL), PEFT_OK);
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; i < names.n; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", i > 0 ? " " : "", names.items[i]);
    pf_arena_release(&a);
    return out;
}

static inline void test_put(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void assert_file_is(const char *path, const char *text) {
    pf_buf b = {0};
    assert_int_equal(pf_read_file(&b, path, 1 << 20, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&b), text);
    pf_buf_free(&b);
}

#endif
