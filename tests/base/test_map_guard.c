/* A mapped file that is truncated: one line that names it, and the exit code of PEFT_E_IO; other
 * bus errors end as they always do. Each case runs in a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/map_guard.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATH TEST_BINARY_DIR "/guarded.bin"
enum { PAGES = 8, PAGE = 65536 }; /* whatever the size of a page is */

static void write_file(void) {
    static char block[PAGES * PAGE];
    peft_error err = {0};
    memset(block, 7, sizeof block);
    if (pf_write_file(PATH, block, sizeof block, &err) != PEFT_OK) fail_msg("%s", err.message);
}

/* Runs `child` with stderr in a pipe; its words and its status. */
static int run_child(void (*child)(void), char *said, size_t n) {
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        child();
        _exit(0);
    }
    close(pipes[1]);
    size_t at = 0;
    ssize_t k;
    while (at + 1 < n && (k = read(pipes[0], said + at, n - 1 - at)) > 0) at += (size_t)k;
    said[at] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void read_all(const pf_mapping *m) {
    volatile unsigned sum = 0;
    for (size_t i = 0; i < m->size; i += 512) sum += m->data[i];
    (void)sum;
}

static void truncated_child(void) {
    pf_mapping other, m;
    pf_map_guard_install();
    if (pf_map_file(&other, "/proc/self/exe", NULL) != PEFT_OK) _exit(1);
    if (pf_map_file(&m, PATH, NULL) != PEFT_OK || truncate(PATH, 100) != 0) _exit(1);
    read_all(&m);
}

static void truncated(void **state) {
    (void)state;
    char said[1024];
    write_file();
    const int status = run_child(truncated_child, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 74);
    assert_non_null(strstr(said, "error: " PATH " became shorter while it was in use"));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
}

static void whole_child(void) {
    pf_mapping m;
    pf_map_guard_install();
    for (int i = 0; i < 2 * PF_MAP_GUARD_FILES; i++) { /* entries are given back */
        if (pf_map_file(&m, PATH, NULL) != PEFT_OK) _exit(1);
        read_all(&m);
        pf_unmap_file(&m);
    }
    truncated_child();
}

static void entries_are_given_back(void **state) {
    (void)state;
    char said[1024];
    write_file();
    const int status = run_child(whole_child, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 74);
}

static void foreign_child(void) {
    pf_mapping m;
    signal(SIGBUS, SIG_DFL);
    pf_map_guard_install();
    if (pf_map_file(&m, PATH, NULL) != PEFT_OK) _exit(1);
    raise(SIGBUS); /* at no address of ours */
}

static void others_end_as_ever(void **state) {
    (void)state;
    char said[1024];
    write_file();
    const int status = run_child(foreign_child, said, sizeof said);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    assert_null(strstr(said, PATH));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated),
        cmocka_unit_test(entries_are_given_back),
        cmocka_unit_test(others_end_as_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
