/* metrics.jsonl and metrics.csv: what is written, what a resumed run keeps, and what happens when
 * the disk does not take it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "track/tracker.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const both[] = {"jsonl", "csv"};

typedef struct setup {
    pf_arena arena;
    char dir[256];
    pf_trackers t;
    int messages;
    char last[512];
} setup;

static void note(void *ctx, pf_log_level level, const char *text) {
    setup *s = ctx;
    (void)level;
    s->messages++;
    snprintf(s->last, sizeof s->last, "%s", text);
}

static void begin(setup *s) {
    memset(s, 0, sizeof *s);
    pf_arena_init(&s->arena, "test");
    snprintf(s->dir, sizeof s->dir, TEST_BINARY_DIR "/test_trackers_%ld", (long)getpid());
    pf_remove_tree(s->dir, NULL);
    assert_int_equal(pf_make_dirs(s->dir, NULL), PEFT_OK);
    pf_log_set_sink(note, s);
}

static void end(setup *s) {
    pf_log_set_sink(NULL, NULL);
    pf_remove_tree(s->dir, NULL);
    pf_arena_release(&s->arena);
}

static void open_both(setup *s, int64_t resume_step) {
    pf_track_run run = {.run_dir = s->dir, .resume_step = resume_step};
    peft_error err = {0};
    if (pf_trackers_open(&s->t, &s->arena, &run, both, 2, &err) != PEFT_OK)
        fail_msg("%s", err.message);
}

static void train_row(setup *s, int64_t step, double loss) {
    pf_metric m[] = {{.name = "loss", .value = loss}, {.name = "learning_rate", .value = 1e-5 / 3}};
    pf_trackers_scalars(
        &s->t, &(pf_metric_row){.step = step, .epoch = (double)step / 8, .items = m, .n = 2});
}

static void eval_row(setup *s, int64_t step, double loss) {
    pf_metric m[] = {{.name = "eval_loss", .value = loss},
                     {.name = "eval_rows", .value = 100, .whole = true}};
    pf_trackers_scalars(
        &s->t, &(pf_metric_row){.step = step, .epoch = (double)step / 8, .items = m, .n = 2});
}

static void file_is(setup *s, const char *name, const char *want) {
    char path[400];
    pf_buf text = {0};
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    assert_int_equal(pf_read_file(&text, path, 1 << 20, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&text), want);
    pf_buf_free(&text);
}

static const char jsonl_rows[] =
    "{\"step\": 1, \"epoch\": 0.125, \"loss\": 2.5, \"learning_rate\": 3.3333333333333337e-06}\n"
    "{\"step\": 2, \"epoch\": 0.25, \"loss\": \"NaN\", \"learning_rate\": "
    "3.3333333333333337e-06}\n"
    "{\"step\": 2, \"epoch\": 0.25, \"eval_loss\": 0.1, \"eval_rows\": 100}\n"
    "{\"step\": 3, \"epoch\": 0.375, \"loss\": 1.0, \"learning_rate\": 3.3333333333333337e-06}\n"
    "{\"step\": 4, \"epoch\": 0.5, \"eval_loss\": \"-Infinity\", \"eval_rows\": 100}\n";
static const char csv_rows[] = "step,epoch,loss,learning_rate,eval_loss,eval_rows\n"
                               "1,0.125,2.5,3.3333333333333337e-06,,\n"
                               "2,0.25,nan,3.3333333333333337e-06,,\n"
                               "2,0.25,,,0.1,100\n"
                               "3,0.375,1.0,3.3333333333333337e-06,,\n"
                               "4,0.5,,,-inf,100\n";

static void all_rows(setup *s, int from, int to) {
    if (from <= 1 && to >= 1) train_row(s, 1, 2.5);
    if (from <= 2 && to >= 2) train_row(s, 2, NAN);
    if (from <= 2 && to >= 2) eval_row(s, 2, 0.1);
    if (from <= 3 && to >= 3) train_row(s, 3, 1);
    if (from <= 4 && to >= 4) eval_row(s, 4, -INFINITY);
}

static void rows_are_written(void **state) {
    (void)state;
    setup s;
    begin(&s);
    open_both(&s, -1);
    all_rows(&s, 1, 4);
    pf_trackers_params(&s.t, &(pf_track_param){"a", "b"}, 1);
    pf_trackers_artifact(&s.t, s.dir);
    assert_int_equal(pf_trackers_sync(&s.t, NULL), PEFT_OK);
    pf_trackers_close(&s.t);
    file_is(&s, "metrics.jsonl", jsonl_rows);
    file_is(&s, "metrics.csv", csv_rows);
    open_both(&s, -1); /* a new run begins anew */
    pf_trackers_close(&s.t);
    file_is(&s, "metrics.jsonl", "");
    file_is(&s, "metrics.csv", "step,epoch\n");
    assert_int_equal(s.messages, 0);
    end(&s);
}

