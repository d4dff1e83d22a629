/* test_step_plan.c - steps as the Trainer counts them, orders that depend on seed and epoch alone,
 * the split. */
#include "data/split.h"
#include "data/step_plan.h"

#include "data_test.h"

enum { MAX = 120 };

/* A data set by hand: example i has lengths[i] tokens and row i + 1, prompt of a third. */
typedef struct fixture {
    pf_example examples[MAX];
    int32_t tokens[MAX * 40];
    int64_t index[MAX];
    pf_dataset set;
    pf_data_view view;
} fixture;

static void make(fixture *f, int64_t n) {
    memset(f, 0, sizeof *f);
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t length = 3 + (int32_t)(i * 7 % 31);
        f->examples[i] = (pf_example){
            .first = at, .n_tokens = length, .n_prompt = length / 3, .row = i + 1, .line = i + 2};
        at += length;
        f->index[i] = i;
    }
    f->set = (pf_dataset){.path = "made.csv",
                          .tokens = f->tokens,
                          .examples = f->examples,
                          .n = n,
                          .counts = {.rows = n, .max_tokens = 33}};
    f->view = (pf_data_view){&f->set, f->index, n};
}

static pf_step_plan *plan_of(const fixture *f, const pf_step_plan_options *opt) {
    pf_step_plan *plan = NULL;
    peft_error err = {0};
    if (pf_step_plan_new(&plan, &f->view, opt, &err) != PEFT_OK) fail_msg("%s", err.message);
    return plan;
}

/* samples, batch, accumulation -> steps per epoch and samples of the last step, by transformers'
 * Trainer 5.x: len_dataloader // accumulation + int(len_dataloader % accumulation > 0), the last
 * step takes the remainder. */
static void test_trainer_steps(void **state) {
    (void)state;
    static fixture f;
    static const struct {
        int64_t n, batch, accumulation, steps, last;
    } rows[] = {
        {64, 4, 8, 2, 32}, {65, 4, 8, 3, 1}, {99, 4, 8, 4, 3}, {100, 4, 8, 4, 4}, {7, 8, 1, 1, 7},
        {7, 1, 3, 3, 1},   {10, 4, 2, 2, 2}, {1, 8, 8, 1, 1},  {12, 4, 1, 3, 4},  {33, 2, 8, 3, 1},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        make(&f, rows[i].n);
        pf_step_plan_options opt = {.batch_size = rows[i].batch,
                                    .accumulation = rows[i].accumulation};
        pf_step_plan *plan = plan_of(&f, &opt);
        assert_int_equal(pf_step_plan_steps_per_epoch(plan), rows[i].steps);
        pf_step s;
        int64_t next = 0, supervised = 0, tokens = 0;
        for (int64_t k = 0; k < rows[i].steps; k++) {
            pf_step_plan_get(plan, k, &s);
            assert_int_equal(s.step, k);
            assert_int_equal(s.epoch, 0);
            for (int32_t j = 0; j < s.n; j++) assert_int_equal(s.examples[j], next++);
            supervised += s.supervised;
            tokens += s.tokens;
        }
        assert_int_equal(next, rows[i].n);
        assert_int_equal(s.n, rows[i].last);
        assert_true(s.epochs_done == 1.0);
        int64_t expected = 0, all = 0;
        for (int64_t k = 0; k < rows[i].n; k++) {
            expected += f.examples[k].n_tokens - f.examples[k].n_prompt;
            all += f.examples[k].n_tokens;
        }
        assert_int_equal(supervised, expected);
        assert_int_equal(tokens, all);
        assert_int_equal(pf_step_plan_total(plan, 2.5, -1), (5 * rows[i].steps + 1) / 2);
        assert_int_equal(pf_step_plan_total(plan, 2.5, 17), 17);
        pf_step_plan_free(plan);
    }
    make(&f, 99); /* 25 batches: after the first step 8 of them are done */
    pf_step_plan *plan = plan_of(&f, &(pf_step_plan_options){.batch_size = 4, .accumulation = 8});
    pf_step s;
    pf_step_plan_get(plan, 4, &s);
    assert_int_equal(s.epoch, 1);
    assert_int_equal(s.step_in_epoch, 0);
    assert_true(s.epochs_done == 1.0 + 8.0 / 25.0);
    pf_step_plan_free(plan);
}

