/* The folder of a run: who is refused, what is overwritten, what is recorded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "train/git_head.h"
#include "train/run_dir.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct setup {
    pf_arena arena;
    char root[256], dir[300], config[400];
    peft_error err;
} setup;

static void put(setup *s, const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", s->root, name);
    char *dir = pf_path_dir(&s->arena, path);
    assert_int_equal(pf_make_dirs(dir, NULL), PEFT_OK);
    assert_int_equal(pf_write_file(path, text, strlen(text), NULL), PEFT_OK);
}

static bool there(setup *s, const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", s->root, name);
    return pf_path_exists(path);
}

static void says(setup *s, const char *name, const char *want) {
    char path[700];
    pf_buf text = {0};
    snprintf(path, sizeof path, "%s/%s", s->root, name);
    assert_int_equal(pf_read_file(&text, path, 1 << 20, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&text), want);
    pf_buf_free(&text);
}

static void begin(setup *s) {
    memset(s, 0, sizeof *s);
    pf_arena_init(&s->arena, "test");
    snprintf(s->root, sizeof s->root, TEST_BINARY_DIR "/test_run_dir_%ld", (long)getpid());
    pf_remove_tree(s->root, NULL);
    assert_int_equal(pf_make_dirs(s->root, NULL), PEFT_OK);
    snprintf(s->dir, sizeof s->dir, "%s/out", s->root);
    snprintf(s->config, sizeof s->config, "%s/run.yaml", s->root);
    put(s, "run.yaml", "seed: 1\n");
}

static void end(setup *s) {
    pf_remove_tree(s->root, NULL);
    pf_arena_release(&s->arena);
}

static peft_status open_it(setup *s, pf_run_dir *d, bool resume, bool overwrite) {
    return pf_run_dir_open(d,
                           &(pf_run_dir_options){.path = s->dir,
                                                 .resume = resume,
                                                 .overwrite = overwrite,
                                                 .config_path = s->config,
                                                 .resolved_json = "{}\n"},
                           &s->err);
}

static void a_new_run_records_its_configuration(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    assert_int_equal(open_it(&s, &d, false, false), PEFT_OK);
    assert_false(d.finished);
    says(&s, "out/config.yaml", "seed: 1\n");
    says(&s, "out/config.resolved.json", "{}\n");
    PF_INFO("for the log");
    pf_run_dir_close(&d);
    pf_run_dir_close(&d); /* twice is fine */
    pf_buf log = {0};
    char path[400];
    snprintf(path, sizeof path, "%s/train.log", s.dir);
    assert_int_equal(pf_read_file(&log, path, 1 << 20, NULL), PEFT_OK);
    assert_non_null(strstr(pf_buf_str(&log), "for the log\n"));
    pf_buf_free(&log);
    end(&s);
}

static void a_folder_that_holds_a_run_is_refused(void **state) {
    (void)state;
    static const char *const held[] = {"config.resolved.json", "metrics.jsonl",
                                       "adapter_model.safetensors", "finished", "checkpoint-20/x"};
    for (size_t i = 0; i < PF_COUNT(held); i++) {
        setup s;
        begin(&s);
        char name[100], want[700];
        snprintf(name, sizeof name, "out/%s", held[i]);
        put(&s, name, "");
        pf_run_dir d;
        assert_int_equal(open_it(&s, &d, false, false), PEFT_E_CREATE);
        snprintf(want, sizeof want,
                 "%s holds a run already (%s); continue it with --resume, replace it with "
                 "--overwrite, or choose another training.output_dir",
                 s.dir, i == 4 ? "checkpoint-20" : held[i]);
        assert_string_equal(s.err.message, want);
        assert_false(there(&s, "out/train.log"));
        end(&s);
    }
}

static void overwriting_removes_what_runs_write(void **state) {
    (void)state;
    setup s;
    begin(&s);
    static const char *const gone[] = {"finished",         "metrics.jsonl",
                                       "metrics.csv",      "checkpoint-20/state.safetensors",
                                       "report.html",      "superseded-checkpoint-30-2/x",
                                       "environment.json", "trainer_state.json"};
    static const char *const stay[] = {"data.csv", "checkpoint-best/x", "notes/a.txt", ".env",
                                       "checkpoint-"};
    char name[200];
    for (size_t i = 0; i < PF_COUNT(gone) + PF_COUNT(stay); i++) {
        snprintf(name, sizeof name, "out/%s",
                 i < PF_COUNT(gone) ? gone[i] : stay[i - PF_COUNT(gone)]);
        put(&s, name, "old");
    }
    put(&s, "out/config.yaml", "seed: 9\n");
    pf_run_dir d;
    assert_int_equal(open_it(&s, &d, false, true), PEFT_OK);
    says(&s, "out/config.yaml", "seed: 1\n");
    pf_run_dir_close(&d);
    for (size_t i = 0; i < PF_COUNT(gone); i++) {
        snprintf(name, sizeof name, "out/%s", gone[i]);
        if (there(&s, name)) fail_msg("%s", name);
    }
    for (size_t i = 0; i < PF_COUNT(stay); i++) {
        snprintf(name, sizeof name, "out/%s", stay[i]);
        says(&s, name, "old");
    }
    end(&s);
}