static void a_resumed_run_writes_the_same_rows(void **state) {
    (void)state;
    for (int resume = 0; resume <= 4; resume++) {
        for (int torn = 0; torn < 2; torn++) {
            setup s;
            begin(&s);
            open_both(&s, -1);
            all_rows(&s, 1, 4);
            pf_trackers_close(&s.t);
            static const char *const names[] = {"metrics.jsonl", "metrics.csv"};
            for (int i = 0; i < 2 && torn; i++) {
                char path[400];
                snprintf(path, sizeof path, "%s/%s", s.dir, names[i]);
                FILE *f = fopen(path, "ab");
                fputs(i == 0 ? "{\"step\": 4, \"epo" : "4,0.", f);
                fclose(f);
            }
            open_both(&s, resume);
            all_rows(&s, resume + 1, 4);
            pf_trackers_close(&s.t);
            file_is(&s, "metrics.jsonl", jsonl_rows);
            file_is(&s, "metrics.csv", csv_rows);
            end(&s);
        }
    }
}

static void a_full_disk_does_not_stop_the_run(void **state) {
    (void)state;
    for (int n = 1; n <= 6; n++) {
        setup s;
        begin(&s);
        open_both(&s, -1);
        train_row(&s, 1, 2.5);
        pf_file_fault(n, ENOSPC, true);
        train_row(&s, 2, NAN);
        eval_row(&s, 2, 0.1);
        pf_file_fault(0, 0, false);
        all_rows(&s, 3, 4);
        pf_trackers_close(&s.t);
        file_is(&s, "metrics.jsonl", jsonl_rows);
        file_is(&s, "metrics.csv", csv_rows);
        if (n <= 3) {
            assert_true(s.messages >= 2); /* one when it begins, one when it works again */
            assert_non_null(strstr(s.last, "works again"));
        }
        end(&s);
    }
}

static void what_is_lost_is_said(void **state) {
    (void)state;
    setup s;
    begin(&s);
    open_both(&s, -1);
    pf_file_fault(1, EIO, true);
    all_rows(&s, 1, 4);
    assert_int_equal(s.messages, 2); /* one for each tracker, not for each row */
    assert_non_null(strstr(s.last, "the run goes on"));
    pf_trackers_close(&s.t);
    pf_file_fault(0, 0, false);
    assert_int_equal(s.messages, 4);
    assert_non_null(strstr(s.last, "rows are missing there"));
    end(&s);
}

/* metrics.jsonl is the record: while it lacks rows there is no checkpoint. metrics.csv is a view.
 */
static void a_sync_fails_for_the_record_alone(void **state) {
    (void)state;
    static const char *const jsonl[] = {"jsonl"}, *const csv[] = {"csv"};
    for (int is_csv = 0; is_csv < 2; is_csv++) {
        setup s;
        begin(&s);
        pf_track_run run = {.run_dir = s.dir, .resume_step = -1};
        peft_error err = {0};
        assert_int_equal(pf_trackers_open(&s.t, &s.arena, &run, is_csv ? csv : jsonl, 1, &err),
                         PEFT_OK);
        pf_file_fault(1, ENOSPC, true);
        train_row(&s, 1, 2.5);
        assert_int_equal(s.messages, 1);
        peft_status status = pf_trackers_sync(&s.t, &err);
        assert_int_equal(s.messages, 1);
        pf_file_fault(0, 0, false);
        if (is_csv) {
            assert_int_equal(status, PEFT_OK);
        } else {
            assert_int_equal(status, PEFT_E_IO);
            assert_non_null(strstr(err.message, "metrics.jsonl"));
            assert_non_null(strstr(err.message, "No space left on device"));
        }
        assert_int_equal(pf_trackers_sync(&s.t, &err), PEFT_OK); /* there is room again */
        assert_non_null(strstr(s.last, "works again"));
        pf_trackers_close(&s.t);
        end(&s);
    }
}

