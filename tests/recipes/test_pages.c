/* docs/methods.md and docs/models.md are what the rows say; UPDATE_DOCS=1 writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/file.h"
#include "recipes/pages.h"

#include <stdlib.h>
#include <string.h>

static void check(const char *path, peft_status (*make)(pf_buf *out, peft_error *err)) {
    pf_buf page = {0}, stored = {0};
    peft_error err = {0};
    if (make(&page, &err) != PEFT_OK) fail_msg("%s", err.message);
    if (getenv("UPDATE_DOCS") != NULL)
        assert_int_equal(pf_write_file(path, page.data, page.len, &err), PEFT_OK);
    if (pf_read_file(&stored, path, 1 << 20, &err) != PEFT_OK) fail_msg("%s", err.message);
    if (strcmp(pf_buf_str(&page), pf_buf_str(&stored)) != 0)
        fail_msg("%s is not what the rows say; run this test with UPDATE_DOCS=1", path);
    pf_buf_free(&page);
    pf_buf_free(&stored);
}

static void methods_page_is_current(void **state) {
    (void)state;
    check(TEST_SOURCE_DIR "/docs/methods.md", pf_methods_page);
}

static void models_page_is_current(void **state) {
    (void)state;
    check(TEST_SOURCE_DIR "/docs/models.md", pf_models_page);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_page_is_current),
        cmocka_unit_test(models_page_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