static void the_users_configuration_is_safe(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    /* it lies in the output folder itself, under the name of the copy */
    put(&s, "out/config.yaml", "seed: 3\n");
    snprintf(s.config, sizeof s.config, "%s/./config.yaml", s.dir);
    assert_int_equal(open_it(&s, &d, false, false), PEFT_OK);
    pf_run_dir_close(&d);
    says(&s, "out/config.yaml", "seed: 3\n");
    assert_int_equal(open_it(&s, &d, false, true), PEFT_OK);
    pf_run_dir_close(&d);
    says(&s, "out/config.yaml", "seed: 3\n");
    end(&s);

    begin(&s); /* another file of that name, in a folder without a run */
    put(&s, "out/config.yaml", "of: somebody else\n");
    assert_int_equal(open_it(&s, &d, false, true), PEFT_E_CREATE);
    assert_non_null(strstr(s.err.message, "out/config.yaml is there already and is not "));
    says(&s, "out/config.yaml", "of: somebody else\n");
    end(&s);
}

static void resuming_tidies_and_a_finished_run_is_left_alone(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    assert_int_equal(open_it(&s, &d, true, false), PEFT_OK); /* no run yet: it begins */
    pf_run_dir_close(&d);
    put(&s, "out/.tmp-checkpoint-5-00/x", "");
    put(&s, "out/.metrics.jsonl.tmp-12-3", "");
    put(&s, "out/train.log", "before\n");
    assert_int_equal(open_it(&s, &d, true, false), PEFT_OK);
    assert_false(there(&s, "out/.tmp-checkpoint-5-00"));
    assert_false(there(&s, "out/.metrics.jsonl.tmp-12-3"));
    says(&s, "out/train.log", "before\n");
    assert_int_equal(pf_run_dir_mark_finished(&d, NULL), PEFT_OK);
    pf_run_dir_close(&d);
    put(&s, "out/config.resolved.json", "the finished one\n");
    assert_int_equal(open_it(&s, &d, true, false), PEFT_OK);
    assert_true(d.finished);
    pf_run_dir_close(&d);
    says(&s, "out/config.resolved.json", "the finished one\n");
    end(&s);
}

