/* Made-up curves of every class get their finding, at several lengths and levels of noise; the
 * words carry the figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "train/diagnosis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX = 20000 };
static pf_curve_point train[MAX], eval[64];
static const pf_curve_context context = {.learning_rate = 2e-4,
                                         .num_train_epochs = 3,
                                         .max_grad_norm = 1,
                                         .warmup_steps = 10,
                                         .batch = 32,
                                         .lora_r = 8,
                                         .lora_dropout = 0.05};

static double noise(int seed, int i) {
    return pf_rng_normal_at(pf_rng_make_key((uint64_t)seed, PF_RNG_DATA, 0), (uint64_t)i);
}

/* level + drop * exp(-rate * share), with noise that is a share of the value */
static void curve(int n, double level, double drop, double rate, double swing, int seed) {
    for (int i = 0; i < n; i++) {
        double v = level + drop * exp(-rate * i / n);
        train[i] = (pf_curve_point){.step = 10 * (i + 1),
                                    .loss = v * (1 + swing * noise(seed, i)),
                                    .grad_norm = 0.5,
                                    .lr = 2e-4};
    }
}

static void evals(int n, double first, double low, int at, double last, int steps) {
    for (int i = 0; i < n; i++) {
        double v = i <= at ? first + (low - first) * (at > 0 ? (double)i / at : 1)
                           : low + (last - low) * (double)(i - at) / (n - 1 - at);
        eval[i] = (pf_curve_point){
            .step = (int64_t)steps * (i + 1) / n, .loss = v, .grad_norm = NAN, .lr = NAN};
    }
}

static void expect(int n_train, int n_eval, const pf_curve_context *ctx, pf_finding want,
                   const char *what) {
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_diagnosis d;
    assert_int_equal(pf_diagnose(&d, &a, train, n_train, eval, n_eval, ctx, NULL), PEFT_OK);
    if (d.finding != want) fail_msg("%s, %d points: %s. %s", what, n_train, d.title, d.shows);
    assert_true(strlen(d.shows) > 20 && strlen(d.advice) > 20);
    assert_true(d.shows[strlen(d.shows) - 1] == '.' && d.advice[strlen(d.advice) - 1] == '.');
    if (strstr(d.shows, "nan") != NULL || strstr(d.advice, "nan") != NULL)
        fail_msg("%s: %s %s", what, d.shows, d.advice);
    pf_arena_release(&a);
}

static const int lengths[] = {8, 30, 150, 1000, 20000};

static void falling(void **state) {
    (void)state;
    for (size_t k = 0; k < PF_COUNT(lengths); k++) {
        for (int seed = 0; seed < 20; seed++) {
            curve(lengths[k], 0.8, 2, 4, 0.04, seed);
            evals(6, 2.5, 0.9, 5, 0.9, 10 * lengths[k]);
            expect(lengths[k], 6, &context, PF_FINDING_FALLS, "falls");
            expect(lengths[k], 0, &context, PF_FINDING_FALLS, "falls, never evaluated");
            curve(lengths[k], 0, 2.5, 2, 0.1, seed); /* a noisy fall to a fifth */
            expect(lengths[k], 6, &context, PF_FINDING_FALLS, "falls with noise");
        }
    }
}

static void overfitting(void **state) {
    (void)state;
    for (size_t k = 0; k < PF_COUNT(lengths); k++) {
        for (int seed = 0; seed < 20; seed++) {
            curve(lengths[k], 0.1, 2.4, 4, 0.04, seed);
            evals(6, 2.4, 1.2, 2, 1.5, 10 * lengths[k]);
            expect(lengths[k], 6, &context, PF_FINDING_OVERFITS, "overfits");
            evals(2, 1.2, 1.2, 0, 1.3, 10 * lengths[k]);
            expect(lengths[k], 2, &context, PF_FINDING_OVERFITS, "two evaluations, clearly worse");
            evals(2, 1.2, 1.2, 0, 1.23, 10 * lengths[k]);
            expect(lengths[k], 2, &context, PF_FINDING_FALLS, "two evaluations, hardly worse");
            evals(6, 2.4, 1.2, 3, 1.21, 10 * lengths[k]);
            expect(lengths[k], 6, &context, PF_FINDING_FALLS, "validation levels off");
        }
    }
}

