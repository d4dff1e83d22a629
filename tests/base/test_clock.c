/* test_clock.c - durations as tqdm prints them, times as ISO 8601. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/clock.h"

static void durations_look_like_tqdm(void **state) {
    (void)state;
    static const struct {
        double s;
        const char *text;
    } rows[] = {{0, "00:00"},    {59.4, "00:59"},     {59.5, "01:00"},   {135, "02:15"},
                {3599, "59:59"}, {3599.6, "1:00:00"}, {3735, "1:02:15"}, {360000, "100:00:00"},
                {-1, "?"},       {1e10, "?"}};
    char out[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_string_equal(pf_format_seconds(rows[i].s, out, sizeof out), rows[i].text);
    assert_string_equal(pf_format_seconds(NAN, out, sizeof out), "?");
    assert_string_equal(pf_format_seconds(INFINITY, out, sizeof out), "?");
}

static void time_goes_on(void **state) {
    (void)state;
    double a = pf_now();
    struct timespec nap = {.tv_nsec = 5000000};
    nanosleep(&nap, NULL);
    double b = pf_now();
    assert_true(b - a >= 0.005 && b - a < 60);
    assert_true(fabs(pf_wall() - (double)time(NULL)) < 5);
}

static void wall_time_is_iso(void **state) {
    (void)state;
    char out[32];
    struct tm tm = {0};
    pf_wall_iso(out, sizeof out);
    const char *end = strptime(out, "%Y-%m-%dT%H:%M:%SZ", &tm);
    assert_non_null(end);
    assert_int_equal(*end, '\0');
    assert_true(fabs((double)timegm(&tm) - pf_wall()) < 5);
    assert_string_equal(pf_wall_iso(out, 5), ""); /* too small: empty, not cut */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_look_like_tqdm),
        cmocka_unit_test(time_goes_on),
        cmocka_unit_test(wall_time_is_iso),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
