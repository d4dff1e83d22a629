/* test_file.c - reading, mapping, folders, locks. */
#include "base/base_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

static char dir[64], path[256];

static int setup(void **state) {
    (void)state;
    test_dir_new(dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_dir_free(dir);
    return 0;
}

static const char *in(const char *name) {
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void files_are_read_whole(void **state) {
    (void)state;
    pf_buf b = {0};
    test_put(in("f"), "content\n");
    assert_int_equal(pf_read_file(&b, in("f"), 100, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&b), "content\n");
    assert_int_equal(pf_read_file(&b, in("f"), 8, NULL), PEFT_OK); /* exactly the limit */
    assert_int_equal(b.len, 8);
    peft_error err = {0};
    assert_int_equal(pf_read_file(&b, in("f"), 7, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "larger than 7 B"));
    test_put(in("empty"), "");
    assert_int_equal(pf_read_file(&b, in("empty"), 7, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&b), "");
    assert_int_equal(pf_read_file(&b, in("none"), 7, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "none: No such file"));
    assert_int_equal(pf_read_file(&b, dir, 7, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "is a folder, not a file"));
    assert_int_equal(pf_read_file(&b, "/dev/zero", 1 << 20, &err), PEFT_E_FORMAT); /* endless */
    for (int n = 1; n <= 2; n++) {
        pf_buf_free(&b);
        pf_alloc_fail_at(n);
        assert_int_equal(pf_read_file(&b, in("f"), 100, &err), PEFT_E_NOMEM);
        pf_alloc_fail_at(0);
    }
    pf_buf_free(&b);
}

static void pipes_are_read(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "through a pipe", 14), 14);
    close(fds[1]);
    char name[64];
    snprintf(name, sizeof name, "/dev/fd/%d", fds[0]);
    pf_buf b = {0};
    assert_int_equal(pf_read_file(&b, name, 100, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&b), "through a pipe");
    pf_buf_free(&b);
    close(fds[0]);
}

static void files_are_mapped(void **state) {
    (void)state;
    pf_mapping m;
    test_put(in("f"), "content\n");
    assert_int_equal(pf_map_file(&m, in("f"), NULL), PEFT_OK);
    assert_int_equal(m.size, 8);
    assert_memory_equal(m.data, "content\n", 8);
    pf_unmap_file(&m);
    assert_null(m.data);
    pf_unmap_file(&m);
    pf_unmap_file(NULL);
    test_put(in("empty"), "");
    assert_int_equal(pf_map_file(&m, in("empty"), NULL), PEFT_OK);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    peft_error err = {0};
    assert_int_equal(pf_map_file(&m, in("none"), &err), PEFT_E_MISSING);
    assert_int_equal(pf_map_file(&m, dir, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "is a folder, not a file"));
    assert_int_equal(pf_map_file(&m, "/dev/null", &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "device or pipe"));
    assert_int_equal(mkfifo(in("fifo"), 0600), 0);
    alarm(10); /* opening a pipe that nobody writes must not wait */
    assert_int_equal(pf_map_file(&m, in("fifo"), &err), PEFT_E_MISSING);
    alarm(0);
    uint64_t size;
    assert_int_equal(pf_file_size(in("f"), &size, NULL), PEFT_OK);
    assert_int_equal(size, 8);
    assert_int_equal(pf_file_size(in("none"), &size, &err), PEFT_E_MISSING);
}

static void folders_are_made_with_their_parents(void **state) {
    (void)state;
    char deep[128];
    snprintf(deep, sizeof deep, "%s/a/b//c/", dir);
    assert_int_equal(pf_make_dirs(deep, NULL), PEFT_OK);
    assert_true(pf_is_dir(in("a/b/c")));
    assert_int_equal(pf_make_dirs(deep, NULL), PEFT_OK); /* again */
    test_put(in("file"), "x");
    peft_error err = {0};
    assert_int_equal(pf_make_dirs(in("file"), &err), PEFT_E_CREATE);
    assert_non_null(strstr(err.message, "is a file"));
    assert_int_not_equal(pf_make_dirs(in("file/under"), &err), PEFT_OK);
    assert_non_null(strstr(err.message, "file/under"));
    assert_int_not_equal(pf_make_dirs("/proc/nowhere/x", &err), PEFT_OK);
    assert_true(pf_path_exists(in("file")));
    assert_false(pf_path_exists(in("nothing")));
    assert_false(pf_is_dir(in("file")));
    pf_alloc_fail_at(1);
    assert_int_equal(pf_make_dirs(deep, &err), PEFT_E_NOMEM);
    pf_alloc_fail_at(0);
}

static void removing_a_tree_follows_no_link(void **state) {
    (void)state;
    char outside[64], kept[128], link[512];
    test_dir_new(outside);
    snprintf(kept, sizeof kept, "%s/kept", outside);
    test_put(kept, "precious");
    assert_int_equal(pf_make_dirs(in("tree/sub/deeper"), NULL), PEFT_OK);
    test_put(in("tree/sub/file"), "x");
    snprintf(link, sizeof link, "%s", in("tree/sub/link_to_dir"));
    assert_int_equal(symlink(outside, link), 0);
    snprintf(link, sizeof link, "%s", in("tree/link_to_file"));
    assert_int_equal(symlink(kept, link), 0);
    snprintf(link, sizeof link, "%s", in("tree/dangling"));
    assert_int_equal(symlink("/nowhere/at/all", link), 0);
    assert_int_equal(pf_remove_tree(in("tree"), NULL), PEFT_OK);
    assert_false(pf_path_exists(in("tree")));
    assert_file_is(kept, "precious");
    /* a link itself goes, what it names stays */
    snprintf(link, sizeof link, "%s", in("link"));
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(pf_remove_tree(link, NULL), PEFT_OK);
    struct stat st;
    assert_int_not_equal(lstat(link, &st), 0);
    assert_file_is(kept, "precious");
    test_put(in("file"), "x");
    assert_int_equal(pf_remove_tree(in("file"), NULL), PEFT_OK);
    assert_false(pf_path_exists(in("file")));
    assert_int_equal(pf_remove_tree(in("never was"), NULL), PEFT_OK);
    test_dir_free(outside);
}