static void flat(void **state) {
    (void)state;
    for (size_t k = 0; k < PF_COUNT(lengths); k++) {
        for (int seed = 0; seed < 20; seed++) {
            curve(lengths[k], 2.5, 0, 1, 0.004, seed);
            evals(6, 2.5, 2.49, 5, 2.49, 10 * lengths[k]);
            expect(lengths[k], 6, &context, PF_FINDING_FLAT, "flat");
            curve(lengths[k], 0.01, 0, 1, 0.004, seed);
            expect(lengths[k], 0, &context, PF_FINDING_FLAT, "flat at nothing");
        }
    }
}

static void jumping(void **state) {
    (void)state;
    for (size_t k = 1; k < PF_COUNT(lengths); k++) {
        int n = lengths[k];
        for (int seed = 0; seed < 20; seed++) {
            curve(n, 0.8, 1.5, 4, 0.03, seed);
            train[n / 2].loss *= 3; /* once */
            expect(n, 0, &context, PF_FINDING_JUMPS, "one point up");
            curve(n, 0.8, 1.5, 4, 0.03, seed);
            for (int i = n / 2; i < n; i++) train[i].loss += 3; /* and stays */
            expect(n, 0, &context, PF_FINDING_JUMPS, "up for good");
        }
    }
}

static void rising(void **state) {
    (void)state;
    for (size_t k = 0; k < PF_COUNT(lengths); k++) {
        for (int seed = 0; seed < 20; seed++) {
            curve(lengths[k], 2, 0, 1, 0.02, seed);
            for (int i = 0; i < lengths[k]; i++) train[i].loss *= 1 + 0.8 * i / lengths[k];
            expect(lengths[k], 0, &context, PF_FINDING_RISES, "rises");
        }
    }
}

static void oscillating(void **state) {
    (void)state;
    for (size_t k = 1; k < PF_COUNT(lengths); k++) {
        int n = lengths[k];
        if (n > 200) n = 200; /* more points are averaged, and with them the swings */
        for (int seed = 0; seed < 20; seed++) {
            for (int i = 0; i < n; i++)
                train[i] =
                    (pf_curve_point){.step = i + 1,
                                     .loss = 2 + (i % 2 == 0 ? 0.5 : -0.5) + 0.05 * noise(seed, i),
                                     .grad_norm = 3,
                                     .lr = 1e-3};
            expect(n, 0, &context, PF_FINDING_OSCILLATES, "two values in turn");
            pf_curve_context slow = context;
            slow.learning_rate = 1e-6;
            expect(n, 0, &slow, PF_FINDING_FLAT, "different rows, at a rate that moves nothing");
        }
    }
}

static void not_a_number(void **state) {
    (void)state;
    curve(30, 1, 2, 4, 0.03, 1);
    train[20].loss = NAN;
    expect(30, 0, &context, PF_FINDING_NAN, "NaN");
    curve(30, 1, 2, 4, 0.03, 1);
    train[0].loss = INFINITY;
    expect(30, 0, &context, PF_FINDING_NAN, "infinite at once");
    curve(30, 1, 2, 4, 0.03, 1);
    evals(3, 2, 1, 2, 1, 300);
    eval[2].loss = NAN;
    expect(30, 3, &context, PF_FINDING_NAN, "NaN evaluation");
    pf_curve_context stopped = context;
    stopped.diverged = "step 12: the gradient of x is NaN";
    expect(11, 0, &stopped, PF_FINDING_NAN, "stopped");
    expect(0, 0, &stopped, PF_FINDING_NAN, "stopped at once");
}

static void too_short(void **state) {
    (void)state;
    curve(3, 1, 2, 4, 0, 1);
    for (int n = 0; n < 4; n++) expect(n, 0, &context, PF_FINDING_SHORT, "short");
}

static void an_empty_context_is_fine(void **state) {
    (void)state;
    pf_curve_context none = {0};
    curve(30, 0.1, 2.4, 4, 0.04, 1);
    evals(6, 2.4, 1.2, 2, 1.5, 300);
    expect(30, 6, &none, PF_FINDING_OVERFITS, "overfits");
    expect(30, 0, &none, PF_FINDING_FALLS, "falls");
    curve(30, 2.5, 0, 1, 0.004, 1);
    expect(30, 0, &none, PF_FINDING_FLAT, "flat");
    train[15].loss = 9;
    expect(30, 0, &none, PF_FINDING_JUMPS, "jumps");
}

