/* trainer_state.json against transformers' own (tools/make_trainer_state_fixture.py), and read
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/trainer_state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const pf_early_stopping stopping = {.patience = 3, .threshold = 0.5, .waited = 2};

static peft_status fill(pf_trainer_state *s, pf_arena *a) {
    pf_trainer_state_init(s, a);
    s->epoch = 1.5;
    s->global_step = 30;
    s->max_steps = 60;
    s->logging_steps = 10;
    s->eval_steps = 20;
    s->save_steps = 30;
    s->train_batch_size = 4;
    s->num_train_epochs = 3;
    s->num_input_tokens_seen = 12345;
    s->total_flos = 1.25e15;
    s->has_best = true;
    s->best_metric = 41.25;
    s->best_global_step = 20;
    s->best_model_checkpoint = "outputs/Größe/checkpoint-20";
    s->stopping = &stopping;
    s->should_save = true;
    const struct {
        int64_t step;
        double epoch;
        pf_metric m[4];
    } rows[] = {
        {10,
         0.5,
         {{"loss", 2.3456789012345678, 0}, {"grad_norm", 1e-05, 0}, {"learning_rate", 2e-4, 0}}},
        {20,
         1,
         {{"loss", 1, 0},
          {"grad_norm", 123456789.0, 0},
          {"learning_rate", 1.9999999999999998e-04, 0}}},
        {20,
         1,
         {{"eval_loss", 1.5, 0},
          {"eval_exact_match", 41.25, 0},
          {"eval_runtime", 0.0123, 0},
          {"eval_samples", 40, 1}}},
        {30,
         1.5,
         {{"loss", 1e16, 0}, {"grad_norm", 3.0000000000000004, 0}, {"learning_rate", 0, 0}}},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_metric_row row = {
            .step = rows[i].step, .epoch = rows[i].epoch, .items = rows[i].m, .n = i == 2 ? 4 : 3};
        PF_TRY(pf_trainer_state_log(s, &row, NULL));
    }
    return PEFT_OK;
}

static void text_equals_transformers(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    pf_buf want = {0}, got = {0};
    assert_int_equal(fill(&s, &a), PEFT_OK);
    assert_int_equal(pf_read_file(&want,
                                  TEST_SOURCE_DIR "/tests/golden/trainer_state/trainer_state.json",
                                  1 << 20, NULL),
                     PEFT_OK);
    assert_int_equal(pf_trainer_state_text(&got, &s, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&got), pf_buf_str(&want));
    pf_buf_free(&want);
    pf_buf_free(&got);
    pf_arena_release(&a);
}

static void what_is_written_is_read(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s, back;
    pf_buf want = {0}, got = {0};
    char path[300];
    snprintf(path, sizeof path, TEST_BINARY_DIR "/test_trainer_state_%ld.json", (long)getpid());
    for (int round = 0; round < 2; round++) {
        assert_int_equal(fill(&s, &a), PEFT_OK);
        if (round == 1) { /* nothing is best yet, odd values */
            s.has_best = false;
            s.best_model_checkpoint = NULL;
            pf_metric odd[] = {{"loss", NAN, 0}, {"x", INFINITY, 0}, {"y", -INFINITY, 0}};
            pf_trainer_state_log(&s, &(pf_metric_row){31, 1.6, odd, 3}, NULL);
        }
        assert_int_equal(pf_trainer_state_write(&s, path, NULL), PEFT_OK);
        pf_trainer_state_init(&back, &a);
        back.stopping = &stopping;
        peft_error err = {0};
        if (pf_trainer_state_read(&back, path, &err) != PEFT_OK) fail_msg("%s", err.message);
        back.should_save = true;
        pf_buf_clear(&want);
        pf_buf_clear(&got);
        assert_int_equal(pf_trainer_state_text(&want, &s, NULL), PEFT_OK);
        assert_int_equal(pf_trainer_state_text(&got, &back, NULL), PEFT_OK);
        assert_string_equal(pf_buf_str(&got), pf_buf_str(&want));
        double v;
        assert_true(pf_log_row_value(&back, &back.rows[2], "eval_exact_match", &v) && v == 41.25);
        assert_false(pf_log_row_value(&back, &back.rows[2], "loss", &v));
        if (round == 1) {
            assert_true(pf_log_row_value(&back, &back.rows[4], "loss", &v) && isnan(v));
            assert_true(pf_log_row_value(&back, &back.rows[4], "y", &v) && v == -INFINITY);
        }
    }
    unlink(path);
    pf_buf_free(&want);
    pf_buf_free(&got);
    pf_arena_release(&a);
}

static void what_is_not_one_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "[]",
        "{",
        "{\"global_step\": 1}",
        "{\"global_step\": \"x\", \"max_steps\": 1}",
        "{\"global_step\": -1, \"max_steps\": 1, \"log_history\": []}",
        "{\"global_step\": 1, \"max_steps\": 1, \"log_history\": [3]}",
        "{\"global_step\": 1, \"max_steps\": 1, \"log_history\": [{\"loss\": 3}]}"};
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    char path[300];
    snprintf(path, sizeof path, TEST_BINARY_DIR "/test_trainer_state_%ld.json", (long)getpid());
    for (size_t i = 0; i < PF_COUNT(texts); i++) {
        assert_int_equal(pf_write_file(path, texts[i], strlen(texts[i]), NULL), PEFT_OK);
        assert_int_equal(fill(&s, &a), PEFT_OK);
        peft_error err = {0};
        assert_int_not_equal(pf_trainer_state_read(&s, path, &err), PEFT_OK);
        assert_non_null(strstr(err.message, "test_trainer_state_"));
        assert_int_equal(s.global_step, 30); /* left as it was */
    }
    unlink(path);
    pf_arena_release(&a);
}

static void logging_allocates_nothing_within_the_reserve(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    pf_trainer_state_init(&s, &a);
    assert_int_equal(pf_trainer_state_reserve(&s, 1000, 3000, NULL), PEFT_OK);
    pf_metric m[] = {{"loss", 1, 0}, {"grad_norm", 2, 0}, {"learning_rate", 3, 0}};
    pf_trainer_state_log(&s, &(pf_metric_row){1, 1, m, 3}, NULL);
    int64_t before = pf_alloc_count();
    for (int i = 2; i <= 1000; i++) pf_trainer_state_log(&s, &(pf_metric_row){i, i, m, 3}, NULL);
    assert_int_equal(pf_alloc_count(), before);
    for (int i = 0; i < 500; i++) /* and more is fine */
        assert_int_equal(pf_trainer_state_log(&s, &(pf_metric_row){i, i, m, 3}, NULL), PEFT_OK);
    assert_int_equal(s.n_rows, 1500);
    assert_int_equal(s.rows[999].step, 1000);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_equals_transformers),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_is_not_one_is_refused),
        cmocka_unit_test(logging_allocates_nothing_within_the_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