static void test_shuffle(void **state) {
    (void)state;
    static fixture f;
    make(&f, 100);
    pf_step_plan_options opt = {.batch_size = 4, .accumulation = 2, .shuffle = true, .seed = 42};
    pf_step_plan *plan = plan_of(&f, &opt), *other = plan_of(&f, &opt);
    opt.seed = 43;
    pf_step_plan *differs = plan_of(&f, &opt);
    static int64_t orders[2][100];
    for (int64_t step = 0; step < 26; step++) {
        pf_step s, again;
        pf_step_plan_get(plan, step, &s);
        assert_int_equal(s.n, step % 13 == 12 ? 4 : 8);
        for (int32_t j = 0; j < s.n; j++) orders[s.epoch][s.step_in_epoch * 8 + j] = s.examples[j];
        pf_step_plan_get(other, 25 - step,
                         &again); /* backwards: a step needs nothing from those before */
        pf_step_plan_get(other, step, &again);
        assert_memory_equal(s.examples, again.examples, sizeof(int64_t) * (size_t)s.n);
    }
    assert_int_not_equal(memcmp(orders[0], orders[1], sizeof orders[0]), 0);
    for (int epoch = 0; epoch < 2; epoch++) {
        bool seen[100] = {false};
        int in_place = 0;
        for (int i = 0; i < 100; i++) {
            assert_false(seen[orders[epoch][i]]);
            seen[orders[epoch][i]] = true;
            in_place += orders[epoch][i] == i;
        }
        assert_true(in_place < 10);
    }
    pf_step a, b;
    pf_step_plan_get(plan, 0, &a);
    pf_step_plan_get(differs, 0, &b);
    assert_int_not_equal(memcmp(a.examples, b.examples, sizeof(int64_t) * 8), 0);
    pf_step_plan_free(plan);
    pf_step_plan_free(other);
    pf_step_plan_free(differs);
}

static void test_packing(void **state) {
    (void)state;
    static fixture f;
    make(&f, 100);
    pf_step_plan_options opt = {.batch_size = 2,
                                .accumulation = 2,
                                .shuffle = true,
                                .seed = 1,
                                .packing = true,
                                .pack_length = 64};
    pf_step_plan *plan = plan_of(&f, &opt);
    int64_t items = pf_step_plan_items(plan), steps = pf_step_plan_steps_per_epoch(plan), n = 0;
    assert_true(items >= (100 * 18) / 64 && items < 40);
    assert_int_equal(steps, (items + 3) / 4);
    bool seen[100] = {false};
    for (int64_t k = 0; k < steps; k++) {
        pf_step s;
        pf_step_plan_get(plan, k, &s);
        assert_true(s.n <= pf_step_plan_max_samples(plan));
        assert_true(s.tokens <= 4 * 64);
        for (int32_t j = 0; j < s.n; j++, n++) {
            assert_false(seen[s.examples[j]]);
            seen[s.examples[j]] = true;
        }
    }
    assert_int_equal(n, 100);
    pf_step_plan_free(plan);
    peft_error err = {0};
    opt.pack_length = 20;
    assert_int_equal(pf_step_plan_new(&plan, &f.view, &opt, &err), PEFT_E_SHAPE);
    assert_null(plan);
    opt = (pf_step_plan_options){.batch_size = 0, .accumulation = 1};
    assert_int_equal(pf_step_plan_new(&plan, &f.view, &opt, &err), PEFT_E_CONFIG);
}

