/* test_status.c - texts, exit codes, prefixes, reasons of the system, and texts that are too long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/status.h"
#include "base/str.h"

static void every_status_has_text_and_code(void **state) {
    (void)state;
    static const struct {
        peft_status status;
        int code;
    } rows[] = {{PEFT_OK, 0},         {PEFT_E_FAILED, 1},        {PEFT_E_USAGE, 2},
                {PEFT_E_DIVERGED, 5}, {PEFT_E_NOMEM, 6},         {PEFT_E_FORMAT, 65},
                {PEFT_E_SHAPE, 65},   {PEFT_E_MISSING, 66},      {PEFT_E_UNSUPPORTED, 69},
                {PEFT_E_DEVICE, 69},  {PEFT_E_STATE, 70},        {PEFT_E_CREATE, 73},
                {PEFT_E_IO, 74},      {PEFT_E_BUSY, 75},         {PEFT_E_PERMISSION, 77},
                {PEFT_E_CONFIG, 78},  {PEFT_E_INTERRUPTED, 130}, {PEFT_E_TERMINATED, 143}};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        assert_int_equal(peft_status_exit_code(rows[i].status), rows[i].code);
        assert_true(strlen(peft_status_text(rows[i].status)) > 3);
    }
    assert_int_equal(peft_status_exit_code((peft_status)999), 1);
    assert_string_equal(peft_status_text((peft_status)999), "unknown status");
}

static void failures_carry_a_text(void **state) {
    (void)state;
    peft_error err = {0};
    assert_int_equal(PF_FAIL(&err, PEFT_E_SHAPE, "x has %d columns", 3), PEFT_E_SHAPE);
    assert_int_equal(err.status, PEFT_E_SHAPE);
    assert_string_equal(err.message, "x has 3 columns");
    assert_int_equal(PF_FAIL(NULL, PEFT_E_SHAPE, "nobody listens"), PEFT_E_SHAPE);
    assert_int_equal(pf_fail_prefix(&err, PEFT_E_FORMAT, "%s:%d", "a.csv", 7), PEFT_E_FORMAT);
    assert_string_equal(err.message, "a.csv:7: x has 3 columns");
    assert_int_equal(err.status, PEFT_E_FORMAT);
    assert_int_equal(pf_fail_prefix(NULL, PEFT_E_IO, "x"), PEFT_E_IO);
    assert_int_equal(pf_fail_errno(NULL, PEFT_E_CREATE, ENOENT, "x"), PEFT_E_MISSING);
}

static void reasons_of_the_system_choose_the_status(void **state) {
    (void)state;
    static const struct {
        int errnum;
        peft_status status;
    } rows[] = {{ENOENT, PEFT_E_MISSING},   {ENOTDIR, PEFT_E_MISSING},  {EACCES, PEFT_E_PERMISSION},
                {EPERM, PEFT_E_PERMISSION}, {EROFS, PEFT_E_PERMISSION}, {ENOSPC, PEFT_E_IO},
                {EDQUOT, PEFT_E_IO},        {EIO, PEFT_E_IO},           {ENOMEM, PEFT_E_NOMEM},
                {EEXIST, PEFT_E_CREATE},    {EMFILE, PEFT_E_CREATE}};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        peft_error err = {0};
        assert_int_equal(pf_fail_errno(&err, PEFT_E_CREATE, rows[i].errnum, "cannot do %s", "it"),
                         rows[i].status);
        assert_int_equal(err.status, rows[i].status);
        assert_true(pf_starts_with(err.message, "cannot do it: "));
        assert_true(strlen(err.message) > strlen("cannot do it: "));
    }
}

static void long_texts_end_in_dots_between_characters(void **state) {
    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        static char text[3 * PEFT_ERROR_MAX];
        size_t n = 0;
        for (int i = 0; i < shift; i++) text[n++] = 'x';
        while (n < 2 * PEFT_ERROR_MAX) { /* the euro sign: three bytes */
            memcpy(text + n, "\xE2\x82\xAC", 3);
            n += 3;
        }
        text[n] = '\0';
        peft_error err = {0};
        PF_FAIL(&err, PEFT_E_FORMAT, "%s", text);
        size_t len = strlen(err.message);
        assert_true(len < PEFT_ERROR_MAX && len > PEFT_ERROR_MAX - 8);
        assert_true(pf_ends_with(err.message, "..."));
        assert_true(pf_utf8_valid(err.message, len, NULL));
        pf_fail_prefix(&err, PEFT_E_FORMAT, "in front");
        len = strlen(err.message);
        assert_true(pf_starts_with(err.message, "in front: "));
        assert_true(pf_ends_with(err.message, "..."));
        assert_true(pf_utf8_valid(err.message, len, NULL));
        err.status = PEFT_OK;
        assert_int_equal(pf_fail_prefix(&err, PEFT_E_CONFIG, "%s", text), PEFT_E_CONFIG);
        assert_int_equal(err.status, PEFT_E_CONFIG);
        assert_true(pf_utf8_valid(err.message, strlen(err.message), NULL));
        pf_fail_errno(&err, PEFT_E_IO, EIO, "%s", text);
        assert_true(strlen(err.message) < PEFT_ERROR_MAX);
    }
}

static void our_own_mistakes_abort(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(9);
        PF_ASSERT(1 + 1 == 2);
        PF_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_text_and_code),
        cmocka_unit_test(failures_carry_a_text),
        cmocka_unit_test(reasons_of_the_system_choose_the_status),
        cmocka_unit_test(long_texts_end_in_dots_between_characters),
        cmocka_unit_test(our_own_mistakes_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
