/* A function beside the main thread: its result, its error, and giving it up. */
#include "base/side_job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static peft_status count(void *ctx, const pf_side_job *job, peft_error *err) {
    (void)job;
    (void)err;
    for (int i = 0; i < 1000; i++) ++*(int *)ctx;
    return PEFT_OK;
}

static peft_status fail_at_once(void *ctx, const pf_side_job *job, peft_error *err) {
    (void)ctx;
    (void)job;
    return PF_FAIL(err, PEFT_E_IO, "the disk is gone");
}

static peft_status until_cancelled(void *ctx, const pf_side_job *job, peft_error *err) {
    (void)err;
    while (!pf_side_job_cancelled(job)) usleep(100);
    *(int *)ctx = 1;
    return PEFT_OK;
}

static void test_result_and_error(void **state) {
    (void)state;
    peft_error err = {0};
    pf_side_job *job;
    int n = 0;
    assert_int_equal(pf_side_job_start(&job, count, &n, 10, &err), PEFT_OK);
    assert_int_equal(pf_side_job_wait(job, &err), PEFT_OK);
    assert_int_equal(n, 1000);
    assert_int_equal(pf_side_job_wait(job, &err), PEFT_OK); /* again */
    pf_side_job_free(job);
    assert_int_equal(pf_side_job_start(&job, fail_at_once, NULL, 10, &err), PEFT_OK);
    assert_int_equal(pf_side_job_wait(job, &err), PEFT_E_IO);
    assert_string_equal(err.message, "the disk is gone");
    pf_side_job_free(job);
}

static void test_given_up(void **state) {
    (void)state;
    peft_error err = {0};
    pf_side_job *job;
    int seen = 0;
    assert_int_equal(pf_side_job_start(&job, until_cancelled, &seen, 10, &err), PEFT_OK);
    pf_side_job_free(job); /* returns only when the function has */
    assert_int_equal(seen, 1);
    pf_side_job_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_result_and_error),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