static void words_carry_the_figures(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_diagnosis d;
    curve(40, 0.2, 2, 5, 0, 1);
    evals(4, 2, 1, 1, 1.25, 400);
    pf_diagnose(&d, &a, train, 40, eval, 4, &context, NULL);
    assert_string_equal(d.title, "falls, then validation rises: overfitting");
    assert_string_equal(d.shows,
                        "eval_loss was at its best at step 200, 1, and rose to 1.25 by step 400 "
                        "(+25 %), while the training loss went from 0.4119 to 0.2174: the adapter "
                        "learns the training rows by heart.");
    assert_string_equal(
        d.advice, "Use the state of step 200 (training.load_best_model_at_end=true keeps "
                  "it), stop early (callbacks.early_stopping.patience=2), train fewer epochs "
                  "than 3, a smaller peft.lora.r than 8, peft.lora.dropout=0.1, and above all "
                  "more or more varied data.");
    curve(40, 1, 0, 5, 0, 1);
    train[25].loss = 4;
    train[25].grad_norm = 77;
    pf_diagnose(&d, &a, train, 40, NULL, 0, &context, NULL);
    assert_string_equal(d.shows, "At step 260 the training loss jumped from about 1 to 4 (gradient "
                                 "norm 77, learning rate 0.0002), and was back by step 270.");
    assert_string_equal(d.advice,
                        "Try training.learning_rate=7e-05 (it is 0.0002). One jump that comes back "
                        "is often a few odd rows: look at the data around step 260 (very long "
                        "targets, wrong columns).");
    pf_curve_context bare = {.learning_rate = 1e-6, .lora_r = 8};
    curve(40, 2, 0, 5, 0, 1);
    pf_diagnose(&d, &a, train, 40, NULL, 0, &bare, NULL);
    assert_string_equal(d.title, "flat");
    assert_string_equal(
        d.advice,
        "Rate: training.learning_rate=2e-4 (it is 1e-06); LoRA usually wants 1e-4 to 5e-4. "
        "Targets: train more of the model (peft.lora.target_modules=all-linear, peft.lora.r=16). "
        "Data: see with peft-toolkit data preview that the prompt holds what the target needs, and "
        "that the answer is what is supervised.");
    bare.diverged = "step 12: the gradient of x[1,2] is NaN";
    curve(11, 1, 2, 5, 0, 1);
    pf_diagnose(&d, &a, train, 11, NULL, 0, &bare, NULL);
    assert_string_equal(d.shows,
                        "Training stopped: step 12: the gradient of x[1,2] is NaN. The last finite "
                        "training loss was 1.021 at step 110, with a gradient norm of 0.5.");
    assert_non_null(strstr(d.advice, "training.learning_rate=3e-07 (it is 1e-06), "
                                     "training.max_grad_norm=1, training.warmup_ratio=0.1"));
    pf_arena_release(&a);
}

static void the_log_gives_the_curves(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    pf_trainer_state_init(&s, &a);
    for (int i = 1; i <= 30; i++) {
        pf_metric m[] = {{"loss", 2 - 0.05 * i, 0}, {"learning_rate", 1e-4, 0}};
        pf_trainer_state_log(&s, &(pf_metric_row){i, i, m, 2}, NULL);
        pf_metric e = {"eval_loss", i < 15 ? 3 - 0.1 * i : 1 + 0.1 * i, 0};
        if (i % 5 == 0) pf_trainer_state_log(&s, &(pf_metric_row){i, i, &e, 1}, NULL);
    }
    pf_diagnosis d;
    assert_int_equal(pf_diagnose_state(&d, &a, &s, &context, NULL), PEFT_OK);
    assert_int_equal(d.finding, PF_FINDING_OVERFITS);
    assert_non_null(strstr(d.shows, "at its best at step 10, 2,"));
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(falling),
        cmocka_unit_test(overfitting),
        cmocka_unit_test(flat),
        cmocka_unit_test(jumping),
        cmocka_unit_test(rising),
        cmocka_unit_test(oscillating),
        cmocka_unit_test(not_a_number),
        cmocka_unit_test(too_short),
        cmocka_unit_test(an_empty_context_is_fine),
        cmocka_unit_test(words_carry_the_figures),
        cmocka_unit_test(the_log_gives_the_curves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