/* The bound holds for every micro-batch that the builder makes, and is not just max_tokens. */
static void test_max_labels(void **state) {
    (void)state;
    static fixture f;
    make(&f, 100);
    for (int64_t i = 0; i < 100; i++) f.examples[i].n_prompt = f.examples[i].n_tokens - 2;
    pf_step_plan *plan =
        plan_of(&f, &(pf_step_plan_options){.batch_size = 8, .accumulation = 4, .shuffle = true});
    int32_t labels = pf_step_plan_max_labels(plan, 100, false);
    assert_true(labels >= 2 && labels < 60);
    pf_batch_builder *bb = NULL;
    pf_batch_builder_options opt = {.max_tokens = 100,
                                    .max_labels = labels,
                                    .share = PF_SHARE_NEVER,
                                    .max_samples = pf_step_plan_max_samples(plan)};
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    opt.max_labels = 0;
    pf_batch_builder *free_labels = NULL;
    assert_int_equal(pf_batch_builder_new(&free_labels, &opt, NULL), PEFT_OK);
    for (int64_t k = 0; k < 20; k++) {
        pf_step s;
        pf_sample samples[32];
        int32_t a = 0, b = 0;
        pf_step_plan_get(plan, k, &s);
        for (int32_t i = 0; i < s.n; i++) samples[i] = pf_dataset_sample(&f.set, s.examples[i], i);
        assert_int_equal(pf_batch_builder_begin(bb, samples, s.n, 0, &a, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_begin(free_labels, samples, s.n, 0, &b, NULL), PEFT_OK);
        assert_int_equal(a, b); /* the limit never cut anything */
        assert_int_equal(pf_batch_builder_figures(bb).labels, s.supervised);
    }
    pf_batch_builder_free(bb);
    pf_batch_builder_free(free_labels);
    pf_step_plan_free(plan);
}

static void test_split(void **state) {
    (void)state;
    static fixture f;
    make(&f, 110);
    pf_arena a;
    pf_arena_init(&a, "test");
    peft_error err = {0};
    pf_data_view train, test, again_train, again_test;
    assert_int_equal(pf_split_by_size(&f.set, 0.1, 42, &a, &train, &test, &err), PEFT_OK);
    assert_int_equal(test.n, 11);
    assert_int_equal(train.n, 99);
    bool seen[110] = {false};
    for (int64_t i = 0; i < train.n; i++) {
        seen[train.index[i]] = true;
        assert_true(i == 0 || train.index[i] > train.index[i - 1]);
    }
    for (int64_t i = 0; i < test.n; i++) {
        assert_false(seen[test.index[i]]);
        assert_true(i == 0 || test.index[i] > test.index[i - 1]);
    }
    assert_int_equal(pf_split_by_size(&f.set, 11, 42, &a, &again_train, &again_test, &err),
                     PEFT_OK);
    assert_int_equal(again_test.n, 11);
    assert_memory_equal(again_test.index, test.index, sizeof(int64_t) * 11);
    assert_int_equal(pf_split_by_size(&f.set, 0.1, 43, &a, &again_train, &again_test, &err),
                     PEFT_OK);
    assert_int_not_equal(memcmp(again_test.index, test.index, sizeof(int64_t) * 11), 0);
    assert_int_equal(pf_split_by_size(&f.set, 0.101, 42, &a, &again_train, &again_test, &err),
                     PEFT_OK);
    assert_int_equal(again_test.n, 12); /* rounded up, as scikit-learn and datasets do */

    /* rows that were dropped move no other row to the other side */
    int64_t kept = 0;
    for (int64_t i = 0; i < 110; i++)
        if (i % 3 != 0) f.examples[kept++] = f.examples[i];
    f.set.n = kept;
    bool held[111] = {false};
    for (int64_t i = 0; i < test.n; i++) held[test.index[i] + 1] = true;
    assert_int_equal(pf_split_by_size(&f.set, 0.1, 42, &a, &train, &test, &err), PEFT_OK);
    assert_int_equal(train.n + test.n, kept);
    for (int64_t i = 0; i < test.n; i++) assert_true(held[f.examples[test.index[i]].row]);
    for (int64_t i = 0; i < train.n; i++) assert_false(held[f.examples[train.index[i]].row]);

    static const struct {
        double size;
        const char *says;
    } bad[] = {{0, "data.test_size is 0"},
               {-1, "data.test_size is -1"},
               {1.5, "a share between 0 and 1, or a number of rows"},
               {110, "none is left to train on"},
               {0.9999, "none is left to train on"}};
    for (size_t i = 0; i < PF_COUNT(bad); i++) {
        assert_int_equal(pf_split_by_size(&f.set, bad[i].size, 1, &a, &train, &test, &err),
                         PEFT_E_CONFIG);
        assert_says(&err, bad[i].says);
    }
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trainer_steps), cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_packing),       cmocka_unit_test(test_max_labels),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
