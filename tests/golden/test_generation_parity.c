/* Greedy continuations with a KV cache equal those that transformers finds by computing the whole
 * sequence anew for each token: for every model of parity/ with its adapter, with few slots and
 * small prefill chunks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "infer/generator.h"

#define MAX_NEW 10

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

static void check_sequence(const fixture *f, int i, const pf_generation *g, const json_t *want) {
    const int n = (int)json_array_size(want); /* fewer than asked for where two tokens were close */
    for (int t = 0; t < n; t++) {
        int expected = (int)json_integer_value(json_array_get(want, (size_t)t));
        if (t >= g->n_ids || g->ids[t] != expected) {
            fail_msg("%s: token %d of sequence %d is %d, not %d", f->name, t, i,
                     t < g->n_ids ? g->ids[t] : -1, expected);
        }
    }
}

static int check_fixture(fixture *f, const pf_generator_options *opt) {
    peft_error err = {0};
    const json_t *greedy = json_object_get(f->info, "greedy");
    pf_generation items[16] = {0};
    int32_t ids[16][MAX_NEW];
    pf_generator *gen;
    if (greedy == NULL) return 0;
    for (int i = 0; i < f->n_samples[0]; i++) {
        items[i] = (pf_generation){
            .prompt = f->steps[0][i].tokens, .n_prompt = f->steps[0][i].n_tokens, .ids = ids[i]};
        if (f->model->encoder_decoder) {
            items[i].prompt = f->steps[0][i].source;
            items[i].n_prompt = f->steps[0][i].n_source;
        }
    }
    const pf_generate_options go = {.sampling = pf_sampling_greedy(), .max_new_tokens = MAX_NEW};
    OK(pf_generator_new(&gen, f->model, backend, opt, &err));
    OK(pf_generator_run(gen, &go, items, f->n_samples[0], &err));
    for (int i = 0; i < f->n_samples[0]; i++) {
        check_sequence(f, i, &items[i], json_array_get(greedy, (size_t)i));
    }
    pf_generator_free(gen);
    return 1;
}

static void equals_transformers(void **state) {
    (void)state;
    static const pf_generator_options ways[] = {
        {.max_sequences = 8, .max_length = 64, .adapters = true, .fuse = true},
        {.max_sequences = 2, .max_length = 64, .max_tokens = 7, .adapters = true},
        {.max_sequences = 1, .max_length = 64, .max_tokens = 1, .adapters = true, .fuse = true},
    };
    pf_arena a;
    pf_strlist names = {0};
    int n = 0;
    pf_arena_init(&a, "names");
    assert_int_equal(pf_list_dir(&names, &a, GOLDEN "/parity", NULL), PEFT_OK);
    for (int i = 0; i < names.n; i++) {
        const char *dir = pf_path_join(&a, GOLDEN "/parity", names.items[i]);
        if (pf_starts_with(names.items[i], "real_") || !pf_is_dir(dir)) continue;
        fixture f;
        open_fixture(&f, names.items[i], backend);
        for (size_t k = 0; k < PF_COUNT(ways); k++) n += check_fixture(&f, &ways[k]);
        close_fixture(&f);
    }
    assert_true(n >= 3 * 25);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_transformers)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