static void one_process_at_a_time(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    assert_int_equal(open_it(&s, &d, false, false), PEFT_OK);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        pf_run_dir other;
        bool busy = open_it(&s, &other, true, false) == PEFT_E_BUSY &&
                    strstr(s.err.message, "is being trained right now") != NULL &&
                    strstr(s.err.message, "pid") != NULL;
        _exit(busy ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    pf_run_dir_close(&d);
    assert_int_equal(open_it(&s, &d, true, false), PEFT_OK); /* and then the next */
    pf_run_dir_close(&d);
    end(&s);
}

static void what_cannot_be_written_is_said(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    put(&s, "out", "a file"); /* where the folder should be */
    assert_int_equal(open_it(&s, &d, false, false), PEFT_E_CREATE);
    assert_non_null(strstr(s.err.message, "training.output_dir: "));
    assert_null(d.path);
    end(&s);
    begin(&s);
    snprintf(s.config, sizeof s.config, "%s/missing.yaml", s.root);
    assert_int_equal(open_it(&s, &d, false, false), PEFT_E_MISSING);
    end(&s);
    begin(&s);
    for (int n = 1;; n++) {
        pf_alloc_fail_at(n);
        peft_status status = open_it(&s, &d, true, false);
        pf_alloc_fail_at(0);
        pf_run_dir_close(&d);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    end(&s);
}

static void the_environment_is_recorded(void **state) {
    (void)state;
    setup s;
    begin(&s);
    pf_run_dir d;
    assert_int_equal(open_it(&s, &d, false, false), PEFT_OK);
    put(&s, "work/.git/HEAD", "ref: refs/heads/main\n");
    put(&s, "work/.git/refs/heads/main", "0123456789abcdef0123456789abcdef01234567\n");
    char work[400];
    snprintf(work, sizeof work, "%s/work", s.root);
    const pf_named_text hashes[] = {{"base", "abc"}, {"da\"ta", NULL}};
    const pf_environment_cfg cfg = {.threads = 3,
                                    .command = "peft-toolkit train \"x\"",
                                    .work_dir = work,
                                    .hashes = hashes,
                                    .n_hashes = 2};
    assert_int_equal(pf_run_dir_environment(&d, &cfg, &s.err), PEFT_OK);
    char path[400];
    snprintf(path, sizeof path, "%s/environment.json", s.dir);
    json_error_t e;
    json_t *env = json_load_file(path, 0, &e);
    if (env == NULL) fail_msg("%s", e.text);
    const char *sha, *command, *base, *jansson;
    int threads, cores;
    assert_int_equal(json_unpack(env, "{s:s,s:s,s:i,s:i,s:{s:s,s:n},s:{s:s},s:{}}", "git_sha", &sha,
                                 "command", &command, "threads", &threads, "cores", &cores,
                                 "sha256", "base", &base, "da\"ta", "libraries", "jansson",
                                 &jansson, "more"),
                     0);
    assert_string_equal(sha, "0123456789abcdef0123456789abcdef01234567");
    assert_string_equal(command, cfg.command);
    assert_string_equal(jansson, jansson_version_str());
    assert_true(threads == 3 && cores >= 1);
    json_decref(env);
    pf_buf text = {0};
    snprintf(path, sizeof path, "%s/requirements.txt", s.dir);
    assert_int_equal(pf_read_file(&text, path, 1 << 16, NULL), PEFT_OK);
    assert_true(pf_starts_with(pf_buf_str(&text), "peft-toolkit==" PEFT_VERSION "\nglibc=="));
    assert_non_null(strstr(pf_buf_str(&text), "\njansson=="));
    pf_buf_free(&text);
    pf_run_dir_close(&d);
    end(&s);
}

static void head_is(setup *s, const char *dir, const char *want) {
    char path[700], sha[PF_GIT_SHA];
    const char *root;
    snprintf(path, sizeof path, "%s/%s", s->root, dir);
    assert_int_equal(pf_git_head(path, &s->arena, sha, &root, NULL), PEFT_OK);
    assert_string_equal(sha, want);
    assert_true((root != NULL) == (want[0] != '\0'));
}

#define SHA1 "0123456789abcdef0123456789abcdef01234567"
#define SHA2 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void commits_are_found_without_git(void **state) {
    (void)state;
    setup s;
    begin(&s);
    put(&s, "a/.git/HEAD", SHA1 "\n"); /* detached */
    put(&s, "a/deep/er/x", "");
    head_is(&s, "a/deep/er", SHA1);
    put(&s, "b/.git/HEAD", "ref: refs/heads/x\n"); /* packed */
    put(&s, "b/.git/packed-refs",
        "# pack-refs with: peeled\n" SHA2 " refs/heads/xx\n" SHA1 " refs/heads/x\n^" SHA2 "\n");
    head_is(&s, "b", SHA1);
    put(&s, "b/.git/refs/heads/x", SHA2 "\n"); /* a loose one is newer */
    head_is(&s, "b", SHA2);
    put(&s, "c/.git", "gitdir: ../b/.git/worktrees/c\n"); /* a work tree */
    put(&s, "b/.git/worktrees/c/commondir", "../..\n");
    put(&s, "b/.git/worktrees/c/HEAD", "ref: refs/heads/x\n");
    head_is(&s, "c", SHA2);
    put(&s, "d/.git/HEAD", "ref: refs/heads/new\n"); /* no commit yet */
    head_is(&s, "d", "");
    put(&s, "e/.git/HEAD", "ref: refs/../../../etc/passwd\n");
    head_is(&s, "e", "");
    put(&s, "f/.git/HEAD", "ref: refs/heads/f\n"); /* refs that go round */
    put(&s, "f/.git/refs/heads/f", "ref: refs/heads/f\n");
    head_is(&s, "f", "");
    put(&s, "g/.git/HEAD", "");
    head_is(&s, "g", "");
    head_is(&s, "there/is/none", "");
    end(&s);
}

static void this_repository_is_found(void **state) {
    (void)state;
    if (!pf_path_exists(TEST_SOURCE_DIR "/.git")) {
        print_message("skipped: these sources are no git checkout\n");
        skip();
    }
    FILE *git = popen("git -C " TEST_SOURCE_DIR " rev-parse HEAD 2>/dev/null", "r");
    char want[100] = "", sha[PF_GIT_SHA];
    assert_non_null(git);
    if (fgets(want, sizeof want, git) == NULL) want[0] = '\0';
    if (pclose(git) != 0) {
        print_message("skipped: git is not installed, or does not read this checkout\n");
        skip();
    }
    want[strcspn(want, "\n")] = '\0';
    pf_arena a;
    const char *root;
    pf_arena_init(&a, "test");
    assert_int_equal(pf_git_head(TEST_SOURCE_DIR "/src", &a, sha, &root, NULL), PEFT_OK);
    assert_string_equal(sha, want);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_run_records_its_configuration),
        cmocka_unit_test(a_folder_that_holds_a_run_is_refused),
        cmocka_unit_test(overwriting_removes_what_runs_write),
        cmocka_unit_test(the_users_configuration_is_safe),
        cmocka_unit_test(resuming_tidies_and_a_finished_run_is_left_alone),
        cmocka_unit_test(one_process_at_a_time),
        cmocka_unit_test(what_cannot_be_written_is_said),
        cmocka_unit_test(the_environment_is_recorded),
        cmocka_unit_test(commits_are_found_without_git),
        cmocka_unit_test(this_repository_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
