/* The dropouts that base models have themselves, against transformers in train mode with our masks
 * put into its dropouts (tools/make_dropout_fixtures.py): for every folder of dropout/ the loss of
 * each of 10 optimizer steps, raw gradients of the first and the adapter after the last. Then what
 * the masks are promised to be: the same for a row in any cut of a step, under any saving policy
 * and on any number of threads; others in another step; none in evaluation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

static const how ways[] = {
    {"usual", true, PF_SAVE_MINIMAL, SMALL_CUT, PF_SHARE_NEVER},
    {"checkpoint", false, PF_SAVE_CHECKPOINT, 0, PF_SHARE_NEVER},
    {"all saved", true, PF_SAVE_ALL, 0, PF_SHARE_NEVER},
};

static void for_every_case(void (*look)(const char *name)) {
    pf_arena a;
    pf_strlist names = {0};
    int n = 0;
    pf_arena_init(&a, "names");
    assert_int_equal(pf_list_dir(&names, &a, GOLDEN "/dropout", NULL), PEFT_OK);
    for (int i = 0; i < names.n; i++) {
        if (!pf_is_dir(pf_path_join(&a, GOLDEN "/dropout", names.items[i]))) continue;
        look(names.items[i]);
        n++;
    }
    assert_true(n >= 16);
    pf_arena_release(&a);
}

static void train(const char *name) {
    for (size_t k = 0; k < PF_COUNT(ways); k++) {
        fixture f;
        open_fixture_of(&f, "dropout", name, backend);
        assert_true(f.model->dropout.active);
        check_training(&f, &ways[k]);
        close_fixture(&f);
    }
}

static void as_transformers(void **state) {
    (void)state;
    for_every_case(train);
}

/* ---- what masks depend on -------------------------------------------------------------------- */

enum { MOST_ENTRIES = 256, POSITIONS = 64 };

/* nll of the entries of the samples of step `samples`, by sample and position of the row, computed
 * as those of optimizer step `step`. */
typedef struct losses {
    float of[MOST_ENTRIES];
    int n;
} losses;

static losses losses_of(const fixture *f, const how *h, bool training, int samples, int step) {
    peft_error err = {0};
    losses out = {0};
    int32_t n_micro;
    runner r;
    open_runner(&r, f, h, training);
    OK(pf_batch_builder_begin(r.builder, f->steps[samples], f->n_samples[samples], (uint64_t)step,
                              &n_micro, &err));
    for (int32_t i = 0; i < n_micro; i++) {
        pf_batch b;
        pf_loss_sums unused = {0};
        pf_batch_builder_get(r.builder, i, &b);
        OK(pf_loss_graph_forward(&r.graph, &b, &unused, &err));
        const pf_real *nll = pf_exec_data(r.graph.exec, r.graph.nll);
        for (int32_t e = 0; e < b.n_labels; e++) {
            const int at = b.label_sample[e] * POSITIONS + b.pos[b.label_row[e]];
            assert_in_range(at, 0, MOST_ENTRIES - 1);
            out.of[at] = nll[e];
        }
        out.n += b.n_labels;
    }
    close_runner(&r);
    return out;
}

static void look_at_masks(const char *name) {
    peft_error err = {0};
    fixture f;
    open_fixture_of(&f, "dropout", name, backend);
    const losses first = losses_of(&f, &ways[0], true, 0, 3);
    for (size_t k = 1; k < PF_COUNT(ways); k++) { /* every bit of every row's loss */
        const losses other = losses_of(&f, &ways[k], true, 0, 3);
        assert_int_equal(other.n, first.n);
        assert_memory_equal(other.of, first.of, sizeof first.of);
    }
    pf_backend *two = f.backend;
    OK(pf_backend_open_cpu(&f.backend, 1, NULL));
    losses other = losses_of(&f, &ways[0], true, 0, 3);
    assert_memory_equal(other.of, first.of, sizeof first.of);
    pf_backend_close(f.backend);
    f.backend = two;

    other = losses_of(&f, &ways[0], true, 0, 4);
    assert_memory_not_equal(other.of, first.of, sizeof first.of);
    f.model->dropout.seed++; /* of the masks of rows; those of scores were taken while it opened */
    if (!pf_streq(name, "llama")) {
        other = losses_of(&f, &ways[0], true, 0, 3);
        assert_memory_not_equal(other.of, first.of, sizeof first.of);
    }
    f.model->dropout.seed--;

    const losses tests = losses_of(&f, &ways[0], false, 0, 3);
    assert_memory_not_equal(tests.of, first.of, sizeof first.of);
    close_fixture(&f);

    /* evaluation is that of a base without dropout, and so is training where it is off */
    open_fixture_of(&f, "dropout", name, backend);
    pf_adapter_close(f.adapter);
    pf_model_close(f.model);
    json_object_del(f.info, "dropout_seed");
    open_model(&f);
    assert_false(f.model->dropout.active);
    other = losses_of(&f, &ways[0], true, 0, 3);
    assert_memory_equal(other.of, tests.of, sizeof tests.of);
    close_fixture(&f);
}

static void what_masks_depend_on(void **state) {
    (void)state;
    for_every_case(look_at_masks);
}

/* A number in place of what the config has, and a rate that no dropout can have. */
static void other_choices(void **state) {
    (void)state;
    peft_error err = {0};
    pf_model *m;
    pf_model_options mo = {.dropout = {.use = PF_DROPOUT_FIXED, .p = 0.25}};
    OK(pf_model_open(&m, GOLDEN "/dropout/gpt2", &mo, &err));
    assert_true(m->dropout.active);
    assert_int_equal(m->dropout.found.n, 3);
    assert_string_equal(m->dropout.found.items[0], "embd_pdrop 0.1");
    pf_model_close(m);

    mo.dropout = (pf_dropout_choice){.use = PF_DROPOUT_CONFIG};
    json_t *config = read_json(GOLDEN "/dropout/gpt2/config.json");
    json_object_set_new(config, "resid_pdrop", json_real(1.5));
    assert_int_equal(pf_model_open_config(&m, config, "a config", &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "a config: resid_pdrop is 1.5; it should be at least 0 and below 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_transformers),
        cmocka_unit_test(what_masks_depend_on),
        cmocka_unit_test(other_choices),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