static void odd_names_are_quoted(void **state) {
    (void)state;
    setup s;
    begin(&s);
    for (int round = 0; round < 2; round++) {
        open_both(&s, round == 0 ? -1 : 7);
        pf_metric m[] = {{.name = "a,b", .value = round}, {.name = "say \"x\"", .value = 2}};
        pf_trackers_scalars(&s.t, &(pf_metric_row){.step = round, .items = m, .n = 2});
        pf_trackers_close(&s.t);
    }
    file_is(&s, "metrics.csv",
            "step,epoch,\"a,b\",\"say \"\"x\"\"\"\n0,0.0,0.0,2.0\n1,0.0,1.0,2.0\n");
    end(&s);
}

static void a_foreign_table_is_begun_anew(void **state) {
    (void)state;
    setup s;
    begin(&s);
    char path[400];
    snprintf(path, sizeof path, "%s/metrics.csv", s.dir);
    assert_int_equal(pf_write_file(path, "name,value\n1,2\n", 15, NULL), PEFT_OK);
    open_both(&s, 5);
    train_row(&s, 6, 1);
    pf_trackers_close(&s.t);
    file_is(&s, "metrics.csv",
            "step,epoch,loss,learning_rate\n6,0.75,1.0,3.3333333333333337e-06\n");
    end(&s);
}

static void opening_fails_loudly(void **state) {
    (void)state;
    setup s;
    begin(&s);
    peft_error err;
    pf_track_run run = {.run_dir = s.dir, .resume_step = -1};
    const char *name = "jsnl";
    assert_int_equal(pf_trackers_open(&s.t, &s.arena, &run, &name, 1, &err), PEFT_E_CONFIG);
    assert_string_equal(err.message, "there is no tracker jsnl; did you mean jsonl?");
    run.run_dir = "/nonexistent/folder";
    assert_int_equal(pf_trackers_open(&s.t, &s.arena, &run, both, 2, &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "/nonexistent/folder/metrics.jsonl"));
    assert_int_equal(s.t.n, 0);
    for (int n = 1;; n++) {
        run.run_dir = s.dir;
        pf_alloc_fail_at(n);
        peft_status status = pf_trackers_open(&s.t, &s.arena, &run, both, 2, NULL);
        pf_alloc_fail_at(0);
        pf_trackers_close(&s.t);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    end(&s);
}

static void rows_allocate_nothing_later(void **state) {
    (void)state;
    setup s;
    begin(&s);
    open_both(&s, -1);
    for (int i = 0; i < 4; i++) {
        train_row(&s, i, 0.123456789012345678);
        eval_row(&s, i, 2);
    }
    int64_t before = pf_alloc_count();
    for (int i = 4; i < 50; i++) {
        train_row(&s, i, 0.123456789012345678);
        eval_row(&s, i, 2);
    }
    assert_int_equal(pf_alloc_count(), before);
    pf_trackers_close(&s.t);
    end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_written),
        cmocka_unit_test(a_resumed_run_writes_the_same_rows),
        cmocka_unit_test(a_full_disk_does_not_stop_the_run),
        cmocka_unit_test(what_is_lost_is_said),
        cmocka_unit_test(a_sync_fails_for_the_record_alone),
        cmocka_unit_test(odd_names_are_quoted),
        cmocka_unit_test(a_foreign_table_is_begun_anew),
        cmocka_unit_test(opening_fails_loudly),
        cmocka_unit_test(rows_allocate_nothing_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