static void removing_has_a_limit_of_depth(void **state) {
    (void)state;
    char deep[1024];
    size_t n = (size_t)snprintf(deep, sizeof deep, "%s/deep", dir);
    for (int i = 0; i < 80; i++) n += (size_t)snprintf(deep + n, sizeof deep - n, "/d");
    assert_int_equal(pf_make_dirs(deep, NULL), PEFT_OK);
    peft_error err = {0};
    assert_int_equal(pf_remove_tree(in("deep"), &err), PEFT_E_IO);
    assert_non_null(strstr(err.message, "nested too deeply"));
    n = strlen(dir) + 5 + 2 * 40;
    deep[n] = '\0'; /* in two steps it goes */
    assert_int_equal(pf_remove_tree(deep, NULL), PEFT_OK);
    assert_int_equal(pf_remove_tree(in("deep"), NULL), PEFT_OK);
}

static void names_come_sorted_by_bytes(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    char out[256];
    assert_string_equal(test_names(dir, out, sizeof out), "");
    test_put(in("b"), "");
    test_put(in("B"), "");
    test_put(in("a10"), "");
    test_put(in("a9"), "");
    test_put(in(".hidden"), "");
    assert_string_equal(test_names(dir, out, sizeof out), ".hidden B a10 a9 b");
    pf_strlist names;
    peft_error err = {0};
    assert_int_equal(pf_list_dir(&names, &a, in("none"), &err), PEFT_E_MISSING);
    assert_int_equal(pf_remove_file(in("b"), NULL), PEFT_OK);
    assert_int_equal(pf_remove_file(in("b"), NULL), PEFT_OK); /* missing is fine */
    assert_int_not_equal(pf_remove_file(dir, &err), PEFT_OK);
    pf_arena_release(&a);
}

static void paths_are_joined_and_split(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    assert_string_equal(pf_path_join(&a, "dir", "name"), "dir/name");
    assert_string_equal(pf_path_join(&a, "dir/", "name"), "dir/name");
    assert_string_equal(pf_path_join(&a, "", "name"), "name");
    assert_string_equal(pf_path_join(&a, "dir", "/abs"), "/abs");
    assert_string_equal(pf_path_base("a/b/c"), "c");
    assert_string_equal(pf_path_base("c"), "c");
    assert_string_equal(pf_path_dir(&a, "a/b/c"), "a/b");
    assert_string_equal(pf_path_dir(&a, "c"), ".");
    assert_string_equal(pf_path_dir(&a, "/c"), "/");
    pf_arena_release(&a);
}

static void a_lock_has_one_owner(void **state) {
    (void)state;
    pf_file_lock l = {.fd = -1}, second = {.fd = -1};
    char lock_path[512];
    snprintf(lock_path, sizeof lock_path, "%s", in("run.lock"));
    assert_int_equal(pf_lock_file(&l, lock_path, NULL), PEFT_OK);
    peft_error err = {0};
    char pid[32];
    snprintf(pid, sizeof pid, "pid %ld", (long)getpid());
    assert_int_equal(pf_lock_file(&second, lock_path, &err), PEFT_E_BUSY); /* same process too */
    assert_int_equal(second.fd, -1);
    assert_non_null(strstr(err.message, pid));
    assert_non_null(strstr(err.message, lock_path));
    pid_t child = fork();
    if (child == 0) {
        close(l.fd); /* the child's copy of the descriptor; the parent's holds the lock */
        _exit(pf_lock_file(&second, lock_path, NULL) == PEFT_E_BUSY ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    pf_unlock_file(&l);
    pf_unlock_file(&l);
    pf_unlock_file(NULL);
    assert_int_equal(pf_lock_file(&second, lock_path, NULL), PEFT_OK);
    pf_unlock_file(&second);
    /* a killed owner leaves no lock behind */
    child = fork();
    if (child == 0) {
        if (pf_lock_file(&l, lock_path, NULL) != PEFT_OK) _exit(1);
        raise(SIGKILL);
    }
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(pf_lock_file(&l, lock_path, NULL), PEFT_OK);
    pf_unlock_file(&l);
    assert_int_not_equal(pf_lock_file(&l, in("no/such/folder.lock"), &err), PEFT_OK);
    assert_int_equal(l.fd, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_are_read_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(pipes_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_are_made_with_their_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(removing_a_tree_follows_no_link, setup, teardown),
        cmocka_unit_test_setup_teardown(removing_has_a_limit_of_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(names_come_sorted_by_bytes, setup, teardown),
        cmocka_unit_test(paths_are_joined_and_split),
        cmocka_unit_test_setup_teardown(a_lock_has_one_owner, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
