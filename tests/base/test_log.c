/* test_log.c - levels, sinks, the log file, and names that try to steer the terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"

static void keep(void *ctx, pf_log_level level, const char *text) {
    pf_buf_addf(ctx, "%d %s|", (int)level, text);
}

static void levels_choose_what_is_shown(void **state) {
    (void)state;
    static const char *const expected[] = {"0 e|", "0 e|1 w|", "0 e|1 w|2 i|", "0 e|1 w|2 i|3 d|"};
    for (int level = PF_LOG_ERROR; level <= PF_LOG_DEBUG; level++) {
        pf_buf seen = {0};
        pf_log_set_sink(keep, &seen);
        pf_log_set_level((pf_log_level)level);
        assert_int_equal(pf_log_get_level(), level);
        PF_ERROR("%s", "e");
        PF_WARN("%s", "w");
        PF_INFO("%s", "i");
        PF_DEBUG("%s", "d");
        pf_log_set_sink(NULL, NULL);
        assert_string_equal(pf_buf_str(&seen), expected[level]);
        pf_buf_free(&seen);
    }
    pf_log_set_level(PF_LOG_INFO);
}

static void control_characters_do_not_pass(void **state) {
    (void)state;
    pf_buf seen = {0};
    pf_log_set_sink(keep, &seen);
    PF_ERROR("unknown key '\x1b[31mred\x07' \xC2\x9B\x7F caf\xC3\xA9\ttab\nline");
    pf_log_progress(true, "at\x1b[0m");
    pf_log_set_sink(NULL, NULL);
    assert_string_equal(pf_buf_str(&seen),
                        "0 unknown key '?[31mred?' ??? caf\xC3\xA9\ttab\nline|2 at?[0m|");
    pf_buf_free(&seen);
}

static void very_long_messages_are_cut(void **state) {
    (void)state;
    pf_buf seen = {0}, text = {0};
    for (int i = 0; i < 5000; i++) pf_buf_adds(&text, "long ");
    pf_log_set_sink(keep, &seen);
    PF_INFO("%s", pf_buf_str(&text));
    pf_log_set_sink(NULL, NULL);
    assert_true(seen.len > 8000 && seen.len < 8300);
    pf_buf_free(&seen);
    pf_buf_free(&text);
}

/* What a child with its own stderr writes there. */
static char *stderr_of(void (*say)(void), char *out, size_t size) {
    fflush(NULL);
    char path[] = "/tmp/peft-log-XXXXXX";
    int fd = mkstemp(path), saved = dup(STDERR_FILENO);
    assert_true(fd >= 0);
    dup2(fd, STDERR_FILENO);
    say();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    lseek(fd, 0, SEEK_SET);
    ssize_t n = read(fd, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    unlink(path);
    return out;
}

static void say_three(void) {
    PF_ERROR("one");
    PF_WARN("two");
    PF_INFO("three");
    pf_log_progress(true, "four");
    for (int i = 0; i < 100; i++) pf_log_progress(false, "within ten seconds: not shown");
}

static void files_get_no_colour_and_no_carriage_return(void **state) {
    (void)state;
    char out[512];
    assert_string_equal(stderr_of(say_three, out, sizeof out),
                        "error: one\nwarning: two\nthree\nfour\n");
    assert_false(pf_stderr_is_terminal() && getenv("TERM") == NULL);
}

static void a_log_file_gets_the_time(void **state) {
    (void)state;
    char path[] = "/tmp/peft-log-XXXXXX", text[512] = "";
    int fd = mkstemp(path);
    pf_buf seen = {0};
    pf_log_set_sink(keep, &seen);
    pf_log_set_file(fd);
    PF_WARN("first");
    PF_DEBUG("not shown, not logged");
    pf_log_set_file(-1);
    PF_WARN("second");
    pf_log_set_sink(NULL, NULL);
    lseek(fd, 0, SEEK_SET);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    unlink(path);
    assert_string_equal(text + strlen("2026-01-31T12:00:00Z"), " first\n");
    assert_int_equal(text[10], 'T');
    pf_buf_free(&seen);
}

static void *talk(void *arg) {
    for (int i = 0; i < 500; i++) PF_INFO("%s", (const char *)arg);
    return NULL;
}

static void talk_all(void) {
    static char words[4][64];
    pthread_t threads[4];
    for (int t = 0; t < 4; t++) {
        memset(words[t], 'a' + t, 40);
        pthread_create(&threads[t], NULL, talk, words[t]);
    }
    for (int t = 0; t < 4; t++) pthread_join(threads[t], NULL);
}

static void lines_of_threads_do_not_mix(void **state) {
    (void)state;
    static char out[1 << 18];
    stderr_of(talk_all, out, sizeof out);
    int lines = 0;
    for (char *p = out; *p != '\0'; p += 41, lines++) {
        for (int i = 1; i < 40; i++) assert_int_equal(p[i], p[0]);
        assert_int_equal(p[40], '\n');
    }
    assert_int_equal(lines, 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_choose_what_is_shown),
        cmocka_unit_test(control_characters_do_not_pass),
        cmocka_unit_test(very_long_messages_are_cut),
        cmocka_unit_test(files_get_no_colour_and_no_carriage_return),
        cmocka_unit_test(a_log_file_gets_the_time),
        cmocka_unit_test(lines_of_threads_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
