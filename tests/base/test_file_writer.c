/* test_file_writer.c - a final name never holds half a file: every write, sync and rename fails
 * once, once for good, and once by the process being killed there. */
#include "base/base_test.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

enum { SIZE = 5 * 1000 * 1000 }; /* five blocks */
static char dir[64], path[128];
static unsigned char *content;

static int setup(void **state) {
    (void)state;
    test_dir_new(dir);
    snprintf(path, sizeof path, "%s/final.bin", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_file_fault(0, 0, false);
    test_dir_free(dir);
    return 0;
}

/* In pieces of odd sizes, as writers of formats do. */
static peft_status write_it(peft_error *err) {
    pf_file_writer w;
    PF_TRY(pf_file_writer_open(&w, path, err));
    for (size_t at = 0, n = 1; at < SIZE; at += n, n = n * 3 % 700001) {
        if (n > SIZE - at) n = SIZE - at;
        peft_status status = pf_file_writer_add(&w, content + at, n, err);
        if (status != PEFT_OK) {
            pf_file_writer_close(&w);
            return status;
        }
    }
    if (w.written != SIZE) return PEFT_E_FAILED;
    return pf_file_writer_commit(&w, err);
}

static bool is_complete(void) {
    pf_mapping m;
    if (pf_map_file(&m, path, NULL) != PEFT_OK) return false;
    bool same = m.size == SIZE && memcmp(m.data, content, SIZE) == 0;
    pf_unmap_file(&m);
    return same;
}

static void a_file_appears_whole(void **state) {
    (void)state;
    char names[256];
    assert_int_equal(write_it(NULL), PEFT_OK);
    assert_true(is_complete());
    assert_string_equal(test_names(dir, names, sizeof names), "final.bin");
    assert_int_equal(write_it(NULL), PEFT_OK); /* over the old one */
    assert_int_equal(pf_write_file(path, "short", 5, NULL), PEFT_OK);
    assert_file_is(path, "short");
    assert_int_equal(pf_write_file(path, NULL, 0, NULL), PEFT_OK);
    assert_file_is(path, "");
}

static void closing_without_commit_leaves_nothing(void **state) {
    (void)state;
    char names[256];
    pf_file_writer w;
    assert_int_equal(pf_file_writer_open(&w, path, NULL), PEFT_OK);
    assert_int_equal(pf_file_writer_add(&w, content, SIZE, NULL), PEFT_OK);
    pf_file_writer_close(&w);
    pf_file_writer_close(&w);
    pf_file_writer_close(NULL);
    assert_string_equal(test_names(dir, names, sizeof names), "");
    test_put(path, "old");
    assert_int_equal(pf_file_writer_open(&w, path, NULL), PEFT_OK);
    pf_file_writer_close(&w);
    assert_file_is(path, "old");
}

static void two_writers_of_one_name_do_not_meet(void **state) {
    (void)state;
    pf_file_writer a, b;
    assert_int_equal(pf_file_writer_open(&a, path, NULL), PEFT_OK);
    assert_int_equal(pf_file_writer_open(&b, path, NULL), PEFT_OK);
    pf_file_writer_add(&a, "aaa", 3, NULL);
    pf_file_writer_add(&b, "b", 1, NULL);
    assert_int_equal(pf_file_writer_commit(&a, NULL), PEFT_OK);
    assert_file_is(path, "aaa");
    assert_int_equal(pf_file_writer_commit(&b, NULL), PEFT_OK);
    assert_file_is(path, "b");
}

/* The file before: absent or old. After a failure it is as before, or (when only the folder's sync
 * failed) the whole new one; a temporary file never stays. */
static void every_operation_may_fail(void **state) {
    (void)state;
    int64_t before = pf_file_ops();
    assert_int_equal(write_it(NULL), PEFT_OK);
    int64_t n_ops = pf_file_ops() - before;
    assert_int_equal(n_ops, 5 + 1 + 1 + 1); /* five blocks, sync, rename, sync of the folder */
    static const int reasons[] = {ENOSPC, EIO, EROFS};
    for (int old = 0; old < 2; old++) {
        for (int forever = 0; forever < 2; forever++) {
            for (int64_t n = 1; n <= n_ops; n++) {
                int reason = reasons[n % 3];
                unlink(path);
                if (old) test_put(path, "old");
                peft_error err = {0};
                pf_file_fault(n, reason, forever);
                peft_status status = write_it(&err);
                pf_file_fault(0, 0, false);
                assert_int_equal(status, reason == EROFS ? PEFT_E_PERMISSION : PEFT_E_IO);
                assert_non_null(strstr(err.message, strerror(reason)));
                assert_non_null(strstr(err.message, n == n_ops ? dir : path));
                char names[256];
                test_names(dir, names, sizeof names);
                if (n == n_ops) {
                    assert_string_equal(names, "final.bin");
                    assert_true(is_complete());
                } else {
                    assert_string_equal(names, old ? "final.bin" : "");
                    if (old) assert_file_is(path, "old");
                }
                assert_int_equal(write_it(NULL), PEFT_OK); /* and it works again */
            }
        }
    }
}

static void a_kill_leaves_old_or_new(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 8; n++) {
        test_put(path, "old");
        pid_t child = fork();
        if (child == 0) {
            pf_file_fault(n, -1, false);
            write_it(NULL);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (n == 8)
            assert_true(is_complete());
        else
            assert_file_is(path, "old");
    }
}

static void a_failed_write_cannot_be_committed(void **state) {
    (void)state;
    char names[256];
    pf_file_writer w;
    peft_error err = {0};
    assert_int_equal(pf_file_writer_open(&w, path, NULL), PEFT_OK);
    pf_file_fault(1, ENOSPC, false);
    assert_int_equal(pf_file_writer_add(&w, content, SIZE, &err), PEFT_E_IO);
    pf_file_fault(0, 0, false);
    assert_string_equal(test_names(dir, names, sizeof names), ""); /* the space is free at once */
    assert_int_not_equal(pf_file_writer_add(&w, content, SIZE, &err), PEFT_OK);
    assert_int_not_equal(pf_file_writer_commit(&w, &err), PEFT_OK);
    assert_string_equal(test_names(dir, names, sizeof names), "");
}

static void opening_may_fail(void **state) {
    (void)state;
    char names[256];
    peft_error err = {0};
    for (int n = 1; n <= 3; n++) {
        pf_alloc_fail_at(n);
        assert_int_equal(pf_write_file(path, "x", 1, &err), PEFT_E_NOMEM);
        pf_alloc_fail_at(0);
    }
    assert_string_equal(test_names(dir, names, sizeof names), "");
    assert_int_equal(pf_write_file("/nonexistent/x", "x", 1, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "cannot create /nonexistent/x"));
    assert_int_not_equal(pf_write_file("/proc/x", "x", 1, &err), PEFT_OK);
    /* a name that a folder has */
    char sub[160];
    snprintf(sub, sizeof sub, "%s/sub", dir);
    assert_int_equal(pf_make_dirs(sub, NULL), PEFT_OK);
    assert_int_not_equal(pf_write_file(sub, "x", 1, &err), PEFT_OK);
    assert_string_equal(test_names(dir, names, sizeof names), "sub");
}

static void syncing_and_renaming_count(void **state) {
    (void)state;
    char other[160];
    snprintf(other, sizeof other, "%s/other", dir);
    test_put(path, "x");
    int64_t before = pf_file_ops();
    assert_int_equal(pf_sync_file(path, NULL), PEFT_OK);
    assert_int_equal(pf_sync_dir(dir, NULL), PEFT_OK);
    assert_int_equal(pf_rename(path, other, NULL), PEFT_OK);
    assert_int_equal(pf_file_ops() - before, 3);
    peft_error err = {0};
    assert_int_equal(pf_sync_file(path, &err), PEFT_E_MISSING);
    assert_int_equal(pf_sync_dir(other, &err), PEFT_E_MISSING);
    assert_int_equal(pf_rename(path, other, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "cannot rename"));
}

int main(void) {
    content = malloc(SIZE);
    if (content == NULL) return 1;
    for (size_t i = 0; i < SIZE; i++) content[i] = (unsigned char)(i * 2654435761u >> 13);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_appears_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_without_commit_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(two_writers_of_one_name_do_not_meet, setup, teardown),
        cmocka_unit_test_setup_teardown(every_operation_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kill_leaves_old_or_new, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_cannot_be_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(opening_may_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(syncing_and_renaming_count, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(content);
    return failed;
}
