/* data_test.h - small helpers of the tests in this folder: files in the build folder, and messages.
 */
#ifndef DATA_TEST_H
#define DATA_TEST_H

#include "base/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Path of a file with this content; the name's extension is what readers see. A few names may be in
 * use at a time. Each test has a folder of its own: they run side by side. */
static inline const char *write_bytes(const char *name, const void *data, size_t n) {
    static char paths[4][512];
    static int at;
    char *path = paths[at++ % 4];
    char dir[400];
    const char *test = strrchr(__BASE_FILE__, '/');
    snprintf(dir, sizeof dir, "%s/test_data/%s", TEST_BINARY_DIR,
             test != NULL ? test + 1 : __BASE_FILE__);
    assert_int_equal(pf_make_dirs(dir, NULL), PEFT_OK);
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    assert_int_equal(pf_write_file(path, data, n, NULL), PEFT_OK);
    return path;
}

static inline const char *write_text(const char *name, const char *text) {
    return write_bytes(name, text, strlen(text));
}

static inline void assert_says(const peft_error *err, const char *text) {
    if (strstr(err->message, text) == NULL)
        fail_msg("the message '%s' does not say '%s'", err->message, text);
}

static inline void assert_text(pf_str s, const char *text) {
    if (s.n != strlen(text) || memcmp(s.p, text, s.n) != 0)
        fail_msg("'%.*s' is not '%s'", (int)s.n, s.p, text);
}

#endif
